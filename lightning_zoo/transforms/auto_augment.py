"""AutoAugment, RandAugment and TrivialAugment on Pillow images, as the reference ran them.

Papers: Cubuk et al., "AutoAugment", CVPR 2019, https://arxiv.org/abs/1805.09501; Cubuk et al.,
"RandAugment", 2019, https://arxiv.org/abs/1909.13719; Müller and Hutter, "TrivialAugment", ICCV
2021, https://arxiv.org/abs/2103.10158.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from lightning_zoo.errors import unknown

# one operation: image, magnitude, resampling -> image
Op = Callable[[Image.Image, float, Image.Resampling], Image.Image]
Space = dict[str, tuple[NDArray[np.float64] | None, bool]]  # magnitudes by bin; whether signed


class Policy(Protocol):
    """Augments uint8 (H, W, 3) with the randomness of ``rng``."""

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an augmented copy."""
        ...


def _affine(
    image: Image.Image, matrix: tuple[float, ...], resampling: Image.Resampling
) -> Image.Image:
    """Apply the map from output to input positions (a, b, c, d, e, f), black outside."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resampling, fillcolor=0)


def _shear_x(image: Image.Image, shear: float, resampling: Image.Resampling) -> Image.Image:
    # about the upper left corner, not the middle, as in the paper's code
    slope = math.tan(_angle(shear))
    return _affine(image, (1.0, slope, 0.0, 0.0, 1.0, 0.0), resampling)


def _shear_y(image: Image.Image, shear: float, resampling: Image.Resampling) -> Image.Image:
    slope = math.sin(_angle(shear)) / math.cos(_angle(shear))
    return _affine(image, (1.0, 0.0, 0.0, slope, 1.0, 0.0), resampling)


def _angle(shear: float) -> float:
    # to degrees and back: the last bits decide which of two pixels is the nearest
    return math.radians(math.degrees(math.atan(shear)))


def _translate_x(image: Image.Image, pixels: float, resampling: Image.Resampling) -> Image.Image:
    return _affine(image, (1.0, 0.0, -int(pixels), 0.0, 1.0, 0.0), resampling)


def _translate_y(image: Image.Image, pixels: float, resampling: Image.Resampling) -> Image.Image:
    return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, -int(pixels)), resampling)


def _rotate(image: Image.Image, degrees: float, resampling: Image.Resampling) -> Image.Image:
    return image.rotate(degrees, resampling, fillcolor=0)


def _posterize(image: Image.Image, bits: float, resampling: Image.Resampling) -> Image.Image:
    return ImageOps.posterize(image, int(bits))


def _solarize(image: Image.Image, threshold: float, resampling: Image.Resampling) -> Image.Image:
    return ImageOps.solarize(image, threshold)  # type: ignore[arg-type]  # compares, so floats do


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Op:
    return lambda image, magnitude, resampling: kind(image).enhance(1.0 + magnitude)


OPS: dict[str, Op] = {
    "Identity": lambda image, magnitude, resampling: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": lambda image, magnitude, resampling: ImageOps.autocontrast(image),
    "Equalize": lambda image, magnitude, resampling: ImageOps.equalize(image),
    "Invert": lambda image, magnitude, resampling: ImageOps.invert(image),
}

# the 25 sub-policies found on ImageNet (table 9 of the AutoAugment paper):
# operation, probability in tenths, magnitude bin; twice
_IMAGENET = """
Posterize 4 8 Rotate 6 9, Solarize 6 5 AutoContrast 6 0, Equalize 8 0 Equalize 6 0
Posterize 6 7 Posterize 6 6, Equalize 4 0 Solarize 2 4, Equalize 4 0 Rotate 8 8
Solarize 6 3 Equalize 6 0, Posterize 8 5 Equalize 10 0, Rotate 2 3 Solarize 6 8
Equalize 6 0 Posterize 4 6, Rotate 8 8 Color 4 0, Rotate 4 9 Equalize 6 0
Equalize 0 0 Equalize 8 0, Invert 6 0 Equalize 10 0, Color 6 4 Contrast 10 8
Rotate 8 8 Color 10 2, Color 8 8 Solarize 8 7, Sharpness 4 7 Invert 6 0
ShearX 6 5 Equalize 10 0, Color 4 0 Equalize 6 0, Equalize 4 0 Solarize 2 4
Solarize 6 5 AutoContrast 6 0, Invert 6 0 Equalize 10 0, Color 6 4 Contrast 10 8
Equalize 8 0 Equalize 6 0
"""


def _parse(table: str) -> list[list[tuple[str, float, int]]]:
    policies = []
    for policy in table.replace("\n", ",").split(","):
        words = policy.split()
        if words:
            policies.append([(words[i], int(words[i + 1]) / 10, int(words[i + 2])) for i in (0, 3)])
    return policies


IMAGENET_POLICIES = _parse(_IMAGENET)


def magnitudes(
    bins: int,
    *,
    shear: float,
    translate_x: float,
    translate_y: float,
    rotate: float,
    enhance: float,
    posterize: int,
) -> Space:
    """Return the magnitudes of every operation that has some, in ``bins`` steps up to the largest.

    Args:
        bins: Number of steps, the weakest first.
        shear: Largest shear, as a tangent.
        translate_x: Largest shift to the side in pixels.
        translate_y: Largest shift up or down in pixels.
        rotate: Largest angle in degrees.
        enhance: Largest change of brightness, colour, contrast and sharpness.
        posterize: Bits of 8 that the strongest step takes away.
    """

    def up_to(largest: float) -> NDArray[np.float64]:
        return np.linspace(0.0, largest, bins)

    space: Space = {
        "ShearX": (up_to(shear), True),
        "ShearY": (up_to(shear), True),
        "TranslateX": (up_to(translate_x), True),
        "TranslateY": (up_to(translate_y), True),
        "Rotate": (up_to(rotate), True),
    }
    space |= {
        name: (up_to(enhance), True) for name in ("Brightness", "Color", "Contrast", "Sharpness")
    }
    space["Posterize"] = (8 - np.round(np.arange(bins) / ((bins - 1) / posterize)), False)
    space["Solarize"] = (np.linspace(255.0, 0.0, bins), False)
    space |= {"AutoContrast": (None, False), "Equalize": (None, False)}
    return space


def auto_augment_space(height: int, width: int) -> Space:
    """Return AutoAugment's magnitudes for an image of this size in pixels."""
    space = _published_space(10, height, width)
    return {**space, "Invert": (None, False)}


def rand_augment_space(height: int, width: int) -> Space:
    """Return RandAugment's magnitudes for an image of this size in pixels."""
    return {"Identity": (None, False), **_published_space(31, height, width)}


def trivial_augment_space() -> Space:
    """Return the magnitudes of TrivialAugment's wide space."""
    space = magnitudes(
        31,
        shear=0.99,
        translate_x=32.0,
        translate_y=32.0,
        rotate=135.0,
        enhance=0.99,
        posterize=6,
    )
    return {"Identity": (None, False), **space}


def _published_space(bins: int, height: int, width: int) -> Space:
    return magnitudes(
        bins,
        shear=0.3,
        translate_x=150.0 / 331.0 * width,
        translate_y=150.0 / 331.0 * height,
        rotate=30.0,
        enhance=0.9,
        posterize=4,
    )


class _PillowPolicy:
    """Base of the three policies.

    Args:
        interpolation: ``"nearest"`` or ``"bilinear"``, for shear, shift and rotation.
    """

    def __init__(self, interpolation: str = "nearest") -> None:
        table = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
        if interpolation not in table:
            raise unknown("auto_augment_interpolation", interpolation, table)
        self.resampling = table[interpolation]

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return uint8 (H, W, 3) for uint8 (H, W, 3)."""
        return np.array(self.augment(Image.fromarray(np.ascontiguousarray(image)), rng))

    def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented image."""
        raise NotImplementedError

    def _apply(
        self, image: Image.Image, space: Space, name: str, bin_: int, rng: np.random.Generator
    ) -> Image.Image:
        steps, signed = space[name]
        magnitude = 0.0 if steps is None else float(steps[bin_])
        if signed and rng.random() < 0.5:
            magnitude = -magnitude
        return OPS[name](image, magnitude, self.resampling)


class AutoAugment(_PillowPolicy):
    """One of the 25 sub-policies found on ImageNet: two operations, each by its own chance."""

    def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented image."""
        space = auto_augment_space(image.height, image.width)
        for name, probability, bin_ in IMAGENET_POLICIES[rng.integers(len(IMAGENET_POLICIES))]:
            if rng.random() < probability:
                image = self._apply(image, space, name, bin_, rng)
        return image


class RandAugment(_PillowPolicy):
    """Two operations drawn evenly, both at magnitude 9 of 30."""

    num_ops = 2
    magnitude = 9

    def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented image."""
        space = rand_augment_space(image.height, image.width)
        names = list(space)
        for _ in range(self.num_ops):
            name = names[rng.integers(len(names))]
            image = self._apply(image, space, name, self.magnitude, rng)
        return image


class TrivialAugment(_PillowPolicy):
    """One operation drawn evenly, at a magnitude drawn evenly from the wide space."""

    def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented image."""
        space = trivial_augment_space()
        names = list(space)
        name = names[rng.integers(len(names))]
        return self._apply(image, space, name, int(rng.integers(31)), rng)


POLICIES: dict[str, type[_PillowPolicy]] = {
    "imagenet": AutoAugment,
    "rand": RandAugment,
    "trivial": TrivialAugment,
}


def make_policy(name: str | None, interpolation: str = "nearest") -> Policy | None:
    """Return the policy called ``name``, None for None.

    Raises:
        ZooError: If there is no such policy or interpolation.
    """
    if name is None:
        return None
    if name not in POLICIES:
        raise unknown("auto_augment", name, POLICIES)
    return POLICIES[name](interpolation)
