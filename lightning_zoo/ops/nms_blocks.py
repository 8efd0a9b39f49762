"""Non-maximum suppression in blocks of all pairs, which takes any box: nan, inverted, infinite.

A block of the best boxes is settled first, then what they suppress among the rest is dropped. The
order of float operations (smaller side minus larger, clamped, width times height, sum of areas
minus intersection, quotient) decides ties and must stay.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 128  # two buffers of 2 * 128 * 128 float32 stay in the L2 cache
DEVICE_BLOCK = 2048


def keep(sides: NDArray[np.floating], threshold: np.floating) -> NDArray[np.intp]:
    """Return the positions of the boxes that stay, in ascending order.

    Args:
        sides: x1, y1, x2, y2 and area (5, N), the highest score first.
        threshold: A box goes if its IoU with one that stays is above this.
    """
    left = np.arange(sides.shape[1])
    kept = []
    # kept over all tiles: memory fresh from the system costs more than the arithmetic in it
    space = np.empty((2, 2 * min(len(left), BLOCK) ** 2), sides.dtype)
    while len(left):
        head, rest = sides[:, :BLOCK], sides[:, BLOCK:]
        alive = _settle(_above(head, head, threshold, space))
        kept.append(left[:BLOCK][alive])
        left = left[BLOCK:]
        best = head[:, alive]
        gone = [
            _above(best, rest[:, i : i + BLOCK], threshold, space).any(axis=0)
            for i in range(0, len(left), BLOCK)
        ]
        if gone:
            stay = ~np.concatenate(gone)
            left, sides = left[stay], rest[:, stay]
    return np.concatenate(kept) if kept else left


def _above(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    threshold: np.floating,
    space: NDArray[np.floating],
) -> NDArray[np.bool_]:
    """Return whether the IoU of each box of ``a`` (5, N) with each of ``b`` (5, M) is above."""
    shape = (2, a.shape[1], b.shape[1])
    low, high = (part[: math.prod(shape)].reshape(shape) for part in space)
    np.maximum(a[:2, :, None], b[:2, None], out=low)
    np.minimum(a[2:4, :, None], b[2:4, None], out=high)
    high -= low
    np.maximum(high, 0, out=high)
    inter = high[0]
    inter *= high[1]
    union = np.add(a[4, :, None], b[4], out=low[0])
    union -= inter
    inter /= union
    return inter > threshold


def _settle(above: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return which of at few boxes stay, given what each would suppress."""
    count = len(above)
    packed = np.packbits(above, axis=1, bitorder="little").tobytes()
    width = len(packed) // count
    alive = (1 << count) - 1
    kept = []
    for i in range(count):
        if alive >> i & 1:
            kept.append(i)
            row = packed[i * width : (i + 1) * width]
            alive &= ~int.from_bytes(row, "little")
    return np.array(kept, np.intp)


def keep_on_device(boxes: Tensor, kinds: Tensor | None, threshold: float) -> Tensor:
    """Return the positions (K,) int64 of the boxes that stay; the same in torch, on any device.

    Args:
        boxes: (N, 4), the highest score first.
        kinds: (N,), only boxes of the same compete; or None.
        threshold: A box goes if its IoU with one that stays is above this, as a number of the
            boxes' type: so torchvision compares on CUDA.
    """
    sides = torch.cat([boxes.T, ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[None]])
    group = torch.zeros_like(boxes[:, 0]) if kinds is None else kinds
    left = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(left):
        head, same = sides[:, :DEVICE_BLOCK], group[:DEVICE_BLOCK]
        above = _above_on_device(head, head, threshold) & (same[:, None] == same)
        above = above.triu_(1)
        alive = torch.ones_like(same, dtype=torch.bool)
        while True:  # settles at least one more box each time, and nearly all in a few
            now = ~(above & alive[:, None]).any(dim=0)
            if torch.equal(now, alive):
                break
            alive = now
        kept.append(left[:DEVICE_BLOCK][alive])
        sides, group, left = sides[:, DEVICE_BLOCK:], group[DEVICE_BLOCK:], left[DEVICE_BLOCK:]
        above = _above_on_device(head[:, alive], sides, threshold)
        stay = ~(above & (same[alive][:, None] == group)).any(dim=0)
        sides, group, left = sides[:, stay], group[stay], left[stay]
    return torch.cat(kept) if kept else left


def _above_on_device(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    a = a[:, :, None]
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp_(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp_(min=0)
    inter = width.mul_(height)
    return inter / (a[4] + b[4] - inter) > threshold
