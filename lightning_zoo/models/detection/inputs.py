"""Images and targets that a detector is called with: mistakes named, crowds set aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.errors import ZooError
from lightning_zoo.models.detection.transform import Target

ROWS = ("boxes", "labels", "masks", "keypoints", "area", "iscrowd")
"""What has one row for each object."""


def check_images(images: Any) -> list[Tensor]:
    """Return the images as a list.

    Raises:
        ZooError: If they are no sequence of colour images in float or uint8.
    """
    if isinstance(images, Tensor) and images.dim() != 4:
        raise ZooError(f"images has shape {tuple(images.shape)}; expected a list of (3, H, W)")
    images = list(images)
    if not images:
        raise ZooError("images is empty; expected at least one tensor (3, H, W)")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ZooError(f"images[{i}] is a {type(image).__name__}; expected a tensor (3, H, W)")
        if image.dim() != 3 or image.shape[0] != 3 or not image.numel():
            raise ZooError(f"images[{i}] has shape {tuple(image.shape)}; expected (3, H, W)")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise ZooError(
                f"images[{i}] is {image.dtype}; expected float in [0, 1] or uint8 in 0 to 255"
            )
    return images


def check_targets(
    targets: Sequence[Target] | None,
    images: Sequence[Tensor],
    *,
    num_classes: int | None = None,
    masks: bool = False,
    num_keypoints: int | None = None,
    drop_crowds: bool = False,
) -> list[Target]:
    """Return the targets, those of an evaluation without their crowds.

    Args:
        targets: One dictionary for each image.
        images: The images as they came.
        num_classes: Labels run from 0 to one below; None where nobody knows.
        masks: Whether the model learns masks.
        num_keypoints: Keypoints of an object, where the model learns them.
        drop_crowds: Leave out the objects whose ``iscrowd`` is 1.

    Raises:
        ZooError: If something is missing, has another shape, or cannot be learned from: the text
            names the image's id and the box.
    """
    if targets is None:
        raise ZooError("targets are missing; training needs model(images, targets)")
    if len(targets) != len(images):
        raise ZooError(f"there are {len(images)} images and {len(targets)} targets")
    needed: dict[str, tuple[int | str, ...]] = {"boxes": ("M", 4), "labels": ("M",)}
    if num_keypoints is not None:
        needed["keypoints"] = ("M", num_keypoints, 3)
    checked = []
    for i, (target, image) in enumerate(zip(targets, images, strict=True)):
        if masks:
            needed["masks"] = ("M", image.shape[-2], image.shape[-1])
        who = _name(target, i)
        for key, shape in needed.items():
            _check_shape(target, key, shape, who)
        if drop_crowds and "iscrowd" in target:
            keep = torch.where(torch.as_tensor(target["iscrowd"]) == 0)[0]
            target = {k: v[keep] if k in ROWS else v for k, v in target.items()}
        checked.append(target)
    _check_values(checked, num_classes)
    return checked


def _name(target: Target, index: int) -> str:
    ident = target.get("id", target.get("image_id"))
    if isinstance(ident, Tensor):
        ident = ident.tolist() if ident.numel() != 1 else ident.item()
    return f"image {index} of the batch" if ident is None else f"image {ident}"


def _check_shape(target: Target, key: str, shape: tuple[int | str, ...], who: str) -> None:
    if key not in target:
        raise ZooError(f"the target of {who} has no {key!r}; it has {', '.join(sorted(target))}")
    value = target[key]
    if not isinstance(value, Tensor):
        raise ZooError(f"{key} of {who} is a {type(value).__name__}; expected a tensor")
    rows = len(target["boxes"])
    want = tuple(rows if n == "M" else n for n in shape)
    if value.dim() != len(want) or any(
        a != b for a, b in zip(value.shape, want, strict=True) if rows or b != rows
    ):
        text = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        more = f" for {rows} boxes" if key != "boxes" else ""
        raise ZooError(f"{key} of {who} has shape {tuple(value.shape)}{more}; expected ({text})")
    if key == "labels" and value.dtype != torch.int64:
        raise ZooError(f"labels of {who} are {value.dtype}; expected torch.int64")
    if key in ("boxes", "keypoints") and not value.is_floating_point():
        raise ZooError(f"{key} of {who} are {value.dtype}; expected float")


def _check_values(targets: Sequence[Target], num_classes: int | None) -> None:
    """Look at all boxes and labels of a batch in one go, and for the image only if one is wrong."""
    boxes = torch.cat([t["boxes"] for t in targets])
    labels = torch.cat([t["labels"] for t in targets])
    good = (boxes[:, 2:] > boxes[:, :2]).all() & boxes.isfinite().all() & (labels >= 0).all()
    if num_classes is not None:
        good &= (labels < num_classes).all()
    if bool(good):
        return
    for i, target in enumerate(targets):
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            x1, y1, x2, y2 = box
            if not (x2 > x1 and y2 > y1 and max(map(abs, box)) < float("inf")):
                raise ZooError(
                    f"{_name(target, i)} has the box [{', '.join(f'{v:g}' for v in box)}]; "
                    "expected finite x1 < x2 and y1 < y2"
                )
            if label < 0 or (num_classes is not None and label >= num_classes):
                raise ZooError(
                    f"{_name(target, i)} has the label {label}; the model has num_classes="
                    f"{num_classes}, so labels are 0 to {(num_classes or 0) - 1}"
                    if num_classes is not None
                    else f"{_name(target, i)} has the label {label}; expected 0 or more"
                )


def fixed_generators(images: Sequence[Tensor]) -> list[torch.Generator]:
    """Return the sources of randomness of losses in evaluation: for each image the same.

    A value then depends neither on what else is in the batch nor on what was drawn before.
    """
    return [torch.Generator(image.device).manual_seed(0) for image in images]
