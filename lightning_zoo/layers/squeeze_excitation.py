from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Weight each channel by a gate that sees all channels' means.

    Paper: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507.

    Args:
        input_channels: Channels in and out.
        squeeze_channels: Channels between the two 1x1 convolutions.
        activation: Makes the activation between them.
        scale_activation: Makes the function that turns logits into gates.
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Callable[..., nn.Module] = nn.ReLU,
        scale_activation: Callable[..., nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def scale(self, x: Tensor) -> Tensor:
        """Return the gates ``(N, C, 1, 1)``."""
        x = self.activation(self.fc1(self.avgpool(x)))
        return self.scale_activation(self.fc2(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with its channels scaled."""
        return self.scale(x) * x
