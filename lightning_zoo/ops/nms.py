"""Non-maximum suppression: of boxes that overlap, only the one with the highest score stays.

The indices are exactly those of torchvision's CPU op, ties and broken boxes included. On the CPU
numpy does the work: torch would start threads, and where another process holds a core, waiting for
them takes up to a hundred times as long as the work itself. On CUDA the torch path runs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_zoo.ops import nms_blocks, nms_sweep
from lightning_zoo.ops.registration import register_fake, register_op

FEW = 400  # boxes up to which all pairs are faster than looking for those that touch


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices (K,) int64 of the boxes that stay, the highest score first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2; half precision is computed in float32.
        scores: (N,); of equal scores the earlier box counts as the higher.
        iou_threshold: A box goes if its IoU with one that stays is above this.
    """
    return _nms(boxes.detach(), scores.detach(), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices (K,) int64 of the boxes that stay, where only boxes of a kind compete.

    Up to 1000 boxes (5000 on CUDA) the kinds are moved apart in the plane, as torchvision does: the
    shift rounds coordinates, which can decide a close case. More boxes are compared as they are.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2; half precision is computed in float32.
        scores: (N,).
        idxs: Kind of each box (N,), for example its class or level; integers.
        iou_threshold: A box goes if its IoU with one of its kind that stays is above this.

    Returns:
        Indices with the highest score first.
    """
    return _batched_nms(boxes.detach(), scores.detach(), idxs, iou_threshold)


@register_op("nms")
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _suppress(_upcast(boxes), scores, None, iou_threshold)


@register_fake("nms")
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(num_kept, dtype=torch.int64)


@register_op("batched_nms")
def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    boxes = _upcast(boxes)
    if 0 < boxes.numel() <= (4000 if boxes.device.type == "cpu" else 20000):
        offsets = idxs.to(boxes) * (boxes.max() + 1)
        return _suppress(boxes + offsets[:, None], scores, None, iou_threshold)
    kept = _suppress(boxes, scores, idxs, iou_threshold).sort().values
    # this sort is not stable: equal scores come in the order that torchvision returns them in
    return kept[scores[kept].sort(descending=True).indices]


@register_fake("batched_nms")
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(num_kept, dtype=torch.int64)


def _upcast(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def _suppress(boxes: Tensor, scores: Tensor, kinds: Tensor | None, iou_threshold: float) -> Tensor:
    order = scores.sort(stable=True, descending=True).indices
    if boxes.device.type != "cpu":
        kinds = None if kinds is None else kinds[order]
        return order[nms_blocks.keep_on_device(boxes[order], kinds, iou_threshold)]
    index, array = order.numpy(), boxes.numpy()
    with np.errstate(all="ignore"):
        x1, y1, x2, y2 = array[index].T
        sides = np.array([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])
        threshold = _round_down(iou_threshold, array.dtype)
        kept = _keep(sides, None if kinds is None else kinds.numpy()[index], threshold)
    return torch.from_numpy(index[kept])


def _round_down(threshold: float, dtype: np.dtype) -> np.floating:
    """Return the largest number of ``dtype`` that is not above the threshold.

    torchvision compares a float32 IoU with a threshold in double precision. Rounded to the nearest
    float32, 0.3 or 0.55 would lie above it and spare boxes whose IoU is just that float32.
    """
    rounded = dtype.type(threshold)
    if float(rounded) > threshold:  # in double precision: numpy 2 would compare as float32
        rounded = np.nextafter(rounded, dtype.type(-np.inf))
    return rounded


def _keep(
    sides: NDArray[np.floating], kinds: NDArray[np.int64] | None, threshold: np.floating
) -> NDArray[np.intp]:
    """Return the positions of the boxes that stay, in ascending order."""
    if sides.shape[1] > FEW and nms_sweep.suits(sides, threshold):
        return nms_sweep.keep(sides, kinds, threshold)
    if kinds is None:
        return nms_blocks.keep(sides, threshold)
    members = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    kept = [m[nms_blocks.keep(sides[:, m], threshold)] for m in members]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.intp)
