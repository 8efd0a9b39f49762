"""Which found object is which true one, by COCO's rules at an IoU of 0.5.

https://cocodataset.org/#detection-eval: of one class, best score first, each found object takes the
free true one that it overlaps the most; what is left and lies in a crowd is neither right nor
wrong; of each class 100 objects of an image count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.metrics.coco_records import ImageRecord

IOU = 0.5
MOST_OF_A_CLASS = 100
NONE, IN_CROWD = -1, -2
Numbers = NDArray[Any]


@dataclass(frozen=True)
class Matched:
    """The found and the true objects of one image.

    Attributes:
        record: What the evaluation remembers of the image.
        rows: int64 (N,), places in the record of the objects that count, best score first.
        labels: int64 (N,), their classes.
        scores: float64 (N,).
        matches: int64 (N,), place among ``true_labels`` of the object of the same class that each
            found; -1 for none, -2 where it lies in a crowd of its class.
        true_labels: int64 (M,), without crowds.
        ious: float64 (N, M).
    """

    record: ImageRecord
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    matches: NDArray[np.int64]
    true_labels: NDArray[np.int64]
    ious: NDArray[np.float64]

    def pairs(self, thresholds: Mapping[int, float]) -> list[tuple[int | None, int | None]]:
        """Return what became of each object, as places in ``true_labels`` and in ``labels``.

        Right ones are pairs of one class. What is left over of both sides makes pairs of two
        classes, best score first, where the overlap allows; the rest stands alone: ``(true, None)``
        was missed, ``(None, found)`` is one too many.

        Args:
            thresholds: The score from which an object counts as found, by label.
        """
        counted = [
            i for i, (label, score) in enumerate(zip(self.labels, self.scores, strict=True))
            if score >= thresholds[int(label)] and self.matches[i] != IN_CROWD
        ]  # fmt: skip
        pairs: list[tuple[int | None, int | None]] = []
        free = set(range(len(self.true_labels)))
        for i in counted:
            if self.matches[i] != NONE:
                pairs.append((int(self.matches[i]), i))
                free.discard(int(self.matches[i]))
        for i in counted:
            if self.matches[i] == NONE:
                near = [j for j in free if self.ious[i, j] >= IOU]
                best = max(near, key=lambda j: self.ious[i, j], default=None)
                free.discard(-1 if best is None else best)
                pairs.append((best, i))
        return pairs + [(j, None) for j in sorted(free)]


def match_objects(record: ImageRecord) -> Matched:
    """Match the boxes of one image, class by class."""
    assert record.boxes is not None
    crowd = np.array([bool(entry["iscrowd"]) for entry in record.truth], np.bool_)
    true_labels = np.array([entry["category_id"] for entry in record.truth], np.int64)
    order = np.argsort(-record.scores, kind="stable")
    seen: dict[int, int] = {}
    kept = []
    for row in order.tolist():
        label = int(record.labels[row])
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= MOST_OF_A_CLASS:
            kept.append(row)
    rows = np.array(kept, np.int64)
    labels = record.labels[rows]
    ious = box_ious(record.boxes[rows], [entry["bbox"] for entry in record.truth], crowd)
    same = labels[:, None] == true_labels[None]
    matches = _match(np.where(same, ious, 0.0), crowd)
    matched = matches >= 0
    matches[matched] = (np.cumsum(~crowd) - 1)[matches[matched]]  # without the crowds
    return Matched(
        record, rows, labels, record.scores[rows].astype(np.float64), matches,
        true_labels[~crowd], ious[:, ~crowd],
    )  # fmt: skip


def box_ious(found: Numbers, true: list[Any], crowd: Numbers) -> NDArray[np.float64]:
    """Return the IoU (N, M) of boxes ``x, y, width, height``; of a crowd, the share within it."""
    from pycocotools import mask as coco_mask

    if not len(found) or not true:
        return np.zeros((len(found), len(true)))
    truth = np.array(true, np.float64).reshape(-1, 4)
    return np.asarray(coco_mask.iou(found.astype(np.float64), truth, crowd.astype(np.uint8)))


def _match(ious: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the place of the true object of each found one (best score first), -1 or -2."""
    matches = np.full(len(ious), NONE, np.int64)
    free = ~crowd
    for i, row in enumerate(ious):
        near = np.flatnonzero((row >= IOU) & free)
        if len(near):
            # of two that are equally near the evaluator takes the last
            matches[i] = near[::-1][np.argmax(row[near[::-1]])]
            free[matches[i]] = False
        elif (row[crowd] >= IOU).any():
            matches[i] = IN_CROWD
    return matches
