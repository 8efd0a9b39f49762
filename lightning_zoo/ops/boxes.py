"""Geometry of axis-aligned boxes ``x1, y1, x2, y2`` in pixels, without the "+1" of integer pixels.

Half precision is computed in float32: areas of boxes beyond 256 pixels overflow float16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_zoo.errors import ZooError, unknown

FORMATS = ("xyxy", "xywh", "cxcywh")


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas (N,) of boxes (N, 4)."""
    boxes = _upcast(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union (N, M) of every box of ``a`` (N, 4) with every one of ``b``.

    Two boxes of area 0 give nan.
    """
    inter, union = _inter_union(_upcast(a), _upcast(b))
    return inter / union


def generalized_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU (N, M) of boxes (N, 4) and (M, 4), from -1 to 1.

    Boxes apart score below 0, the further the lower (https://arxiv.org/abs/1902.09630).
    """
    a, b = _upcast(a), _upcast(b)
    inter, union = _inter_union(a, b)
    top_left = torch.minimum(a[:, None, :2], b[:, :2])
    bottom_right = torch.maximum(a[:, None, 2:], b[:, 2:])
    hull = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    return inter / union - (hull - union) / hull


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Return boxes (..., 4) in another format.

    Args:
        boxes: Boxes (..., 4).
        in_fmt: ``"xyxy"`` (two corners), ``"xywh"`` (left top corner and size) or ``"cxcywh"``
            (centre and size).
        out_fmt: One of the same.

    Raises:
        ZooError: If a format is none of these.
    """
    for name, value in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if value not in FORMATS:
            raise unknown(name, value, FORMATS)
    if in_fmt == out_fmt:
        return boxes.clone()
    first, second = boxes[..., :2], boxes[..., 2:]
    if in_fmt == "xywh":
        first, second = first, first + second
    elif in_fmt == "cxcywh":
        first, second = first - 0.5 * second, first + 0.5 * second
    if out_fmt == "xywh":
        second = second - first
    elif out_fmt == "cxcywh":
        first, second = (first + second) / 2, second - first
    return torch.cat([first, second], dim=-1)


def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes (..., 4) cut to an image of ``size`` (height, width)."""
    height, width = size
    x = boxes[..., 0::2].clamp(min=0, max=width)
    y = boxes[..., 1::2].clamp(min=0, max=height)
    return torch.stack([x, y], dim=-1).flatten(-2)


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Return the indices of boxes (N, 4) whose sides are both at least ``min_size`` pixels."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return torch.where((sides >= min_size).all(dim=1))[0]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Return the boxes (N, 4) float32 around the pixels that are not 0 in masks (N, H, W).

    Coordinates are those of the first and the last such pixel. A mask without any is an error.

    Raises:
        ZooError: If a mask is empty, so that no box surrounds it.
    """
    if masks.numel() == 0:
        return torch.zeros(masks.shape[0], 4, device=masks.device)
    rows, columns = masks.any(dim=2), masks.any(dim=1)  # (N, H), (N, W)
    if not rows.any(dim=1).all():
        index = int(torch.where(~rows.any(dim=1))[0][0])
        raise ZooError(f"masks[{index}] has no pixel; expected at least one in every mask")

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        line = line.to(torch.uint8)
        return line.argmax(dim=1), line.shape[1] - 1 - line.flip(1).argmax(dim=1)

    (x1, x2), (y1, y2) = ends(columns), ends(rows)
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def _upcast(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def _inter_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    top_left = torch.maximum(a[:, None, :2], b[:, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[:, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    return inter, box_area(a)[:, None] + box_area(b) - inter
