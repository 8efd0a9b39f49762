"""Looks over a machine before a long run: versions, devices, memory, decoders, one model a task.

What the packages' versions say comes first, and before anything heavy is imported: a package that
is known to do harm does it while it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Attributes:
        subject: What was looked at.
        status: ``ok``; ``warn`` where something is slow or missing; ``fail`` where runs would fail.
        found: What was found, in words.
        fix: What to do about it; empty where all is well.
    """

    subject: str
    status: Status
    found: str
    fix: str = ""


@dataclass
class Checkup:
    """All findings about one machine.

    Attributes:
        findings: In the order of the looks.
    """

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing fails."""
        return all(finding.status != "fail" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}


def check_machine(tell: Callable[[Finding], None] | None = None, *, debug: bool = False) -> Checkup:
    """Look over this machine; takes a few seconds.

    Args:
        tell: Called with each finding as it is made.
        debug: Let the error that a look fails with pass.

    Returns:
        The findings. Where a package is known to do harm, nothing after the versions is looked at.
    """
    checkup = Checkup()
    for finding in _looks(debug):
        checkup.findings.append(finding)
        if tell is not None:
            tell(finding)
    return checkup


def _looks(debug: bool) -> Iterator[Finding]:
    from lightning_zoo.doctor.versions import look_at_versions

    refused = False
    for finding in look_at_versions():
        refused |= finding.status == "fail"
        yield finding
    if refused:  # what is missing or does harm is not imported
        return
    from lightning_zoo.doctor import machine, working

    looks = (*machine.LOOKS, *working.LOOKS)
    for subject, look in looks:
        try:
            yield from look()
        except Exception as error:
            if debug:
                raise
            text = str(error).strip().splitlines()
            line = f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
            yield Finding(
                subject, "fail", line, "see it with: python -m lightning_zoo doctor --debug"
            )
