"""The figures that a run wrote down step by step."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from lightning_zoo.report.svg import Line


class History:
    """What ``metrics.csv`` says, by epochs.

    Args:
        path: The file; where it is missing there are no figures.
    """

    def __init__(self, path: Path) -> None:
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))
        ends = [row for row in self.rows if row.get("train/loss_epoch") and row.get("epoch")]
        self.by_epoch = bool(ends)
        self._steps = 1.0  # of an epoch
        if ends:
            self._steps = (float(ends[-1]["step"]) + 1) / (float(ends[-1]["epoch"]) + 1)

    @property
    def unit(self) -> str:
        """What the horizontal axis counts."""
        return "epoch" if self.by_epoch else "step"

    def line(self, column: str, name: str, *, faint: bool = False) -> Line | None:
        """Return a figure over time; None where it was never written."""
        points = []
        for row in self.rows:
            if row.get(column):
                value = float(row[column])
                if math.isfinite(value):
                    points.append(((float(row["step"]) + 1) / self._steps, value))
        if not points:
            return None
        return Line(name, [x for x, _ in points], [y for _, y in points], faint)

    def best(self, column: str, mode: str) -> tuple[float, float] | None:
        """Return when a figure was best, and what it was then."""
        line = self.line(column, column)
        if line is None:
            return None
        pick = max if mode == "max" else min
        value = pick(line.ys)
        return line.xs[list(line.ys).index(value)], value
