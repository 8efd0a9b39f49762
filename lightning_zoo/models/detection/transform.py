"""What detectors do to images before the network and to detections after it.

Images are normalised, resized and padded to one batch; boxes and keypoints go with them. Masks
keep their own resolution: the mask loss looks values up where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.errors import ZooError
from lightning_zoo.ops import paste_masks

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Size = tuple[int, int]
Target = dict[str, Any]
Detections = dict[str, Tensor]


class ImageList(NamedTuple):
    """A batch of images of different sizes.

    Attributes:
        tensors: ``(N, 3, H, W)``, zero to the right of each image and below it.
        image_sizes: Height and width of each image before the padding.
    """

    tensors: Tensor
    image_sizes: list[Size]


class GeneralizedRCNNTransform(nn.Module):
    """Normalise, resize and pad images; take detections back to the images' own pixels.

    Args:
        min_size: Length in pixels of the shorter side; of several, training draws one for each
            image and evaluation takes the last.
        max_size: Length in pixels that the longer side is limited to.
        image_mean: Per-channel mean (RGB, of values in [0, 1]) that is subtracted.
        image_std: Per-channel standard deviation that is divided by.
        size_divisible: Height and width of the batch are multiples of it.
        fixed_size: Width and height of every image, whatever its own proportions; None for the
            rule above.
    """

    def __init__(
        self,
        min_size: int | Sequence[int],
        max_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        size_divisible: int = 32,
        fixed_size: Size | None = None,
    ) -> None:
        super().__init__()
        self.min_size = tuple(min_size) if isinstance(min_size, Sequence) else (min_size,)
        self.max_size = max_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.size_divisible = size_divisible
        self.fixed_size = fixed_size
        if not self.min_size or min(self.min_size) < 1:
            raise ZooError(f"min_size is {min_size!r}; expected one or more lengths in pixels")

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """Return the batch, and copies of the targets whose boxes and keypoints fit it.

        Args:
            images: ``(3, H, W)`` each, float in [0, 1] or uint8.
            targets: One dictionary for each image; they are not changed.
        """
        resized = [self.resize(self.normalize(image)) for image in images]
        sizes = [(image.shape[-2], image.shape[-1]) for image in resized]
        if targets is not None:
            targets = [
                _scaled(target, (image.shape[-2], image.shape[-1]), size)
                for target, image, size in zip(targets, images, sizes, strict=True)
            ]
        return ImageList(self.batch(resized), sizes), targets

    def normalize(self, image: Tensor) -> Tensor:
        """Return the image in float, with mean 0 and deviation 1 over the training data."""
        if image.dtype == torch.uint8:
            image = image.float().div_(255)
        mean, std = (
            torch.tensor(values, dtype=image.dtype, device=image.device)[:, None, None]
            for values in (self.image_mean, self.image_std)
        )
        return (image - mean).div_(std)

    def target_size(self, height: int, width: int) -> Size:
        """Return the height and width that an image of this size is resized to."""
        if self.fixed_size is not None:
            return self.fixed_size[1], self.fixed_size[0]
        min_size = self.min_size[-1]
        if self.training and len(self.min_size) > 1:
            min_size = self.min_size[int(torch.randint(len(self.min_size), ()))]
        scale = min(min_size / min(height, width), self.max_size / max(height, width))
        return max(int(height * scale), 1), max(int(width * scale), 1)

    def resize(self, image: Tensor) -> Tensor:
        """Return the image ``(3, H, W)`` at its new size."""
        size = self.target_size(image.shape[-2], image.shape[-1])
        if size == image.shape[-2:]:
            return image
        return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]

    def batch(self, images: Sequence[Tensor]) -> Tensor:
        """Return the images as one tensor, channels last in memory: convolutions are faster so."""
        step = self.size_divisible
        height, width = (
            -(-max(image.shape[dim] for image in images) // step) * step for dim in (-2, -1)
        )
        batch = torch.zeros(
            (len(images), 3, height, width), dtype=images[0].dtype, device=images[0].device
        )
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[-2], : image.shape[-1]] = image
        return batch

    def postprocess(
        self, detections: list[Detections], image_sizes: list[Size], original_sizes: list[Size]
    ) -> list[Detections]:
        """Take boxes, keypoints and masks to the pixels of the images that came in, in place."""
        if self.training:
            return detections
        for found, size, original in zip(detections, image_sizes, original_sizes, strict=True):
            found["boxes"] = _rescale(found["boxes"], size, original)
            if "masks" in found:
                found["masks"] = paste_masks(found["masks"], found["boxes"], original)
            if "keypoints" in found:
                found["keypoints"] = _rescale(found["keypoints"], size, original)
        return detections


def precise(x: Tensor) -> Tensor:
    """Return a tensor in float32 at least: scores, losses and boxes are not computed in less."""
    return x if x.dtype == torch.float64 else x.float()


def _scaled(target: Target, old: Size, new: Size) -> Target:
    target = dict(target)
    for key in ("boxes", "keypoints"):
        if key in target:
            target[key] = _rescale(target[key], old, new)
    return target


def _rescale(values: Tensor, old: Size, new: Size) -> Tensor:
    """Scale boxes (x, y, x, y) or keypoints (x, y, visibility), each axis by its own ratio."""
    y, x = new[0] / old[0], new[1] / old[1]
    ratios = [x, y, x, y] if values.shape[-1] == 4 else [x, y, 1.0]
    return values * torch.tensor(ratios, dtype=values.dtype, device=values.device)
