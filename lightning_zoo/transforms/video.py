"""Training and evaluation transforms of clips: uint8 RGB (T, H, W, 3) in, uint8 (3, T, S, S) out.

The reference resized float tensors bilinearly **without** antialiasing, both sides to a fixed size,
and the published accuracies were measured so. Frames stay uint8 here and are resized by OpenCV's
bilinear filter, which has the same centres and no antialiasing either: every byte is within 1 of
the reference's value, 0.27 away on average (rounding alone is 0.25). Clips are normalised later, on
the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_zoo.errors import ZooError

Clip = NDArray[np.uint8]


def resize_frames(clip: Clip, height: int, width: int) -> Clip:
    """Return uint8 (T, height, width, 3) for (T, H, W, 3), bilinear and not antialiased."""
    import cv2

    if clip.shape[1:3] == (height, width):
        return clip
    resized = np.empty((len(clip), height, width, 3), np.uint8)
    for frame, out in zip(clip, resized, strict=True):
        cv2.resize(frame, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    return resized


def to_tensor(clip: Clip) -> Tensor:
    """Return uint8 (3, T, H, W), its values in order, for uint8 (T, H, W, 3)."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)))


class EvalTransform:
    """Resize both sides, cut out the centre.

    Args:
        resize: Height and width in pixels that every frame gets, whatever its shape.
        crop: Side of the square in pixels.
    """

    def __init__(self, resize: Sequence[int] = (128, 171), crop: int = 112) -> None:
        self.resize = check_sizes("eval", resize, crop)
        self.crop = crop

    def __call__(self, clip: Clip, rng: np.random.Generator | None = None) -> Tensor:
        """Return uint8 (3, T, crop, crop) for uint8 (T, H, W, 3); ``rng`` is not used."""
        height, width = self.resize
        y, x = round((height - self.crop) / 2), round((width - self.crop) / 2)
        resized = resize_frames(clip, height, width)
        return to_tensor(resized[:, y : y + self.crop, x : x + self.crop])


class TrainTransform:
    """Resize both sides, flip, cut out one random window: alike in all frames of a clip.

    Args:
        resize: Height and width in pixels that every frame gets, whatever its shape.
        crop: Side of the window in pixels.
        flip: Chance of mirroring.
    """

    def __init__(
        self, resize: Sequence[int] = (128, 171), crop: int = 112, *, flip: float = 0.5
    ) -> None:
        if not 0 <= flip <= 1:
            raise ZooError(f"flip is {flip}; expected a probability from 0 to 1")
        self.resize = check_sizes("train", resize, crop)
        self.crop = crop
        self.flip = flip

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Tensor:
        """Return uint8 (3, T, crop, crop) for uint8 (T, H, W, 3)."""
        height, width = self.resize
        flip = bool(rng.random() < self.flip)
        y = int(rng.integers(height - self.crop + 1))
        x = int(rng.integers(width - self.crop + 1))
        window = resize_frames(clip, height, width)[:, y : y + self.crop, x : x + self.crop]
        return to_tensor(window[:, :, ::-1] if flip else window)


def check_sizes(split: str, resize: Sequence[int], crop: int) -> tuple[int, int]:
    """Return ``resize`` as (height, width).

    Raises:
        ZooError: If it is no pair of sizes, or the crop does not fit into it.
    """
    if len(resize) != 2 or min(resize) < 1:
        raise ZooError(
            f"{split}_resize is {list(resize)}; expected height and width in pixels, as [128, 171]"
        )
    height, width = resize
    if not 1 <= crop <= min(height, width):
        raise ZooError(
            f"{split}_crop is {crop}; expected 1 to {min(height, width)} pixels, as {split}_resize "
            f"is {height}x{width}"
        )
    return height, width
