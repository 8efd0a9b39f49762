"""The one error that people see, and the sentence that helps them on."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable
from typing import Any


class ZooError(ValueError):
    """A mistake that the person at the keyboard can mend; its text is shown without a traceback.

    The text names the argument, the value, what was expected and the next command to run.
    """


class NotFiniteError(ZooError):
    """A loss, a gradient or a weight that is no finite number.

    Attributes:
        evidence: What it was computed from (:class:`lightning_zoo.tasks.finite.Evidence`), or None.
    """

    evidence: Any = None


class Stopped(Exception):  # noqa: N818  nothing is wrong: it was asked for
    """A run that a signal ended, after its last whole step was saved.

    Args:
        number: The signal.
        step: Optimizer steps that the run has made.

    Attributes:
        number: The signal.
        step: Optimizer steps that the run has made.
        status: Exit status of the command line, 128 and the signal's number as shells have it.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step, self.status = number, step, 128 + number


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that reads most like ``name``, or None if none comes close."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown(kind: str, name: str, choices: Iterable[str], hint: str = "") -> ZooError:
    """Return the error for a name that is not among ``choices``.

    Args:
        kind: What the name was meant to be, for example ``"model"``.
        name: The name as it was written.
        choices: The names that would have been right.
        hint: The command that lists the choices; left out, the choices themselves are shown.
    """
    choices = list(choices)
    guess = nearest(name, choices)
    text = f"unknown {kind} {name!r}"
    if guess is not None:
        text += f"; did you mean {guess}?"
    if hint:
        text += f" ({hint})" if guess is not None else f"; {hint}"
    elif guess is None:
        text += f"; expected one of {', '.join(sorted(choices))}"
    return ZooError(text)
