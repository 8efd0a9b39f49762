from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_zoo.errors import ZooError
from lightning_zoo.runs import write_text


class MetricsCsv(Logger):
    """One row a step in ``metrics.csv``; a resumed run goes on in the same file.

    Lightning's own CSV logger empties the folder of a run that is resumed.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, str]] = []
        self._written = 0
        self._columns: list[str] = ["step"]

    @property
    def name(self) -> str:
        """Lightning asks for one."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning asks for one."""
        return ""

    def forget_after(self, step: int) -> None:
        """Take up the file of an interrupted run, without what came after ``step``."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a kill may leave half a line
        rows = [row for row in csv.DictReader(whole) if int(row["step"]) < step]
        self.rows = [{k: v for k, v in row.items() if v} for row in rows]
        for row in self.rows:
            self._columns += [k for k in row if k not in self._columns]
        self._written = -1

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the resolved recipe stands beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add figures to the row of ``step``."""
        at = str(step or 0)
        if not self.rows or self.rows[-1]["step"] != at:
            self.rows.append({"step": at})
        elif self._written == len(self.rows):
            self._written = -1  # the last row is on disk already and now changes
        self.rows[-1].update({k: repr(float(v)) for k, v in metrics.items()})
        new = [k for k in metrics if k not in self._columns]
        if new:
            self._columns += new
            self._written = -1

    @rank_zero_only
    def save(self) -> None:
        """Write what is new: append where possible, replace the file where columns are new."""
        if 0 < self._written <= len(self.rows):
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    self._writer(file).writerows(self.rows[self._written :])
            except OSError as error:
                raise ZooError(f"cannot write {self.path}: {error.strerror}") from error
        elif self.rows:
            text = io.StringIO()
            writer = self._writer(text)
            writer.writeheader()
            writer.writerows(self.rows)
            write_text(self.path, text.getvalue())
        self._written = len(self.rows)

    def _writer(self, file: Any) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self._columns, lineterminator="\n")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rest; where the run has failed already, that is what matters."""
        with contextlib.suppress(ZooError) if status == "failed" else contextlib.nullcontext():
            self.save()
