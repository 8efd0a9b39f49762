from __future__ import annotations

import torch
from torch import Tensor


def channels_last_on_cpu(images: Tensor) -> Tensor:
    """Return images ``(N, C, [T,] H, W)`` with the channels of a pixel side by side, if on a CPU.

    All maps of a convolutional network keep that order. In it dilated convolutions take down to
    half the time of torch's usual order, forward; backward the plain ones of many channels take up
    to 1.6 times as long.
    """
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    if images.device.type != "cpu" or images.ndim not in orders:
        return images
    return images.contiguous(memory_format=orders[images.ndim])
