"""Transforms of images with a class id at each pixel: both change together, and ids never change.

An image is uint8 (H, W, 3), RGB; its mask is uint8 (H, W), 255 for void. The reference resized
Pillow images: bilinear and antialiased, masks by the nearest pixel. Evaluation gives Pillow's
bytes; training makes only the part of the resized image that is cut out, within 1 of them. Images
are normalised later, on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.classification import (
    Box,
    import_albumentations,
    pillow_resize,
    resize,
    shorter_side_size,
)
from lightning_zoo.transforms.label_maps import VOID, Pixels
from lightning_zoo.transforms.masks import rle_runs, to_rle


class TrainTransform:
    """Resize the shorter side to a random length, mirror, pad at the right and bottom, cut out.

    Args:
        crop: Side of the result in pixels.
        resize: Shortest and longest length of the shorter side in pixels; all are as likely.
        flip: Chance of mirroring.
    """

    def __init__(
        self, crop: int = 480, *, resize: Sequence[int] = (260, 1040), flip: float = 0.5
    ) -> None:
        if crop < 1:
            raise ZooError(f"train_crop is {crop}; expected a number of pixels of at least 1")
        if len(resize) != 2 or not 1 <= resize[0] <= resize[1]:
            raise ZooError(
                f"train_resize is {list(resize)}; expected two numbers of pixels, the smaller first"
            )
        if not 0 <= flip <= 1:
            raise ZooError(f"flip is {flip}; expected a probability from 0 to 1")
        self.crop = crop
        self.resize = tuple(resize)
        self.flip = flip

    def __call__(
        self, image: Pixels, mask: Pixels, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return uint8 (3, crop, crop) and (crop, crop); padding is black and void."""
        import cv2

        side = int(rng.integers(self.resize[0], self.resize[1] + 1))
        height, width = shorter_side_size(image.shape[0], image.shape[1], side)
        flip = bool(rng.random() < self.flip)
        box = random_crop_box(height, width, self.crop, rng)
        image = resize_part(image, height, width, box)
        mask = resize_mask(mask, height, width, box)
        if flip:  # the part is as likely as its mirror image, so that it may be flipped last
            image, mask = np.asarray(cv2.flip(image, 1)), np.asarray(cv2.flip(mask, 1))
        return to_tensors(*pad(image, mask, self.crop))


class AlbumentationsTransform:
    """A list of albumentations transforms in place of resize and flip, then padded and cut out.

    What a rotation or a padding uncovers is void, whatever the transforms' ``fill_mask`` says.

    Args:
        transforms: albumentations transforms, already built.
        crop: Side of the result in pixels; what the list returns is padded and cut to it.

    Raises:
        ZooError: If albumentations is missing, or the AGPL distribution stands in its place.
    """

    def __init__(self, transforms: Sequence[Any], *, crop: int = 480) -> None:
        if crop < 1:
            raise ZooError(f"train_crop is {crop}; expected a number of pixels of at least 1")
        self.compose: Any = import_albumentations().Compose(
            list(transforms), additional_targets={"inside": "mask"}
        )
        self.crop = crop

    def __call__(
        self, image: Pixels, mask: Pixels, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return uint8 (3, crop, crop) and (crop, crop); padding is black and void."""
        self.compose.set_random_seed(int(rng.integers(2**31)))
        # a second mask of ones tells where the image came to lie
        out = self.compose(
            image=np.ascontiguousarray(image),
            mask=np.ascontiguousarray(mask),
            inside=np.ones_like(mask),
        )
        image, mask, inside = (np.asarray(out[name]) for name in ("image", "mask", "inside"))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ZooError(
                f"the albumentations list returned {image.dtype} {image.shape}; expected uint8 "
                "(H, W, 3): leave out Normalize and ToTensorV2, the task normalises on the device"
            )
        mask = np.where(inside == 1, mask, VOID).astype(np.uint8)
        y, x, height, width = random_crop_box(mask.shape[0], mask.shape[1], self.crop, rng)
        part = np.s_[y : y + height, x : x + width]
        return to_tensors(*pad(image[part], mask[part], self.crop))


class EvalTransform:
    """Resize the shorter side: the bytes that Pillow gives.

    Args:
        resize: Length of the shorter side in pixels; None keeps the size.
    """

    def __init__(self, resize: int | None = 520) -> None:
        if resize is not None and resize < 1:
            raise ZooError(
                f"eval_resize is {resize}; expected a number of pixels of at least 1, or null"
            )
        self.resize = resize

    def __call__(
        self, image: Pixels, mask: Pixels, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return uint8 (3, H', W') and (H', W'); ``rng`` is not used."""
        if self.resize is None:
            return to_tensors(image, mask)
        height, width = shorter_side_size(image.shape[0], image.shape[1], self.resize)
        resized = pillow_resize(image, height, width).permute(1, 2, 0).numpy()
        return to_tensors(resized, resize_mask(mask, height, width))


def random_crop_box(height: int, width: int, crop: int, rng: np.random.Generator) -> Box:
    """Draw the place of a square in an image; a side that is shorter than it is taken whole."""
    top = int(rng.integers(max(height - crop, 0) + 1))
    left = int(rng.integers(max(width - crop, 0) + 1))
    return top, left, min(height, crop), min(width, crop)


def resize_part(image: Pixels, height: int, width: int, box: Box) -> Pixels:
    """Return a part, uint8 (h, w, 3), of an image resized to ``height`` x ``width`` pixels.

    Args:
        image: uint8 (H, W, 3); both sides grow, or none does.
        height: Height of the whole resized image.
        width: Width of the whole resized image.
        box: The part of it.
    """
    import cv2

    top, left, part_h, part_w = box
    bottom, right = top + part_h, left + part_w
    if height < image.shape[0] or width < image.shape[1]:
        whole = resize(image, height, width).permute(1, 2, 0).numpy()
    elif (height, width) == image.shape[:2]:
        whole = image
    else:
        # An antialiased filter is a plain one where the image grows, and OpenCV's is the fastest.
        # Pixels behind the part have no say in it, but for the next one.
        scale_y, scale_x = height / image.shape[0], width / image.shape[1]
        source = image[: int(bottom / scale_y) + 3, : int(right / scale_x) + 3]
        whole = np.asarray(
            cv2.resize(source, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_LINEAR)
        )
    return whole[top:bottom, left:right]


def resize_mask(mask: Pixels, height: int, width: int, box: Box | None = None) -> Pixels:
    """Return a mask resized to ``height`` x ``width`` by the nearest pixel, or a part of that.

    Args:
        mask: uint8 (H, W).
        height: Height of the whole resized mask.
        width: Width of the whole resized mask.
        box: The part of it that is returned; None for all.
    """
    import cv2

    top, left, part_h, part_w = box or (0, 0, height, width)
    rows = nearest_positions(mask.shape[0], height)[top : top + part_h]
    columns = nearest_positions(mask.shape[1], width)[left : left + part_w]
    # turned over, columns are copied as fast as rows
    turned = cv2.transpose(mask.take(rows, axis=0)).take(columns, axis=0)
    return np.asarray(cv2.transpose(turned), np.uint8)


def nearest_positions(length: int, new_length: int) -> NDArray[np.int64]:
    """Return the position in ``length`` pixels of each of ``new_length``, as Pillow rounds it.

    Pillow adds up the steps, so that a middle between two pixels may fall to either side; a
    product would differ in places.
    """
    steps = np.full(new_length, length / new_length)
    steps[0] /= 2
    return np.cumsum(steps).astype(np.int64)


def pad(image: Pixels, mask: Pixels, side: int) -> tuple[Pixels, Pixels]:
    """Return both with black and void at the right and bottom, up to ``side`` pixels."""
    import cv2

    below, beside = max(side - mask.shape[0], 0), max(side - mask.shape[1], 0)
    if not below and not beside:
        return image, mask
    frame = (0, below, 0, beside, cv2.BORDER_CONSTANT)
    image = np.asarray(cv2.copyMakeBorder(image, *frame, value=(0, 0, 0)), np.uint8)
    return image, np.asarray(cv2.copyMakeBorder(mask, *frame, value=(VOID,)), np.uint8)


def to_tensors(image: Pixels, mask: Pixels) -> tuple[Tensor, Tensor]:
    """Return uint8 (3, H, W) and (H, W) of an image (H, W, 3) and its mask."""
    import cv2

    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, [*planes])
    return torch.from_numpy(planes), torch.from_numpy(np.ascontiguousarray(mask))


def merge_masks(packed: Sequence[bytes], labels: Sequence[int], height: int, width: int) -> Pixels:
    """Return the mask, uint8 (H, W), of M objects; 0 where none is and void where several are.

    The run lengths are merged, and no object is decoded by itself.

    Args:
        packed: M results of :func:`lightning_zoo.transforms.masks.pack`; b"" is an empty one.
        labels: M classes, from 1 to 253.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    starts, ends, values = [], [], []
    for one, label in zip(packed, labels, strict=True):
        edges = np.cumsum(rle_runs(to_rle(one, height, width)["counts"]))
        ends.append(edges[1::2])
        starts.append(edges[::2][: len(ends[-1])])
        values.append(np.full(len(ends[-1]), 256 + label))  # 256s count the objects at a pixel
    if not values:
        return np.zeros((height, width), np.uint8)
    edges = np.concatenate(starts + ends)
    changes = np.concatenate(values + [-value for value in values])
    order = np.argsort(edges, kind="stable")
    sums = np.concatenate(([0], np.cumsum(changes[order])))
    lengths = np.diff(edges[order], prepend=0, append=height * width)
    columns = np.repeat(np.where(sums >= 512, VOID, sums & 255).astype(np.uint8), lengths)
    return np.ascontiguousarray(columns.reshape(width, height).T)
