"""Keypoints as the hottest cell of a heat map over a box: targets for training, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.ops.registration import register_fake, register_op


def keypoint_bins(keypoints: Tensor, boxes: Tensor, size: int = 56) -> tuple[Tensor, Tensor]:
    """Return the heat map's cell of each keypoint, and whether it counts.

    Args:
        keypoints: (N, K, 3): x, y in pixels and visibility, 0 for points that are not labelled.
        boxes: (N, 4), one for each row of keypoints.
        size: Side of the heat maps in cells.

    Returns:
        Indices (N, K) int64 into the ``size * size`` cells, row by row (0 where the point does not
        count), and a mask (N, K) bool of the points that are labelled and inside their box.
    """
    x1, y1, x2, y2 = (side[:, None] for side in boxes.unbind(1))
    x, y, visibility = keypoints.unbind(2)
    # a point on the far edge itself belongs to the last cell
    column = torch.where(x == x2, size - 1, ((x - x1) * (size / (x2 - x1))).floor()).long()
    row = torch.where(y == y2, size - 1, ((y - y1) * (size / (y2 - y1))).floor()).long()
    inside = (column >= 0) & (row >= 0) & (column < size) & (row < size)
    valid = inside & (visibility > 0)
    return (row * size + column) * valid, valid


def decode_heatmaps(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return keypoints and their scores from heat maps.

    Each map is enlarged to its box (bicubic, whole pixels, at least 1) and its highest pixel taken.

    Args:
        heatmaps: Logits (N, K, S, S).
        boxes: (N, 4), one for each row of maps.

    Returns:
        Keypoints (N, K, 3): x, y in pixels of the image, and 1; scores (N, K), the highest logits.
    """
    return _decode(heatmaps, boxes)


@register_op("decode_heatmaps")
def _decode(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    heatmaps, boxes = heatmaps.float(), boxes.float()
    num_boxes, num_points = heatmaps.shape[:2]
    keypoints = heatmaps.new_ones(num_boxes, num_points, 3)
    scores = heatmaps.new_zeros(num_boxes, num_points)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = sides.ceil()
    steps = sides / pixels
    for i, (width, height) in enumerate(pixels.long().tolist()):
        large = F.interpolate(
            heatmaps[i : i + 1], size=(height, width), mode="bicubic", align_corners=False
        )
        best = large.flatten(2).argmax(dim=2)[0]
        scores[i] = large.flatten(2)[0].gather(1, best[:, None])[:, 0]
        keypoints[i, :, 0] = (best % width + 0.5) * steps[i, 0] + boxes[i, 0]
        keypoints[i, :, 1] = (best // width + 0.5) * steps[i, 1] + boxes[i, 1]
    return keypoints, scores


@register_fake("decode_heatmaps")
def _(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    num_boxes, num_points = heatmaps.shape[:2]
    scores = heatmaps.new_empty(num_boxes, num_points, dtype=torch.float32)
    return scores.new_empty(num_boxes, num_points, 3), scores
