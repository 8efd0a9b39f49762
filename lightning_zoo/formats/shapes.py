"""Boxes of segmentations, and segmentations checked once for all formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_zoo.transforms.masks import decode_rle, pack, to_rle

Box = tuple[float, float, float, float]


def box_of_points(numbers: Sequence[float]) -> Box:
    """Return ``x, y, width, height`` around points ``x1, y1, x2, y2, ...``."""
    x, y = min(numbers[0::2]), min(numbers[1::2])
    return x, y, max(numbers[0::2]) - x, max(numbers[1::2]) - y


def box_of(segmentation: Any, height: int, width: int) -> Box | None:
    """Return ``x, y, width, height`` around polygons or run lengths; None where they are empty.

    Raises:
        MaskError: If they cannot be decoded.
    """
    packed = pack(segmentation, height, width)
    if isinstance(segmentation, list):
        return box_of_points([number for polygon in segmentation for number in polygon])
    columns = decode_rle(to_rle(packed, height, width))  # (W, H)
    xs, ys = np.flatnonzero(columns.any(axis=1)), np.flatnonzero(columns.any(axis=0))
    if not len(xs):
        return None
    return (float(xs[0]), float(ys[0]), float(xs[-1] + 1 - xs[0]), float(ys[-1] + 1 - ys[0]))
