"""What a pass through the validation split found, whatever the task: the page shows no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.report.curves import Curve, Point

Cell = str | int | float
MOST_MISTAKES = 12


@dataclass(frozen=True)
class ClassCurve:
    """Precision against recall of one class.

    Attributes:
        name: The class.
        curve: All of its points.
        ap: Its average precision in per cent, as the task counts it.
        best: The point of the highest F1.
    """

    name: str
    curve: Curve
    ap: float
    best: Point


@dataclass(frozen=True)
class Confusion:
    """How often each class was found where each class is true.

    Attributes:
        names: Name of each row and column.
        counts: int64 (K, K); the row is true, the column found.
        unit: What is counted, in the plural.
        background: Whether the last row and column stand for nothing at all.
    """

    names: list[str]
    counts: NDArray[np.int64]
    unit: str
    background: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: What it shows, in a word or two.
        image: uint8 RGB (H, W, 3).
        legend: Names and colours (``#rrggbb``) that it takes to read it; hatched where None.
    """

    title: str
    image: NDArray[np.uint8]
    legend: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True)
class Bar:
    """How probable a class was.

    Attributes:
        name: The class.
        share: Its probability, 0 to 1.
        true: Whether it is true.
    """

    name: str
    share: float
    true: bool


@dataclass(frozen=True)
class Mistake:
    """One of the worst images.

    Attributes:
        id: The sample's ``id``.
        text: What is wrong, in one line.
        show: Makes the pictures of the sample as the data set returns it.
        bars: Of classifiers: the most probable classes, and the true ones.
    """

    id: Any
    text: str
    show: Callable[[dict[str, Any]], list[Panel]]
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All that a pass found.

    Attributes:
        metrics: The task's figures by name, without the split: ``box_map50``.
        rows: The table of classes: titles and values, numbers in per cent but for counts.
        curves: Precision against recall of the classes that have truth.
        confusion: None where an image may have several labels.
        mistakes: The worst images, the worst first.
        worst_by: What makes an image bad, for people.
        thresholds: The best score of each class by its name; empty where a class needs none.
        samples: How many images or videos were looked at.
    """

    metrics: dict[str, float]
    rows: list[dict[str, Cell]]
    curves: list[ClassCurve]
    confusion: Confusion | None
    mistakes: Sequence[Mistake]
    worst_by: str
    thresholds: dict[str, float] = field(default_factory=dict)
    samples: int = 0


class Collector(Protocol):
    """Takes what ``predict_step`` says of each batch, and makes findings of it."""

    def add(self, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Count one batch."""

    def finish(self) -> Findings:
        """Return what was found."""
