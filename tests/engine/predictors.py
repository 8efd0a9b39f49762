"""Predictors without a network: what they find can be worked out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_zoo.engine.predict.classification import Classifier
from lightning_zoo.engine.predict.detection import Detector
from lightning_zoo.engine.predict.segmentation import Segmenter
from lightning_zoo.engine.predict.thresholds import Thresholds
from lightning_zoo.keypoints import Skeleton
from lightning_zoo.transforms.classification import EvalTransform
from lightning_zoo.transforms.segmentation import EvalTransform as WholeTransform

NAMES = ["__background__", "cell", "bar"]
KITE = Skeleton(("top", "left", "right"), ((1, 2),), ((0, 1), (0, 2)), (0.05, 0.05, 0.05))


def bar_detector(
    *, masks: bool = False, keypoints: bool = False, thresholds: Thresholds | None = None
) -> Detector:
    """Return a detector of the white bar that grows along the upper edge of `videos.moving`.

    It is sure of the bar (0.9) and finds a cell at a place of its own with a score of 0.55.
    """

    def detect(images: list[Tensor]) -> list[dict[str, Any]]:
        return [found(image) for image in images]

    def found(image: Tensor) -> dict[str, Any]:
        height, width = image.shape[1:]
        # JPEG and H.264 leave white a little below 255
        bar = int((image[:, : height // 4].float().mean(dim=(0, 1)) > 245).sum())
        boxes = [[0, 0, bar, height // 4], [width / 2, height / 2, width - 2.125, height - 2.25]]
        result = {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "labels": torch.tensor([2, 1]),
            "scores": torch.tensor([0.9, 0.55]),
        }
        if masks:
            planes = torch.zeros(2, 1, height, width)
            planes[0, 0, : height // 4, :bar] = 1
            planes[1, 0, height // 2 : height - 2, width // 2 : width - 2] = 0.8
            result["masks"] = planes
        if keypoints:
            points = torch.tensor([[[1.0, 2, 1], [3, 4, 1], [5, 6, 1]], [[9, 9, 1]] * 3])
            result |= {"keypoints": points, "keypoints_scores": torch.tensor([[2.0, 1, -1]] * 2)}
        return result

    skeleton = KITE if keypoints else None
    return Detector(detect, NAMES, thresholds or Thresholds(), skeleton)


def brightness_classifier(thresholds: Thresholds | None = None) -> Classifier:
    """Return a classifier whose probabilities are the mean red, green and blue."""
    return Classifier(
        lambda images: images.float().mean(dim=(2, 3)) / 255, EvalTransform(40, 40),
        ["red", "green", "blue"], thresholds, batch=3,
    )  # fmt: skip


def bar_segmenter() -> Segmenter:
    """Return a segmenter of what is white."""

    def logits(image: Tensor) -> Tensor:
        white = (image.float().mean(dim=0) > 200).float()
        return torch.stack([torch.full_like(white, 0.5), torch.zeros_like(white), white])

    return Segmenter(logits, WholeTransform(48), NAMES)
