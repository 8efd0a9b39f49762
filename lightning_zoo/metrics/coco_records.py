"""What COCO evaluation needs to remember of one image: a few numbers and run-length masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_zoo.errors import ZooError

MASK_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The detections and the truth of one image.

    Attributes:
        image_id: The image's number.
        size: Height and width where masks tell them, else ``(0, 0)``.
        labels: int64 ``(N,)``.
        scores: float ``(N,)``.
        boxes: float ``(N, 4)``: left, top, width, height; None where boxes are not evaluated.
        masks: N run-length encoded masks, or None.
        keypoints: float ``(N, 3 K)``, or None.
        truth: COCO annotations without their numbers, in the order of the file.
    """

    image_id: int
    size: tuple[int, int]
    labels: NDArray[np.int64]
    scores: NDArray[np.floating[Any]]
    boxes: NDArray[np.floating[Any]] | None
    masks: list[dict[str, Any]] | None
    keypoints: NDArray[np.floating[Any]] | None
    truth: list[dict[str, Any]]


def encode_masks(masks: Any) -> list[dict[str, Any]]:
    """Return masks as compressed run lengths.

    Args:
        masks: ``(N, 1, H, W)`` or ``(N, H, W)``: probabilities, of which those above 0.5 count, or
            whole numbers, of which those above 0 count; or a list that is run-length encoded.
    """
    if not isinstance(masks, Tensor):
        return [_checked_rle(rle) for rle in masks]
    if not len(masks):
        return []
    from pycocotools import mask as coco_mask

    if masks.dim() == 4:
        masks = masks[:, 0]
    binary = masks > (MASK_THRESHOLD if masks.is_floating_point() else 0)
    # the encoder reads columns: (N, W, H) in memory is its (H, W, N)
    columns = binary.transpose(1, 2).to(torch.uint8).contiguous().cpu().numpy()
    return list(coco_mask.encode(columns.transpose(2, 1, 0)))


def _checked_rle(rle: Any) -> dict[str, Any]:
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), (bytes, str)):
        raise ZooError(
            f"a mask is {type(rle).__name__}; expected compressed run lengths, "
            "{'size': [height, width], 'counts': bytes}"
        )
    counts = rle["counts"]
    counts = counts.encode() if isinstance(counts, str) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": counts}


def _array(value: Tensor) -> NDArray[Any]:
    value = value.detach().cpu()
    # numpy knows no bfloat16
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _xywh(boxes: Tensor) -> NDArray[Any]:
    """Return boxes ``x1, y1, x2, y2`` as COCO's, subtracted in their own precision."""
    found = _array(boxes).reshape(-1, 4).copy()
    found[:, 2:] -= found[:, :2]
    return found


def _finite(detection: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out detections with NaN or infinity: to pycocotools, a box of NaN fits every object."""
    keep = torch.isfinite(detection["scores"])
    for name in ("boxes", "keypoints"):
        part = detection.get(name)
        if part is not None and len(part) == len(keep):
            keep = keep & torch.isfinite(part).flatten(1).all(dim=1)
    if keep.all():
        return detection
    rows = keep.nonzero().flatten().tolist()
    return {
        name: part[keep] if isinstance(part, Tensor) else [part[i] for i in rows]
        for name, part in detection.items()
    }


def _need(values: Mapping[str, Any], name: str, what: str, image_id: int) -> Any:
    if values.get(name) is None:
        raise ZooError(
            f"the {what} of image {image_id} has no {name!r}, which this evaluation needs"
        )
    return values[name]


def make_record(
    detection: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    iou_types: Sequence[str],
    num_keypoints: int,
) -> ImageRecord:
    """Return the record of one image; both arguments are as :class:`CocoMetric` takes them."""
    image_id = int(target["id"])
    detection = _finite(detection)
    labels = _array(detection["labels"]).astype(np.int64)
    boxes = masks = keypoints = None
    if "bbox" in iou_types:
        boxes = _xywh(_need(detection, "boxes", "detection", image_id))
    if "segm" in iou_types:
        masks = encode_masks(_need(detection, "masks", "detection", image_id))
    if "keypoints" in iou_types:
        points = _array(_need(detection, "keypoints", "detection", image_id))
        if len(points) and points.shape[1] != num_keypoints:
            raise ZooError(
                f"a detection of image {image_id} has {points.shape[1]} keypoints, and there are "
                f"{num_keypoints} sigmas; name the skeleton that both come from"
            )
        keypoints = points.reshape(len(points), 3 * num_keypoints)
    for name, part in (("scores", detection["scores"]), ("boxes", boxes), ("masks", masks)):
        if part is not None and len(part) != len(labels):
            raise ZooError(
                f"a detection of image {image_id} has {len(part)} {name} and {len(labels)} labels"
            )
    if target.get("annotations") is not None:
        truth = [_from_annotation(raw, iou_types) for raw in target["annotations"]]
    else:
        truth = _from_tensors(target, iou_types, image_id)
    if "keypoints" in iou_types:
        _complete_keypoints(truth, num_keypoints, image_id)
    return ImageRecord(
        image_id,
        _mask_size(masks or [], truth, image_id),
        labels,
        _array(detection["scores"]),
        boxes,
        masks,
        keypoints,
        truth,
    )


def _from_annotation(raw: Mapping[str, Any], iou_types: Sequence[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "category_id": int(raw["category_id"]),
        "bbox": [float(value) for value in raw["bbox"]],
        "area": float(raw["area"]),
        "iscrowd": int(raw.get("iscrowd", 0)),
    }
    if "segm" in iou_types:
        entry["segmentation"] = _checked_rle(raw["segmentation"])
    if "keypoints" in iou_types:
        entry |= {k: raw[k] for k in ("keypoints", "num_keypoints") if k in raw}
    return entry


def _from_tensors(
    target: Mapping[str, Any], iou_types: Sequence[str], image_id: int
) -> list[dict[str, Any]]:
    boxes = _xywh(target["boxes"])
    columns: dict[str, Any] = {
        "category_id": target["labels"].tolist(),
        "bbox": boxes.tolist(),
        "area": (boxes[:, 2] * boxes[:, 3]).tolist(),
        "iscrowd": [0] * len(boxes),
    }
    columns |= {k: target[k].tolist() for k in ("area", "iscrowd") if target.get(k) is not None}
    if "segm" in iou_types:
        columns["segmentation"] = encode_masks(_need(target, "masks", "target", image_id))
    if "keypoints" in iou_types:
        points = _need(target, "keypoints", "target", image_id)
        columns["keypoints"] = points.flatten(1).tolist()
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _complete_keypoints(truth: list[dict[str, Any]], num_keypoints: int, image_id: int) -> None:
    """Give every object its keypoints, none of them seen where it had none, and their number."""
    for entry in truth:
        points = list(entry.get("keypoints") or [0] * (3 * num_keypoints))
        if len(points) != 3 * num_keypoints:
            raise ZooError(
                f"an object of image {image_id} has {len(points) / 3:g} keypoints, and there are "
                f"{num_keypoints} sigmas; name the skeleton that both come from"
            )
        entry["keypoints"] = points
        entry.setdefault("num_keypoints", sum(seen > 0 for seen in points[2::3]))


def _mask_size(
    masks: list[dict[str, Any]], truth: list[dict[str, Any]], image_id: int
) -> tuple[int, int]:
    rles = masks + [entry["segmentation"] for entry in truth if "segmentation" in entry]
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) > 1:
        shown = " and ".join(f"{h}x{w}" for h, w in sorted(sizes))
        raise ZooError(f"masks of image {image_id} are {shown} pixels high and wide; one is wrong")
    return next(iter(sizes), (0, 0))
