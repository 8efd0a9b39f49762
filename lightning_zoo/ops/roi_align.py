"""RoIAlign: features of boxes, averaged from bilinear samples (https://arxiv.org/abs/1703.06870).

The work is done in `roi_gather` (a fixed number of samples) and in `roi_crop` (as many as a box
needs); this file has the functions to call and the custom ops that trace, export and differentiate.
On CUDA the same torch code runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.errors import ZooError
from lightning_zoo.ops import roi_crop, roi_gather
from lightning_zoo.ops.registration import register_fake, register_op
from lightning_zoo.ops.roi_samples import Rois


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Return the features (K, C, h, w) of K boxes, in channels-last memory.

    Args:
        input: Feature maps (N, C, H, W), best in channels-last memory. Half precision is computed
            in float32 and returned as it came; integers (masks) give float32.
        boxes: (K, 5) with the index of the map before x1, y1, x2, y2; or one tensor (Ki, 4) a map.
            They get no gradient.
        output_size: Height and width of the output, or one number for both.
        spatial_scale: Positions of the feature map per unit of the boxes.
        sampling_ratio: Samples per output cell in each direction; 0 or less takes one for each
            position that a cell spans, rounded up.
        aligned: Whether positions are pixel centres (boxes shift by half a position); otherwise
            boxes are at least one position wide and high.
    """
    rois = boxes if isinstance(boxes, Tensor) else _with_index(boxes)
    height, width = _pair(output_size)
    scales = [spatial_scale]
    return _roi_align([input], rois, None, scales, height, width, sampling_ratio, aligned)


def multiscale_roi_align(
    features: list[Tensor],
    boxes: list[Tensor],
    output_size: int | tuple[int, int],
    scales: list[float],
    *,
    sampling_ratio: int = 2,
    canonical_scale: int = 224,
    canonical_level: int = 4,
) -> Tensor:
    """Return the features (K, C, h, w) of all boxes, each from the map that fits its size.

    A box of area ``canonical_scale`` squared takes level ``canonical_level``, one of half the side
    the level below (https://arxiv.org/abs/1612.03144, equation 1).

    Args:
        features: Maps (N, C, H, W) from high resolution to low, each half of the one before.
        boxes: One tensor (Ki, 4) an image, in pixels; K is their sum.
        output_size: Height and width of the output, or one number for both.
        scales: Positions per pixel of each map, for example 1/4, 1/8, 1/16, 1/32.
        sampling_ratio: As in `roi_align`.
        canonical_scale: Side in pixels.
        canonical_level: Level of a map with ``2 ** -canonical_level`` positions per pixel.

    Raises:
        ZooError: If there are not as many scales as maps.
    """
    if len(features) != len(scales) or not features:
        raise ZooError(f"scales has {len(scales)} values for {len(features)} feature maps")
    rois = _with_index(boxes)
    height, width = _pair(output_size)
    levels = None
    if len(features) > 1:
        sides = rois[:, 3:].float() - rois[:, 1:3].float()
        size = (sides[:, 0] * sides[:, 1]).sqrt()
        level = torch.floor(canonical_level + torch.log2(size / canonical_scale) + 1e-6)
        lowest, highest = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
        # an inverted box has no size (nan); it takes the first map, as boxes of area 0 do
        levels = level.nan_to_num(lowest).clamp(lowest, highest).long() - lowest
    return _roi_align(features, rois, levels, scales, height, width, sampling_ratio, False)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _with_index(boxes: Sequence[Tensor]) -> Tensor:
    """Return boxes of several images as (K, 5), the image's index first."""
    parts = [torch.cat([b.new_full((b.shape[0], 1), i), b], dim=1) for i, b in enumerate(boxes)]
    return torch.cat(parts)


def _work_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _out_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.float32


@register_op("roi_align")
def _roi_align(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    dtype = features[0].dtype
    how = Rois(
        rois.to(_work_dtype(dtype)), levels, scales, (height, width), sampling_ratio, aligned
    )
    rows = roi_gather.pool if sampling_ratio > 0 else roi_crop.pool
    maps = [feature.permute(0, 2, 3, 1) for feature in features]
    return rows(maps, how).to(_out_dtype(dtype)).permute(0, 3, 1, 2)


@register_fake("roi_align")
def _(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    shape = (rois.shape[0], height, width, features[0].shape[1])
    out = features[0].new_empty(shape, dtype=_out_dtype(features[0].dtype))
    return out.permute(0, 3, 1, 2)


@register_op("roi_align_backward")
def _roi_align_backward(
    grad: Tensor,
    sizes: list[int],
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    work = _work_dtype(grad.dtype)
    bins = (grad.shape[2], grad.shape[3])
    how = Rois(rois.to(work), levels, scales, bins, sampling_ratio, aligned)
    spread = roi_gather.spread if sampling_ratio > 0 else roi_crop.spread
    maps = spread(grad.to(work).permute(0, 2, 3, 1), _shapes(sizes), how)
    return [m.to(grad.dtype).permute(0, 3, 1, 2) for m in maps]


@register_fake("roi_align_backward")
def _(
    grad: Tensor,
    sizes: list[int],
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    return [grad.new_empty(shape).permute(0, 3, 1, 2) for shape in _shapes(sizes)]


def _shapes(sizes: list[int]) -> list[tuple[int, int, int, int]]:
    """Return (N, H, W, C) of each map from the flat list of N, C, H, W that an op can take."""
    flat = iter(sizes)
    return [(n, h, w, c) for n, c, h, w in zip(flat, flat, flat, flat, strict=True)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, scales, _, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois, levels)
    ctx.sizes = [side for feature in features for side in feature.shape]
    ctx.options = (scales, sampling_ratio, aligned)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, levels = ctx.saved_tensors
    grads = _roi_align_backward(grad, ctx.sizes, rois, levels, *ctx.options)
    return grads, None, None, None, None, None, None, None


torch.library.register_autograd("lightning_zoo::roi_align", _backward, setup_context=_setup_context)
