"""From which score something counts as found: one number, or one a class, kept in the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_zoo.errors import ZooError
from lightning_zoo.runs import read_checkpoint

DEFAULT = 0.5
SHOWN = 6


@dataclass(frozen=True)
class Thresholds:
    """The score from which each class counts.

    Attributes:
        common: Score for classes that have none of their own.
        by_class: Scores by class name.
    """

    common: float = DEFAULT
    by_class: Mapping[str, float] = field(default_factory=dict)

    def of(self, class_names: Sequence[str]) -> list[float]:
        """Return the score of each class."""
        return [self.by_class.get(name, self.common) for name in class_names]

    def __str__(self) -> str:
        """Say what is used; nothing of one number for all."""
        if not self.by_class:
            return ""
        pairs = [f"{name} {score:.2f}" for name, score in self.by_class.items()]
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        shown = ", ".join(pairs[:SHOWN])
        return f"thresholds of the run: {shown}{more}; --threshold S sets one for all"


def choose_thresholds(given: float | None, checkpoint: Path | None = None) -> Thresholds:
    """Return a number that was given, else those that a checkpoint has, else one half.

    Raises:
        ZooError: If the number is no score.
    """
    if given is not None:
        if not 0 <= given <= 1:
            raise ZooError(f"--threshold is {given}; expected a score from 0 to 1")
        return Thresholds(given)
    ours = read_checkpoint(checkpoint).get("lightning_zoo") if checkpoint else None
    own = (ours or {}).get("thresholds") or {}
    return Thresholds(by_class={str(name): float(score) for name, score in own.items()})
