from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_zoo.drawing.arrays import as_array
from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.drawing.detection import detection_tile
from lightning_zoo.drawing.grid import Tile
from lightning_zoo.drawing.segmentation import segmentation_tile
from lightning_zoo.drawing.video import video_tile
from lightning_zoo.keypoints import Skeleton


def batch_tiles(
    batch: dict[str, Any],
    outputs: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    *,
    skeleton: Skeleton | None = None,
) -> list[Tile]:
    """Return a tile for each image or clip of a batch: what was predicted, and what is true.

    Args:
        batch: Samples with ``image`` or ``video`` and their truth (``label``, ``mask`` or
            ``target``), on the CPU.
        outputs: What ``predict_step`` returned for the batch, in one part or several: ``probs`` of
            a classifier, ``segmentation`` maps, or ``detections`` of a detector.
        class_names: Name of each class.
        skeleton: What the keypoints are, where there are some.
    """
    if "probs" in outputs[0]:
        rows = [row for part in outputs for row in part["probs"].tolist()]
        several = batch["label"].ndim > 1
        truths = [t.nonzero().flatten().tolist() if several else [int(t)] for t in batch["label"]]
        if "video" in batch:
            clips = [clip.permute(1, 2, 3, 0).numpy() for clip in batch["video"]]
            return [
                video_tile(clip, row, class_names, truth)
                for clip, row, truth in zip(clips, rows, truths, strict=True)
            ]
        return [
            classification_tile(image, row, class_names, truth, multilabel=several)
            for image, row, truth in zip(_images(batch), rows, truths, strict=True)
        ]
    if "segmentation" in outputs[0]:
        maps = [as_array(one) for part in outputs for one in part["segmentation"]]
        return [
            segmentation_tile(image, one, class_names, as_array(truth))
            for image, one, truth in zip(_images(batch), maps, batch["mask"], strict=True)
        ]
    found = [one for part in outputs for one in part["detections"]]
    return [
        detection_tile(image, one, class_names, truth, skeleton=skeleton)
        for image, one, truth in zip(_images(batch), found, batch["target"], strict=True)
    ]


def _images(batch: dict[str, Any]) -> list[Any]:
    return [image.permute(1, 2, 0).numpy() for image in batch["image"]]
