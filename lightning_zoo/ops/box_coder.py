"""Boxes as offsets from other boxes: shift of the centre and logarithm of the size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)  # keeps exp from overflowing in the first steps of training


def encode_boxes(reference: Tensor, proposals: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the deltas (N, 4) that turn proposals into reference boxes.

    Args:
        reference: Boxes to reach (N, 4), for example matched ground truth.
        proposals: Boxes to start from (N, 4), with sides above 0.
        weights: Factors of dx, dy, dw, dh.
    """
    reference, proposals = _upcast(reference), _upcast(proposals)
    wx, wy, ww, wh = weights
    x, y, w, h = _centre_and_size(proposals)
    rx, ry, rw, rh = _centre_and_size(reference)
    deltas = [
        wx * (rx - x) / w,
        wy * (ry - y) / h,
        ww * torch.log(rw / w),
        wh * torch.log(rh / h),
    ]
    return torch.stack(deltas, dim=1)


def decode_boxes(
    deltas: Tensor, boxes: Tensor, weights: Sequence[float], clip: float = MAX_LOG_SCALE
) -> Tensor:
    """Return the boxes (N, 4 * C) that deltas make of boxes; the reverse of `encode_boxes`.

    Args:
        deltas: (N, 4 * C), C deltas of each box one after the other.
        boxes: Boxes to start from (N, 4).
        weights: Factors of dx, dy, dw, dh.
        clip: Upper limit of the logarithm of a size's growth.
    """
    deltas, boxes = _upcast(deltas), _upcast(boxes).to(deltas.device)
    wx, wy, ww, wh = weights
    x, y, w, h = (side[:, None] for side in _centre_and_size(boxes))
    center_x = deltas[:, 0::4] / wx * w + x
    center_y = deltas[:, 1::4] / wy * h + y
    half_w = 0.5 * (torch.exp((deltas[:, 2::4] / ww).clamp(max=clip)) * w)
    half_h = 0.5 * (torch.exp((deltas[:, 3::4] / wh).clamp(max=clip)) * h)
    corners = [center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h]
    return torch.stack(corners, dim=2).flatten(1)


def _upcast(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w = boxes[:, 2] - boxes[:, 0]
    h = boxes[:, 3] - boxes[:, 1]
    return boxes[:, 0] + 0.5 * w, boxes[:, 1] + 0.5 * h, w, h
