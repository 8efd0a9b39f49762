"""Give many damaged files to a decoder in a process of its own: what does it make of each?

A decoder that crashes takes its process along, not the tests; one that hangs is ended.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 5.0  # seconds of a core that a file may take
WAIT = 30.0  # seconds until a file that gives no sign counts as hung


@dataclass
class Outcome:
    """What came of a sweep.

    Attributes:
        kinds: How many files were read, and how many were refused.
        bad: Files that crashed the process, took too long or raised another error than ours.
        slowest: Seconds of a core that the slowest file took, and its number.
        peak: Megabytes of the process at its largest, and the number of that file.
        texts: Kinds of texts of errors.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    peak: tuple[float, int] = (0.0, -1)
    texts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{dict(self.kinds)}, slowest {self.slowest[0]:.2f} s (number {self.slowest[1]}), "
            f"peak {self.peak[0]:.0f} MB (number {self.peak[1]}), {len(self.bad)} bad"
        )


def sweep(
    decoder: str, arguments: Sequence[str], count: int, *, first: int = 0, wait: float = WAIT
) -> Outcome:
    """Run files number ``first`` to ``first + count`` through a decoder of ``victim.py``.

    Args:
        decoder: Name of the function there.
        arguments: What it takes beside the number.
        count: Number of files.
        first: Number of the first one.
        wait: Seconds until a file that gives no sign counts as hung.
    """
    outcome = Outcome()
    at = first
    while at < first + count:
        at = _one_process(decoder, arguments, at, first + count, wait, outcome)
        if len(outcome.bad) > 20:
            break
    return outcome


def _one_process(
    decoder: str, arguments: Sequence[str], first: int, end: int, wait: float, outcome: Outcome
) -> int:
    """Go on until the end or until the process dies; return the next number."""
    package = str(HERE.parents[1])
    paths = [package, str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    errors = tempfile.TemporaryFile()  # noqa: SIM115  closed below
    process = subprocess.Popen(
        [sys.executable, "-P", str(HERE / "victim.py"), decoder, str(first), str(end), *arguments],
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    at = first - 1  # not begun: it imports
    begun = False
    try:
        for line in _lines(process, wait):
            if line is None:
                outcome.bad.append(f"number {at} hangs for {wait} s")
                return at + 1
            told = json.loads(line)
            if told["kind"] == "begin":
                at, begun = told["number"], True
                continue
            outcome.kinds[told["kind"]] += 1
            outcome.slowest = max(outcome.slowest, (told["seconds"], told["number"]))
            outcome.peak = max(outcome.peak, (told["peak"], told["number"]))
            if told["seconds"] > LIMIT:
                outcome.bad.append(f"number {told['number']} takes {told['seconds']:.1f} s")
            if told["kind"] == "other error":
                outcome.bad.append(f"number {told['number']}: {told['text']}")
            elif told["text"]:
                outcome.texts[told["text"].rpartition("': ")[2][:60]] += 1
            at = told["number"]
            if at == end - 1:
                return end
        status = process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-2000:]
        if not begun:
            raise RuntimeError(f"the process ended with {status} before the first file: {said}")
        outcome.bad.append(f"number {at} ends the process with {status}: {said}")
        return at + 1
    finally:
        process.kill()
        process.communicate()
        errors.close()


def _lines(process: subprocess.Popen[bytes], wait: float) -> Iterator[bytes | None]:
    """Yield the lines that a process writes; None where the next one takes too long."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        waited = 60.0  # to start
        while True:
            if not selector.select(waited):
                yield None
                return
            block = os.read(process.stdout.fileno(), 65536)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if lines:
                waited = wait
