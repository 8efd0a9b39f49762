from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm with eps 1e-3, ReLU: the unit of the Inception nets.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kwargs: Passed to ``nn.Conv2d``: ``kernel_size``, ``stride``, ``padding``.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H', W')``."""
        return F.relu(self.bn(self.conv(x)), inplace=True)
