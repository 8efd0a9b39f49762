"""What the data modules of one's own images, masks and videos share: the index of the folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.utilities import rank_zero_warn

from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.base import Split, ZooDataModule, ZooDataset
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, read_data
from lightning_zoo.formats.index import Problem, TaskName


class OwnData(ZooDataModule):
    """Splits, classes and problems of a folder that is read by looking; nothing before it is asked.

    A subclass names :attr:`TASK`, calls :meth:`remember` and makes datasets of :attr:`index`.
    """

    TASK: ClassVar[TaskName]
    NOUN: ClassVar[str] = "image"

    def remember(self, root: str, **options: Any) -> None:
        """Keep what is to be read, and how: the arguments of :func:`read_data`."""
        self._given = Path(root)
        self._options = options

    @cached_property
    def index(self) -> DataIndex:
        """What the folder holds, read once.

        Raises:
            ZooError: If it cannot be read, or holds data for another task.
        """
        index = read_data(self._given, task=self.TASK, **self._options)
        if index.task != self.TASK:
            raise ZooError(
                f"{str(self._given)!r} holds data for {index.task} ({index.format}); expected "
                f"data for {self.TASK} (data.root), or another model"
            )
        return index

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return list(self.index.classes)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels or none; labels are then float32 (N, C)."""
        return self.index.multilabel

    def check_root(self) -> None:
        """Take the root that was found, which may lie in the folder that was given."""
        self.root = self.index.root

    def setup(self, stage: str) -> None:
        """Build the splits that a stage needs; calling it again changes nothing.

        Raises:
            ZooError: If the data cannot be read, is wrong and that is refused, or a split or a
                second class is missing.
        """
        if not self.datasets:
            self._refuse_errors()
        super().setup(stage)

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; test and prediction take val without a test set."""
        if stage in ("test", "predict"):
            return ("test",) if self.index.of("test") else ("val",)
        return super().splits(stage)

    @property
    def errors(self) -> list[Problem]:
        """What is lost of the data: the problems of reading it that are errors."""
        return [p for p in self.index.problems if p.severity == "error"]

    def _refuse_errors(self) -> None:
        if len(self.index.classes) < 2 and not self.multilabel:
            raise ZooError(
                f"{str(self._given)!r} has the class {', '.join(self.index.classes) or 'none'} "
                f"alone; expected two or more: add {self.NOUN}s of something else"
            )
        if not self.errors:
            return
        first, number = self.errors[0], len(self.errors)
        said = f"{first.where}: {first.what}"
        if self.on_error == "refuse":
            raise ZooError(
                f"{number} {'error' if number == 1 else 'errors'} in the data of "
                f"{str(self._given)!r}, the first is {said}; {first.fix}, or go on without by "
                f"--data.on_error skip (all: python -m lightning_zoo data check {self._given})"
            )
        rank_zero_warn(
            f"left out of {str(self._given)!r}: {number} {'error' if number == 1 else 'errors'}, "
            f"the first is {said}"
        )

    def _prepare(self, dataset: ZooDataset) -> None:
        super()._prepare(dataset)
        if self.ledger is not None and self.on_error == "skip" and self.errors:
            ledgers.append_new(
                self.ledger,
                [{"file": p.where, "error": p.what, "split": "data"} for p in self.errors],
            )

    def _dataset(self, split: Split, *, needed_for: str) -> ZooDataset:
        if not self.index.of(split):
            made = "; --data.val_share 0.2 makes one of the training split" * (split == "val")
            raise ZooError(
                f"{str(self._given)!r} has no {split} {self.NOUN}s, and {needed_for} needs them"
                f"{made}; see python -m lightning_zoo data check {self._given}"
            )
        return super()._dataset(split, needed_for=needed_for)
