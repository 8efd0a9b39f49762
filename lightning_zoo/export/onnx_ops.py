"""The operations of ``lightning_zoo.ops`` in an ONNX file, made of standard ones.

NonMaxSuppression and RoIAlign do the work of ours; pasting masks becomes two matrix products, and
keypoints a loop over the boxes. Needs the extra ``export``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from torch import Tensor
from torch.nn import functional as F

from lightning_zoo.ops.mask_paste import _grow
from lightning_zoo.ops.nms import _round_down

ours = torch.ops.lightning_zoo

FEW_VALUES = 4000  # coordinates up to which ops.batched_nms moves the kinds apart, on a CPU
LOWEST = float(np.finfo(np.float32).min)


# onnxscript reads this function and never calls it
@script(default_opset=op)  # type: ignore[untyped-decorator]
def _hottest(heatmaps: FLOAT, boxes: FLOAT) -> tuple[FLOAT, FLOAT]:
    one = op.Constant(value_ints=[1])
    corner = op.Slice(boxes, op.Constant(value_ints=[0]), op.Constant(value_ints=[2]), one)
    sides = op.Slice(boxes, op.Constant(value_ints=[2]), op.Constant(value_ints=[4]), one) - corner
    sides = op.Max(sides, op.Constant(value_float=1.0))
    pixels = op.Ceil(sides)
    steps = sides / pixels
    # rows for no box begin the results, so that a loop over no boxes leaves nothing
    points = op.Slice(op.Shape(heatmaps), one, op.Constant(value_ints=[2]))
    empty = op.Concat(op.Constant(value_ints=[0]), points, axis=0)
    x = op.ConstantOfShape(empty)
    y = op.ConstantOfShape(empty)
    scores = op.ConstantOfShape(empty)
    count = op.Squeeze(op.Shape(heatmaps, start=0, end=1))
    for i in range(count):
        at = op.Reshape(i, one)
        side = op.Cast(op.Gather(pixels, i, axis=0), to=7)  # width and height
        width = op.Gather(side, op.Constant(value_ints=[0]))
        height = op.Gather(side, op.Constant(value_ints=[1]))
        large = op.Resize(
            op.Gather(heatmaps, at, axis=0),
            None,
            None,
            op.Concat(one, points, height, width, axis=0),
            mode="cubic",
            cubic_coeff_a=-0.75,
            coordinate_transformation_mode="half_pixel",
        )
        flat = op.Reshape(large, op.Concat(one, points, op.Constant(value_ints=[-1]), axis=0))
        best = op.ArgMax(flat, axis=2, keepdims=0)  # (1, points)
        score = op.ReduceMax(flat, op.Constant(value_ints=[2]), keepdims=0)
        column = op.Cast(best - (best / width) * width, to=1) + op.Constant(value_float=0.5)
        row = op.Cast(best / width, to=1) + op.Constant(value_float=0.5)
        step = op.Gather(steps, i, axis=0)
        start = op.Gather(corner, i, axis=0)
        zero = op.Constant(value_int=0)
        new_x = column * op.Gather(step, zero) + op.Gather(start, zero)
        new_y = row * op.Gather(step, op.Constant(value_int=1))
        new_y = new_y + op.Gather(start, op.Constant(value_int=1))
        x = op.Concat(x, new_x, axis=0)
        y = op.Concat(y, new_y, axis=0)
        scores = op.Concat(scores, score, axis=0)
    last = op.Constant(value_ints=[2])
    certain = op.CastLike(op.Equal(x, x), x)
    keypoints = op.Concat(
        op.Unsqueeze(x, last), op.Unsqueeze(y, last), op.Unsqueeze(certain, last), axis=2
    )
    return keypoints, scores


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
    """Translate ``ops.batched_nms``, with its two ways to keep the kinds apart.

    Few boxes are one class, moved apart by kind; of many, each kind is a class of its own, in which
    the boxes of other kinds score too low to be looked at.
    """
    first, zero = op.Constant(value_ints=[0]), op.Constant(value_int=0)
    many = op.Greater(op.Size(boxes), op.Constant(value_int=FEW_VALUES))
    lowest = op.Constant(value_floats=[LOWEST])
    values = op.Concat(op.Reshape(boxes, op.Constant(value_ints=[-1])), lowest, axis=0)
    step = op.Add(op.ReduceMax(values, keepdims=0), op.Constant(value_float=1.0))
    shift = op.Mul(op.CastLike(op.Where(many, zero, idxs), boxes), step)
    boxes = op.Add(boxes, op.Unsqueeze(shift, op.Constant(value_ints=[1])))
    kind = op.Where(many, idxs, zero)
    kinds = op.Add(
        op.ReduceMax(op.Concat(kind, first, axis=0), keepdims=0), op.Constant(value_int=1)
    )
    is_kind = op.OneHot(kind, kinds, op.Constant(value_ints=[0, 1]), axis=0)  # (kinds, N)
    rows = op.Where(op.Cast(is_kind, to=9), op.Unsqueeze(scores, first), lowest)
    limit = float(_round_down(iou_threshold, np.dtype(np.float32)))
    chosen = op.NonMaxSuppression(
        op.Unsqueeze(boxes, first),
        op.Unsqueeze(rows, first),
        op.Size(scores),
        op.Constant(value_floats=[limit]),
        lowest,
    )
    kept = op.Gather(chosen, op.Constant(value_int=2), axis=1)
    _, order = op.TopK(op.Gather(scores, kept), op.Shape(kept), axis=0)
    return op.Gather(kept, order)


def roi_align(
    features: Sequence[Any],
    rois: Any,
    levels: Any,
    scales: Sequence[float],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """Translate RoIAlign over one map, or several: each box from its own, then in order again."""
    one = op.Constant(value_ints=[1])
    image = op.Cast(op.Gather(rois, op.Constant(value_int=0), axis=1), to=7)
    boxes = op.Slice(rois, one, op.Constant(value_ints=[5]), one)

    def pool(feature: Any, scale: float, boxes: Any, image: Any) -> Any:
        return op.RoiAlign(
            feature,
            boxes,
            image,
            mode="avg",
            output_height=height,
            output_width=width,
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=scale,
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        )

    if levels is None:
        return pool(features[0], scales[0], boxes, image)
    parts, places = [], []
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        of_level = op.Equal(levels, op.Constant(value_int=level))
        place = op.Squeeze(op.NonZero(of_level), op.Constant(value_ints=[0]))
        parts.append(pool(feature, scale, op.Gather(boxes, place), op.Gather(image, place)))
        places.append(place)
    order = op.Concat(*places, axis=0)
    _, back = op.TopK(order, op.Shape(order), axis=0, largest=0)
    return op.Gather(op.Concat(*parts, axis=0), back)


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, padding: int) -> Tensor:
    """Paste masks by matrix products: what `ops.paste_masks` does box by box, without a loop.

    A row of the image is a weighted sum of two rows of the mask, and a column likewise.
    """
    side = masks.shape[-1]
    grown = _grow(boxes.float(), (side + 2 * padding) / side).long()
    masks = F.pad(masks.float(), (padding,) * 4)[:, 0]  # (N, S, S)
    rows = _bilinear(grown[:, 1], grown[:, 3], height, side + 2 * padding)  # (N, H, S)
    columns = _bilinear(grown[:, 0], grown[:, 2], width, side + 2 * padding)  # (N, W, S)
    return (rows @ masks @ columns.transpose(1, 2))[:, None]


def _bilinear(first: Tensor, last: Tensor, length: int, side: int) -> Tensor:
    """Return what each of ``length`` pixels takes of each of ``side``, ``(N, length, side)``."""
    pixel = torch.arange(length)[None]
    first, last = first[:, None], last[:, None]
    scale = side / (last - first + 1).clamp(min=1).float()
    position = ((pixel - first).float() + 0.5) * scale - 0.5
    position = position.clamp(0, side - 1)[:, :, None]
    weight = (1 - (position - torch.arange(side)).abs()).clamp(min=0)
    inside = (pixel >= first) & (pixel <= last)
    return weight * inside[:, :, None]


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    ours.batched_nms.default: batched_nms,
    ours.roi_align.default: roi_align,
    ours.decode_heatmaps.default: _hottest,
}
"""Operations of ours that ONNX has, or that are written in its own."""

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {ours.paste_masks.default: paste_masks}
"""Operations of ours that are written in torch's own before the translation."""
