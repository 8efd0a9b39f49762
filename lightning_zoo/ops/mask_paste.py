"""Masks of boxes, 28 pixels a side, drawn where the boxes are in the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.ops.registration import register_fake, register_op


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], padding: int = 1) -> Tensor:
    """Return masks (N, 1, H, W) of the image's size, 0 outside the boxes.

    Args:
        masks: Probabilities (N, 1, S, S) or (N, S, S).
        boxes: (N, 4) in pixels of the image, one for each mask.
        size: Height and width of the image.
        padding: Zeros around a mask before it is enlarged, so that it fades out at the border; the
            box grows with it.
    """
    return _paste(masks if masks.dim() == 4 else masks[:, None], boxes, *size, padding)


@register_op("paste_masks")
def _paste(masks: Tensor, boxes: Tensor, height: int, width: int, padding: int) -> Tensor:
    out = masks.new_zeros(masks.shape[0], 1, height, width)
    side = masks.shape[-1]
    masks = F.pad(masks.float(), (padding,) * 4)
    grown = _grow(boxes.float(), (side + 2 * padding) / side).long()  # truncated to whole pixels
    for i, (x1, y1, x2, y2) in enumerate(grown.tolist()):
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        left, top = max(x1, 0), max(y1, 0)
        right, bottom = min(x2 + 1, width), min(y2 + 1, height)
        if right <= left or bottom <= top:
            continue
        mask = F.interpolate(masks[i : i + 1], size=(h, w), mode="bilinear", align_corners=False)
        out[i, 0, top:bottom, left:right] = mask[
            0, 0, top - y1 : bottom - y1, left - x1 : right - x1
        ]
    return out


@register_fake("paste_masks")
def _(masks: Tensor, boxes: Tensor, height: int, width: int, padding: int) -> Tensor:
    return masks.new_empty(masks.shape[0], 1, height, width)


def _grow(boxes: Tensor, factor: float) -> Tensor:
    """Return boxes that are larger by ``factor`` around the same centres."""
    centers = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * factor
    return torch.cat([centers - half, centers + half], dim=1)
