"""Mixup and CutMix within a batch, on the device.

Papers: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
https://arxiv.org/abs/1710.09412; Yun et al., "CutMix", ICCV 2019, https://arxiv.org/abs/1905.04899.

Each image is mixed with its neighbour in the batch, the last with the first, as in the reference.
Numbers are drawn on the CPU, so that a seed gives the same mixes on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from lightning_zoo.errors import ZooError

Box = tuple[int, int, int, int]


def soft_targets(labels: Tensor, num_classes: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return targets (N, C) for labels int64 (N); targets that are (N, C) already are returned."""
    return labels.to(dtype) if labels.ndim == 2 else one_hot(labels, num_classes).to(dtype)


def draw_lambda(alpha: float, generator: Generator | None = None) -> float:
    """Draw the first image's share from Beta(alpha, alpha); a single float in [0, 1]."""
    if alpha <= 0:
        raise ZooError(f"alpha is {alpha}; expected a number greater than 0")
    shape = torch.tensor([alpha, alpha], dtype=torch.float64)
    # Beta(a, a) is x / (x + y) of two Gamma(a); torch.distributions takes no generator
    first, second = torch._standard_gamma(shape, generator=generator).tolist()
    return first / (first + second) if first + second > 0 else 0.5


def mixup(
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    alpha: float,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend each image with its neighbour by a share drawn from Beta(alpha, alpha).

    Args:
        images: Float (N, 3, H, W).
        labels: int64 (N), or targets (N, C).
        num_classes: Number C of classes.
        alpha: Parameter of the Beta distribution, > 0.
        generator: Source of randomness, on the CPU.

    Returns:
        Images (N, 3, H, W) and targets (N, C) in the images' dtype.
    """
    return mixup_by(images, labels, num_classes=num_classes, lam=draw_lambda(alpha, generator))


def mixup_by(
    images: Tensor, labels: Tensor, *, num_classes: int, lam: float
) -> tuple[Tensor, Tensor]:
    """Blend each image with its neighbour: ``lam`` of its own, ``1 - lam`` of the neighbour's."""
    _check(images)
    targets = soft_targets(labels, num_classes, dtype=images.dtype)
    return _blend(images, lam), _blend(targets, lam)


def cutmix(
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    alpha: float,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Put a box of its neighbour into each image; the box takes a share drawn from Beta.

    Args:
        images: Float (N, 3, H, W).
        labels: int64 (N), or targets (N, C).
        num_classes: Number C of classes.
        alpha: Parameter of the Beta distribution, > 0.
        generator: Source of randomness, on the CPU.

    Returns:
        Images (N, 3, H, W) and targets (N, C) in the images' dtype, mixed by the share of the box
        that lies within the image.
    """
    height, width = images.shape[-2:]
    lam = draw_lambda(alpha, generator)
    x = int(torch.randint(width, (), generator=generator))
    y = int(torch.randint(height, (), generator=generator))
    box, _ = cutmix_box(height, width, lam=lam, centre=(y, x))
    return cutmix_by(images, labels, num_classes=num_classes, box=box)


def cutmix_box(
    height: int, width: int, *, lam: float, centre: tuple[int, int]
) -> tuple[Box, float]:
    """Return the box (y1, x1, y2, x2) clipped to the image, and the share it leaves of the image.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        lam: Share of the image that a box would leave if nothing of it were clipped.
        centre: The box's middle (y, x) in pixels.
    """
    y, x = centre
    half = 0.5 * math.sqrt(1.0 - lam)
    half_height, half_width = int(half * height), int(half * width)
    y1, y2 = max(y - half_height, 0), min(y + half_height, height)
    x1, x2 = max(x - half_width, 0), min(x + half_width, width)
    return (y1, x1, y2, x2), 1.0 - (y2 - y1) * (x2 - x1) / (height * width)


def cutmix_by(
    images: Tensor, labels: Tensor, *, num_classes: int, box: Box
) -> tuple[Tensor, Tensor]:
    """Put the box (y1, x1, y2, x2) of its neighbour into each image."""
    _check(images)
    y1, x1, y2, x2 = box
    lam = 1.0 - (y2 - y1) * (x2 - x1) / (images.shape[-2] * images.shape[-1])
    mixed = images.clone()
    mixed[..., y1:y2, x1:x2] = images.roll(1, 0)[..., y1:y2, x1:x2]
    return mixed, _blend(soft_targets(labels, num_classes, dtype=images.dtype), lam)


class Mixing:
    """Mixes every batch by one of mixup and CutMix, chosen evenly where both are on.

    Args:
        mixup_alpha: Mixup's parameter; 0 turns it off.
        cutmix_alpha: CutMix's parameter; 0 turns it off.
        num_classes: Number C of classes.
    """

    def __init__(
        self, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0, *, num_classes: int
    ) -> None:
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if alpha < 0:
                raise ZooError(f"{name} is {alpha}; expected a number of at least 0 (0: off)")
        self.choices = [
            (mix, alpha) for mix, alpha in ((mixup, mixup_alpha), (cutmix, cutmix_alpha)) if alpha
        ]
        self.num_classes = num_classes

    def __call__(
        self, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, H, W) and targets (N, C), mixed if anything is on.

        Args:
            images: Float (N, 3, H, W).
            labels: int64 (N), or targets (N, C).
            generator: Source of randomness, on the CPU.
        """
        if not self.choices:
            return images, soft_targets(labels, self.num_classes, dtype=images.dtype)
        chosen = 0
        if len(self.choices) > 1:
            chosen = int(torch.randint(len(self.choices), (), generator=generator))
        mix, alpha = self.choices[chosen]
        return mix(images, labels, num_classes=self.num_classes, alpha=alpha, generator=generator)


def _blend(values: Tensor, lam: float) -> Tensor:
    return values * lam + values.roll(1, 0) * (1.0 - lam)


def _check(images: Tensor) -> None:
    if not images.is_floating_point() or images.ndim != 4:
        raise TypeError(
            f"images are {images.dtype} {tuple(images.shape)}; expected float (N, 3, H, W)"
        )
