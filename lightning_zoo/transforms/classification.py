"""Training and evaluation transforms of classifiers: uint8 RGB (H, W, 3) in, uint8 (3, H, W) out.

The reference resized Pillow images with a bilinear, antialiased filter. Evaluation resizes by
Pillow too, so that its bytes are the reference's. Training takes torch's antialiased interpolation
of uint8 tensors, which needs half the time and is within 1 of Pillow, save for about one byte in a
million that is 2 away. Images are normalised later, on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.auto_augment import Policy, make_policy

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # y0, x0, height, width in pixels


def pillow_resize(image: Pixels, height: int, width: int) -> Tensor:
    """Return uint8 (3, height, width) for (H, W, 3), by Pillow's antialiased bilinear filter."""
    if image.shape[:2] != (height, width):
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        image = np.array(resized)
    return torch.from_numpy(image).permute(2, 0, 1)


def resize(image: Pixels, height: int, width: int) -> Tensor:
    """Return uint8 (3, height, width) for (H, W, 3), bilinear and antialiased, by torch."""
    source = torch.from_numpy(image).permute(2, 0, 1)
    if image.shape[:2] == (height, width):
        return source
    size = (height, width)
    return interpolate(source.unsqueeze(0), size=size, mode="bilinear", antialias=True)[0]


def shorter_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Return (height, width) with the shorter side at ``size`` and the longer one rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def center_crop(image: Tensor, size: int) -> Tensor:
    """Return the middle (3, size, size) of (3, H, W); smaller images are framed in black."""
    height, width = image.shape[1:]
    if height < size or width < size:
        missing_y, missing_x = max(size - height, 0), max(size - width, 0)
        sides = missing_x // 2, (missing_x + 1) // 2, missing_y // 2, (missing_y + 1) // 2
        image = pad(image, sides)
        height, width = image.shape[1:]
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return image[:, top : top + size, left : left + size]


def contiguous(image: Tensor) -> Tensor:
    """Return a tensor with its values in order; NumPy copies bytes faster than torch does."""
    return image if image.is_contiguous() else torch.from_numpy(np.ascontiguousarray(image))


def random_crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw the box of a random resized crop.

    Ten times an area (uniform, as a share of the image) and an aspect ratio (log-uniform) are
    drawn; if none fits, the box is the largest central one within the ratios.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        rng: Source of randomness.
        scale: Range of the share of the image's area.
        ratio: Range of width / height.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * rng.uniform(scale[0], scale[1])
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            y = int(rng.integers(0, height - h + 1))
            return y, int(rng.integers(0, width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def random_erase_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    probability: float,
    scale: Sequence[float] = (0.02, 0.33),
    ratio: Sequence[float] = (0.3, 3.3),
) -> Box:
    """Draw the box that the task sets to zero after normalising; all zeros where none is.

    Paper: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020,
    https://arxiv.org/abs/1708.04896.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        rng: Source of randomness.
        probability: Chance that a box is erased.
        scale: Range of the share of the image's area.
        ratio: Range of height / width, log-uniform.
    """
    if rng.random() >= probability:
        return 0, 0, 0, 0
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * rng.uniform(scale[0], scale[1])
        aspect = math.exp(rng.uniform(low, high))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            y = int(rng.integers(0, height - h + 1))
            return y, int(rng.integers(0, width - w + 1)), h, w
    return 0, 0, 0, 0


class EvalTransform:
    """Resize the shorter side, cut out the centre: the bytes that Pillow gives.

    Args:
        resize: Length of the shorter side in pixels.
        crop: Side of the square in pixels.
        exact: Resize by Pillow; False takes torch, as in training, in a third of the time.
    """

    def __init__(self, resize: int = 256, crop: int = 224, *, exact: bool = True) -> None:
        for name, value in (("eval_resize", resize), ("eval_crop", crop)):
            if value < 1:
                raise ZooError(f"{name} is {value}; expected a number of pixels of at least 1")
        self.resize = resize
        self.crop = crop
        self.exact = exact

    def __call__(self, image: Pixels, rng: np.random.Generator | None = None) -> Tensor:
        """Return uint8 (3, crop, crop) for uint8 (H, W, 3); ``rng`` is not used."""
        height, width = shorter_side_size(image.shape[0], image.shape[1], self.resize)
        resized = (pillow_resize if self.exact else resize)(image, height, width)
        return contiguous(center_crop(resized, self.crop))


class TrainTransform:
    """Random resized crop, flip, and an automatic augmentation if one is named.

    Args:
        crop: Side of the result in pixels.
        scale: Range of the crop's share of the image's area.
        flip: Chance of mirroring.
        auto_augment: ``"imagenet"`` (AutoAugment), ``"rand"``, ``"trivial"`` or None.
        interpolation: ``"nearest"`` or ``"bilinear"``, for the geometric operations of those.
    """

    def __init__(
        self,
        crop: int = 224,
        *,
        scale: Sequence[float] = (0.08, 1.0),
        flip: float = 0.5,
        auto_augment: str | None = None,
        interpolation: str = "nearest",
    ) -> None:
        if crop < 1:
            raise ZooError(f"train_crop is {crop}; expected a number of pixels of at least 1")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ZooError(f"scale is {tuple(scale)}; expected two shares, 0 < smallest <= 1")
        if not 0 <= flip <= 1:
            raise ZooError(f"flip is {flip}; expected a probability from 0 to 1")
        self.crop = crop
        self.scale = tuple(scale)
        self.flip = flip
        self.policy: Policy | None = make_policy(auto_augment, interpolation)

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Tensor:
        """Return uint8 (3, crop, crop) for uint8 (H, W, 3)."""
        y, x, height, width = random_crop_box(image.shape[0], image.shape[1], rng, scale=self.scale)
        flip = bool(rng.random() < self.flip)
        resized = resize(image[y : y + height, x : x + width], self.crop, self.crop)
        if flip:
            resized = resized.flip(-1)
        if self.policy is not None:
            augmented = self.policy(resized.permute(1, 2, 0).numpy(), rng)
            resized = torch.from_numpy(augmented).permute(2, 0, 1)
        return contiguous(resized)


class AlbumentationsTransform:
    """A list of albumentations transforms in place of crop and flip; seeded by the sample's rng.

    Args:
        transforms: albumentations transforms, already built.
        crop: Side in pixels that the result must have; resized (antialiased) if it has another.

    Raises:
        ZooError: If albumentations is missing, or the AGPL distribution stands in its place.
    """

    def __init__(self, transforms: Sequence[Any], *, crop: int = 224) -> None:
        self.compose: Callable[..., dict[str, Any]] = import_albumentations().Compose(
            list(transforms)
        )
        self.crop = crop

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Tensor:
        """Return uint8 (3, crop, crop) for uint8 (H, W, 3)."""
        self.compose.set_random_seed(int(rng.integers(2**31)))  # type: ignore[attr-defined]
        out = np.asarray(self.compose(image=np.ascontiguousarray(image))["image"])
        if out.dtype != np.uint8 or out.ndim != 3 or out.shape[2] != 3:
            raise ZooError(
                f"the albumentations list returned {out.dtype} {out.shape}; expected uint8 "
                "(H, W, 3): leave out Normalize and ToTensorV2, the task normalises on the device"
            )
        return contiguous(resize(out, self.crop, self.crop))


def import_albumentations() -> Any:
    """Import albumentations with its update check off.

    Raises:
        ZooError: If it is missing, or the AGPL distribution stands in its place.
    """
    import importlib
    import os
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("albumentationsx")
    except PackageNotFoundError:
        pass
    else:
        raise ZooError(
            "the installed 'albumentations' is AlbumentationsX, whose licence is AGPL-3.0; for the "
            "MIT one: pip uninstall albumentationsx, then pip install 'albumentations>=2.0.8,<3'"
        )
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or its import asks the network for a version
    try:
        return importlib.import_module("albumentations")
    except ImportError as error:
        raise ZooError(
            f"albumentations cannot be imported ({error}): pip install 'albumentations>=2.0.8,<3'"
        ) from None
