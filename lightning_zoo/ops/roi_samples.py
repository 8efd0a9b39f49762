"""Where RoIAlign takes its samples, and what each weighs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rois(NamedTuple):
    """Boxes and how they are pooled."""

    rois: Tensor  # (K, 5): index of the image, x1, y1, x2, y2
    levels: Tensor | None  # (K,) int64: the map of each; None if there is one map
    scales: list[float]  # positions of each map per unit of the boxes
    bins: tuple[int, int]  # height and width of the output
    sampling_ratio: int
    aligned: bool

    def images(self) -> Tensor:
        """Return the index of each box's image (K,) int64."""
        return self.rois[:, 0].long()

    def lines(self) -> tuple[Tensor, Tensor]:
        """Return start and length of the boxes (K, 2) in positions of their map, y before x."""
        scale: Tensor | float = self.scales[0]
        if self.levels is not None:
            scale = self.rois.new_tensor(self.scales)[self.levels][:, None]
        corners = self.rois[:, 1:] * scale - (0.5 if self.aligned else 0.0)
        start, end = corners[:, [1, 0]], corners[:, [3, 2]]
        sides = end - start
        return start, sides if self.aligned else sides.clamp(min=1)


def axis_taps(
    start: Tensor, side: Tensor, bins: int, samples: Tensor | int, most: int, limit: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Return the positions along one axis that the bins of each box read.

    A sample reads the two positions beside it. Within one position outside the map it reads the
    border, further out nothing. The order of operations is that of the usual C++ op: an ulp more
    or less moves a sample on large maps.

    Args:
        start: First coordinate of each box (K,).
        side: Its length (K,).
        bins: Number of bins.
        samples: Samples in a bin: one number, or one for each box (K, 1, 1).
        most: The greatest of them.
        limit: Positions along the axis: one number, or one for each box (K, 1, 1).

    Returns:
        Positions (K, bins, 2 * most) int64 and their weights, which sum to 1 over a bin that lies
        in the map.
    """
    index = torch.arange(max(bins, most), dtype=side.dtype, device=side.device)
    step = (side / bins)[:, None, None]
    corner = start[:, None, None] + index[:bins, None] * step
    x = corner + (index[:most] + 0.5) * step / samples  # (K, bins, samples)
    inside = (x >= -1) & (x <= limit) & (index[:most] < samples)
    x = torch.where(inside, x, 0.0).clamp(min=0)  # nan would become any integer
    last = torch.as_tensor(limit - 1, device=x.device)
    low = torch.minimum(x.long(), last)
    high = torch.minimum(low + 1, last)
    share = torch.where(high > low, x - low, 0.0)
    each = torch.where(inside, x.new_ones(()) / samples, 0.0)
    weight = torch.stack([(1 - share) * each, share * each], dim=-1)
    return torch.stack([low, high], dim=-1).flatten(2), weight.flatten(2)
