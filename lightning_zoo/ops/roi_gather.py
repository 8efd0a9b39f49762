"""RoIAlign with a fixed number of samples, as one weighted sum of gathered rows.

A row holds the channels of one position, so features in channels-last memory are a table of rows
already, and `embedding_bag` sums rows with weights faster than any loop over samples. The gradient
is the same sum the other way round: the taps are sorted by position and added up. No two threads
write to one place, and the result is the same bit for bit on every run.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.ops.roi_samples import Rois, axis_taps

Shape = tuple[int, int, int, int]  # N, H, W, C


def pool(maps: list[Tensor], how: Rois) -> Tensor:
    """Return the features (K, h, w, C) of boxes from maps (N, H, W, C), in the dtype of ``how``."""
    shapes = [_shape(m) for m in maps]
    groups = _groups(how)
    out = how.rois.new_empty(len(how.rois), *how.bins, shapes[0][3])
    for group in groups:
        rows = [maps[m].to(out.dtype).flatten(0, 2) for m in group.maps]
        table = rows[0] if len(rows) == 1 else torch.cat(rows)
        row, weight, first = _taps(group, shapes, how)
        sums = F.embedding_bag(row, table, first, mode="sum", per_sample_weights=weight)
        sums = sums.view(-1, *how.bins, table.shape[1])
        if len(groups) == 1:
            return sums
        out[group.boxes] = sums
    return out


def spread(grad: Tensor, shapes: list[Shape], how: Rois) -> list[Tensor]:
    """Return the gradients (N, H, W, C) of the maps, given the one of the output (K, h, w, C)."""
    grads: list[Tensor] = []
    for group in _groups(how):
        mine = [shapes[m] for m in group.maps]
        lengths = [math.prod(shape[:3]) for shape in mine]
        row, weight, first = _taps(group, shapes, how)
        bins = torch.arange(len(first), dtype=torch.int32, device=row.device)
        sizes = torch.diff(first, append=first.new_tensor([len(row)]))
        source = bins.repeat_interleave(sizes, output_size=len(row))
        order = _stable_order(row)
        counts = torch.bincount(row, minlength=sum(lengths))
        table = F.embedding_bag(
            source[order],
            grad[group.boxes].flatten(0, 2).contiguous(),
            (counts.cumsum(0) - counts).int(),
            mode="sum",
            per_sample_weights=weight[order],
        )
        parts = torch.split_with_sizes(table, lengths)
        grads += [part.view(shape) for part, shape in zip(parts, mine, strict=True)]
    return grads


class _Group(NamedTuple):
    """Boxes that are pooled in one call, and the maps that they read."""

    maps: range
    boxes: Tensor | slice  # which


def _groups(how: Rois) -> list[_Group]:
    num_maps = len(how.scales)
    if how.levels is None or how.levels.device.type != "cpu":
        # at once, from one table of all maps: to pick boxes would wait for the device
        return [_Group(range(num_maps), slice(None))]
    # map by map, since copying all of them into one table takes longer than the sums
    return [_Group(range(m, m + 1), torch.where(how.levels == m)[0]) for m in range(num_maps)]


def _shape(feature: Tensor) -> Shape:
    n, h, w, c = feature.shape
    return n, h, w, c


def _taps(group: _Group, shapes: list[Shape], how: Rois) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each bin of the group's output adds up.

    Returns:
        Rows of the table of the group's maps (taps,) int32, bin after bin; their weights; and where
        each bin begins (bins,) int32.
    """
    start, side = (part[group.boxes] for part in how.lines())
    image = how.images()[group.boxes]
    height: Tensor | int
    width: Tensor | int
    _, height, width, _ = shapes[group.maps[0]]
    base: Tensor | int = 0
    if len(group.maps) > 1:
        sizes = torch.tensor([s[:3] for s in shapes], device=image.device)
        lengths = sizes.prod(dim=1)
        base = (lengths.cumsum(0) - lengths)[how.levels][:, None, None]
        height, width = sizes[how.levels, 1:, None, None].unbind(1)
    samples = how.sampling_ratio
    y, y_weight = axis_taps(start[:, 0], side[:, 0], how.bins[0], samples, samples, height)
    x, x_weight = axis_taps(start[:, 1], side[:, 1], how.bins[1], samples, samples, width)
    on_cpu = image.device.type == "cpu"
    if on_cpu:
        y_weight, x_weight = _merge(y, y_weight), _merge(x, x_weight)
    y = (base + (image[:, None, None] * height + y) * width).int()
    row = y[:, :, None, :, None] + x.int()[:, None, :, None, :]  # (K, h, w, taps, taps)
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    num_bins, taps = math.prod(row.shape[:3]), math.prod(row.shape[3:])
    row, weight = row.flatten(), weight.flatten()
    if not on_cpu:
        first = torch.arange(num_bins, dtype=torch.int32, device=row.device) * taps
        return row, weight, first
    used = weight != 0
    counts = used.view(num_bins, taps).sum(dim=1, dtype=torch.int32)
    index = used.nonzero()[:, 0]
    return row[index], weight[index], counts.cumsum(0, dtype=torch.int32) - counts


def _merge(position: Tensor, weight: Tensor) -> Tensor:
    """Return weights where the first of equal positions in a bin has the sum and the others 0.

    Neighbouring samples share positions: of 16 taps a bin, 9 are left where they lie a position
    apart.
    """
    first = (position[..., :, None] == position[..., None, :]).to(torch.uint8).argmax(dim=-1)
    return torch.zeros_like(weight).scatter_add_(-1, first, weight)


def _stable_order(row: Tensor) -> Tensor:
    """Return the indices (taps,) int64 that sort int32 rows; equal ones keep their order."""
    if row.device.type != "cpu":
        return row.sort(stable=True).indices
    # row and index in one number: numpy sorts int64 with vector instructions, many times faster
    keys = (row.long() << 32) | torch.arange(len(row))
    return torch.from_numpy(np.sort(keys.numpy())) & 0xFFFFFFFF
