"""RoIAlign with as many samples as a box needs: crops of the map between two narrow matrices.

Bilinear weights are a product of one along y and one along x. A large box has thousands of samples
but few rows and columns, so that two matrix products a box are far less work than its samples.
On CUDA they have the precision that `torch.set_float32_matmul_precision` allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_zoo.ops.roi_samples import Rois, axis_taps

Shape = tuple[int, int, int, int]  # N, H, W, C


def pool(maps: list[Tensor], how: Rois) -> Tensor:
    """Return the features (K, h, w, C) of boxes from maps (N, H, W, C), in the dtype of ``how``."""
    out = how.rois.new_zeros(len(how.rois), *how.bins, maps[0].shape[3])
    shapes = [(m.shape[0], m.shape[1], m.shape[2], m.shape[3]) for m in maps]
    with _alone(out.device.type):
        for i, window in enumerate(_windows(shapes, how)):
            crop = maps[window.map][window.image, window.y, window.x].to(out.dtype)
            rows = torch.tensordot(window.x_weight, crop, dims=([1], [1]))  # (w, rows, C)
            out[i] = torch.tensordot(window.y_weight, rows, dims=([1], [1]))
    return out


def spread(grad: Tensor, shapes: list[Shape], how: Rois) -> list[Tensor]:
    """Return the gradients (N, H, W, C) of the maps, given the one of the output (K, h, w, C)."""
    grads = [grad.new_zeros(shape) for shape in shapes]
    with _alone(grad.device.type):
        for i, window in enumerate(_windows(shapes, how)):
            rows = torch.tensordot(window.x_weight, grad[i], dims=([0], [1]))  # (columns, h, C)
            crop = torch.tensordot(window.y_weight, rows, dims=([0], [1]))
            grads[window.map][window.image, window.y, window.x] += crop
    return grads


@contextlib.contextmanager
def _alone(device: str) -> Iterator[None]:
    """Compute in the given precision, and on the CPU in one thread.

    The matrices are small. Where another process holds a core, waiting for a second thread at each
    of them takes a hundred times as long; and the sums would depend on the number of threads.
    """
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)


class _Window(NamedTuple):
    """What one box reads: a crop of a map, and the weights (bins, positions) along its sides."""

    map: int
    image: int
    y: slice
    x: slice
    y_weight: Tensor
    x_weight: Tensor


def _windows(shapes: list[Shape], how: Rois) -> list[_Window]:
    if len(how.rois) == 0:
        return []
    start, side = how.lines()
    levels = how.images() * 0 if how.levels is None else how.levels
    sizes = torch.tensor([s[1:3] for s in shapes], device=levels.device)[levels]  # (K, 2)
    y, x = (_axis(start[:, axis], side[:, axis], how.bins[axis], sizes[:, axis]) for axis in (0, 1))
    return [
        _Window(level, image, y_slice, x_slice, y_weight, x_weight)
        for level, image, (y_slice, y_weight), (x_slice, x_weight) in zip(
            levels.tolist(), how.images().tolist(), y, x, strict=True
        )
    ]


def _axis(start: Tensor, side: Tensor, bins: int, limit: Tensor) -> list[tuple[slice, Tensor]]:
    """Return for each box the positions that it reads along an axis, and their weights."""
    # a box that is inverted or not finite has no samples, and so no features
    samples = (side / bins).nan_to_num(0, 0, 0).ceil().clamp(min=0)[:, None, None]
    most = max(1, int(samples.max()))
    position, weight = axis_taps(start, side, bins, samples, most, limit[:, None, None])
    used = weight != 0
    first = torch.where(used, position, limit[:, None, None]).flatten(1).amin(dim=1)
    last = torch.where(used, position, -1).flatten(1).amax(dim=1)
    count = (last - first + 1).clamp(min=0)
    relative = torch.where(used, position - first[:, None, None], 0)
    dense = weight.new_zeros(len(side), bins, max(1, int(count.max())))
    dense.scatter_add_(2, relative, weight)
    return [
        (slice(begin, begin + length), dense[i, :, :length])
        for i, (begin, length) in enumerate(zip(first.tolist(), count.tolist(), strict=True))
    ]
