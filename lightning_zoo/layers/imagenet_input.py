from __future__ import annotations

import torch
from torch import Tensor


def imagenet_to_half_range(images: Tensor) -> Tensor:
    """Turn images ``(N, 3, H, W)`` normalised with ImageNet's statistics into ones in [-1, 1].

    The Inception nets' published weights were ported from TensorFlow, where mean and standard
    deviation of every channel are 0.5.
    """
    red, green, blue = torch.split(images, 1, dim=1)
    red = red * (0.229 / 0.5) + (0.485 - 0.5) / 0.5
    green = green * (0.224 / 0.5) + (0.456 - 0.5) / 0.5
    blue = blue * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
    return torch.cat([red, green, blue], dim=1)
