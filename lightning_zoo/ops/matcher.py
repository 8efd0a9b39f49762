"""Which object each anchor or proposal is responsible for."""

from __future__ import annotations

import torch
from torch import Tensor

BELOW, BETWEEN = -1, -2


def match(iou: Tensor, high: float, low: float, allow_low_quality: bool) -> Tensor:
    """Return for each box the index of its object (N,) int64; -1: background, -2: left out.

    A box goes with the object it overlaps most: from ``high`` on it is matched, below ``low`` it is
    background, in between it counts as neither.

    Args:
        iou: Overlaps (M, N) of M objects with N boxes; with M = 0 everything is background.
        high: Overlap from which on a box is matched.
        low: Overlap below which a box is background; at most ``high``.
        allow_low_quality: Also match the boxes that an object overlaps most, ties included, however
            little. Such a box still goes with the object that *it* overlaps most, which may be
            another one: the published models were trained so.
    """
    if iou.shape[0] == 0:
        return torch.full((iou.shape[1],), BELOW, dtype=torch.int64, device=iou.device)
    best, index = iou.max(dim=0)
    matches = torch.where(best < high, BETWEEN, index)
    matches = torch.where(best < low, BELOW, matches)
    if allow_low_quality and iou.shape[1]:
        tied = (iou == iou.amax(dim=1, keepdim=True)).any(dim=0)
        matches = torch.where(tied, index, matches)
    return matches


def match_ssd(iou: Tensor, threshold: float = 0.5) -> Tensor:
    """Return SSD's matches (N,) int64: as `match` with one threshold, then each object takes a box.

    Every object takes the default box that it overlaps most, whatever that was matched with. Where
    two objects want the same box, the later one has it, so that the earlier may stay without.

    Args:
        iou: Overlaps (M, N) of M objects with N default boxes.
        threshold: Overlap from which on a box is matched.
    """
    matches = match(iou, threshold, threshold, False)
    if iou.shape[0] and iou.shape[1]:
        wanted = iou.max(dim=1).indices
        objects = torch.arange(iou.shape[0], device=iou.device)
        # assignment by index leaves open on CUDA which of two objects is written last
        taken = torch.full_like(matches, -1).scatter_reduce_(0, wanted, objects, "amax")
        matches = torch.where(taken >= 0, taken, matches)
    return matches
