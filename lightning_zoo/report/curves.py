"""Precision and recall of one class as the score falls, and the score that serves it best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_EVIDENCE = 0.5  # the threshold of a class that nothing is known about


@dataclass(frozen=True)
class Point:
    """One point of a curve; NaN where there is nothing to divide by.

    Attributes:
        threshold: The score from which an object or a label counts.
        precision: Share of what is found that is right, 0 to 1.
        recall: Share of what is true that is found, 0 to 1.
        f1: Their harmonic mean.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Curve:
    """What is found, and what of it is right, at each score of a class.

    Attributes:
        scores: float64 (T,), the distinct scores from high to low.
        found: int64 (T,), how many have that score or a higher one.
        right: int64 (T,), how many of those are right.
        truths: How many there are to find.
    """

    scores: NDArray[np.float64]
    found: NDArray[np.int64]
    right: NDArray[np.int64]
    truths: int

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of what is found that is right, float64 (T,)."""
        return self.right / self.found

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of what is true that is found, float64 (T,); NaN where nothing is to find."""
        return self.right / self.truths if self.truths else np.full(len(self.scores), math.nan)

    @property
    def average_precision(self) -> float:
        """The sum of precision times the step in recall, 0 to 1; NaN where nothing is to find."""
        steps = np.diff(self.recall, prepend=0.0)
        return float((steps * self.precision).sum()) if self.truths else math.nan

    def at(self, threshold: float) -> Point:
        """Return what is right and found from a score on."""
        count = int((self.scores >= threshold).sum())
        found = int(self.found[count - 1]) if count else 0
        right = int(self.right[count - 1]) if count else 0
        return Point(
            threshold,
            _share(right, found),
            _share(right, self.truths),
            _share(2 * right, found + self.truths),
        )

    def best(self) -> Point:
        """Return the point of the highest F1, of several the one with the highest score.

        Its threshold lies halfway down to the next lower score that was seen, so that a score which
        comes out a little different elsewhere falls on the same side; where there is none lower it
        is the score itself. A class that is never true, never found or never right has no best
        score: its threshold is 0.5.
        """
        if not self.truths or not self.right.any():
            return self.at(NO_EVIDENCE)
        place = int(np.argmax(2 * self.right / (self.found + self.truths)))
        lower = self.scores[min(place + 1, len(self.scores) - 1)]
        return self.at(float((self.scores[place] + lower) / 2))


def make_curve(scores: NDArray[Any], right: NDArray[Any], truths: int) -> Curve:
    """Return the curve of a class.

    Args:
        scores: Float (N,), in any order.
        right: Whether each is right, (N,).
        truths: How many there are to find.
    """
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order].astype(np.float64), np.cumsum(right[order].astype(np.int64))
    # equal scores pass a threshold together
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else order
    return Curve(falling[last], last + 1, hits[last], truths)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
