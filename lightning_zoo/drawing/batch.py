from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.drawing.detection import detection_tile
from lightning_zoo.drawing.grid import Tile
from lightning_zoo.keypoints import Skeleton


def batch_tiles(
    batch: dict[str, Any],
    outputs: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    *,
    skeleton: Skeleton | None = None,
) -> list[Tile]:
    """Return a tile for each image of a batch: what was predicted, and what is true.

    Args:
        batch: Samples with ``image`` and their truth (``label`` or ``target``), on the CPU.
        outputs: What ``predict_step`` returned for the batch, in one part or several: ``probs`` of
            a classifier, ``detections`` of a detector.
        class_names: Name of each class.
        skeleton: What the keypoints are, where there are some.
    """
    images = [image.permute(1, 2, 0).numpy() for image in batch["image"]]
    if "probs" in outputs[0]:
        rows = [row for part in outputs for row in part["probs"].tolist()]
        several = batch["label"].ndim > 1
        truths = [t.nonzero().flatten().tolist() if several else [int(t)] for t in batch["label"]]
        return [
            classification_tile(image, row, class_names, truth, multilabel=several)
            for image, row, truth in zip(images, rows, truths, strict=True)
        ]
    found = [one for part in outputs for one in part["detections"]]
    return [
        detection_tile(image, one, class_names, truth, skeleton=skeleton)
        for image, one, truth in zip(images, found, batch["target"], strict=True)
    ]
