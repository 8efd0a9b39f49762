"""The data's summary: how often each class occurs, what was decided, what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_zoo.datamodules.coco_dataset import CocoDataset
from lightning_zoo.datamodules.image_folder import ImageDataset
from lightning_zoo.datamodules.video_dataset import VideoDataset
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex
from lightning_zoo.formats.index import SPLITS
from lightning_zoo.report.findings import Cell

MOST_EXAMPLES = 3
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class DataSummary:
    """What the page says of the data.

    Attributes:
        splits: One row a split: ``split`` and how many images or videos.
        classes: One row a class: ``class``, then a count for each split; empty where unknown.
        counted: What the classes' counts are.
        decisions: Sentences on how the data was read.
        problems: One row for each kind of problem.
        note: Why something is missing.
    """

    splits: list[dict[str, Cell]]
    classes: list[dict[str, Cell]]
    counted: str
    decisions: Sequence[str] = ()
    problems: Sequence[dict[str, Cell]] = ()
    note: str | None = None


def summarise(data: Any, unit: str) -> DataSummary:
    """Return the summary of a data module that is set up for validation.

    Args:
        data: A data module of ours.
        unit: What a sample is called, ``image`` or ``video``.
    """
    index = getattr(data, "index", None)
    if isinstance(index, DataIndex):
        return _of_index(index)
    note = None
    try:
        data.setup("fit")
    except ZooError as error:  # validation is all that the page needs
        note = f"the training split could not be read: {str(error).splitlines()[0]}"
    names = list(data.class_names)
    splits: list[dict[str, Cell]] = []
    counts: dict[str, list[int]] = {}
    for split in (split for split in SPLITS if split in data.datasets):
        dataset = data.datasets[split]
        number = len(dataset.videos) if isinstance(dataset, VideoDataset) else len(dataset)
        splits.append({"split": split, f"{unit}s": number})
        found = _counts(dataset, len(names))
        if found is not None:
            counts[split] = found
    shown = [i for i in range(len(names)) if any(found[i] for found in counts.values())]
    classes = [_row(names[i], {split: found[i] for split, found in counts.items()}) for i in shown]
    objects = any(isinstance(dataset, CocoDataset) for dataset in data.datasets.values())
    return DataSummary(splits, classes, "objects" if objects else f"{unit}s", note=note)


def _of_index(index: DataIndex) -> DataSummary:
    unit = "videos" if index.task == "video" else "images"
    counted = "objects" if index.task == "detection" else unit
    splits: list[dict[str, Cell]] = [
        {"split": split, unit: len(index.of(split))} for split in index.splits
    ]
    counts = {split: index.count(split) for split in index.splits}
    classes = []
    if index.task != "segmentation":  # whose masks nobody has read
        classes = [
            _row(name, {split: found[i] for split, found in counts.items()})
            for i, name in enumerate(index.classes)
        ]
    kinds: dict[tuple[str, str], list[Any]] = {}
    for problem in index.problems:
        kinds.setdefault((problem.severity, problem.kind), []).append(problem)
    problems: list[dict[str, Cell]] = []
    for (severity, kind), found in sorted(
        kinds.items(), key=lambda entry: (SEVERITIES.index(entry[0][0]), -len(entry[1]))
    ):
        examples = "; ".join(f"{p.where}: {p.what}" for p in found[:MOST_EXAMPLES])
        problems.append(
            {"problem": kind, "severity": severity, "times": len(found), "examples": examples,
             "what to do": found[0].fix}
        )  # fmt: skip
    return DataSummary(splits, classes, counted, index.decisions, problems)


def _row(name: str, counts: dict[str, int]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"class": name}
    row |= counts
    return row


def _counts(dataset: Any, classes: int) -> list[int] | None:
    """Return how often each class is in a data set; None where its files would have to be read."""
    if isinstance(dataset, ImageDataset):
        if dataset.labels.ndim == 2:
            return dataset.labels.sum(axis=0, dtype=np.int64).tolist()
        return np.bincount(dataset.labels, minlength=classes).tolist()
    if isinstance(dataset, VideoDataset):
        return np.bincount(dataset.labels[dataset.videos], minlength=classes).tolist()
    if isinstance(dataset, CocoDataset):
        index = dataset.index
        total = np.zeros(classes, np.int64)
        for image in dataset.images.tolist():
            rows = index.rows(image)
            labels = index.labels[rows][~index.crowds[rows]]
            total += np.bincount(labels, minlength=classes)[:classes]
        return total.tolist()
    return None
