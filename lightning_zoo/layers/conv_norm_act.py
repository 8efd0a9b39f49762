from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lightning_zoo.layers.conv_norm import conv_norm


class ConvNormAct(nn.Sequential):
    """Convolution, norm, activation: children 0, 1, 2, as the published files count them.

    A step that is left out takes no number: without a norm the activation is child 1.

    Args:
        in_channels: Channels in.
        out_channels: Channels out, see ``out_channels``.
        kernel_size: Side of the kernel, or (height, width).
        stride: Step in pixels.
        padding: Zeros on each side; None keeps the size at stride 1 (for odd kernels).
        dilation: Distance of the kernel's taps in pixels.
        groups: Groups of channels that do not see each other.
        bias: Whether the convolution has a bias; None gives it one where no norm follows.
        norm_layer: Called with the number of channels; None for no norm.
        activation_layer: Called with ``inplace=True``; None for no activation.
        inplace: Passed to ``activation_layer``; None for activations that take no such argument.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        *,
        padding: int | tuple[int, int] | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm_layer: Callable[..., nn.Module] | None = nn.BatchNorm2d,
        activation_layer: Callable[..., nn.Module] | None = nn.ReLU,
        inplace: bool | None = True,
    ) -> None:
        if padding is None:
            height, width = _pair(kernel_size)
            dilation_y, dilation_x = _pair(dilation)
            padding = ((height - 1) // 2 * dilation_y, (width - 1) // 2 * dilation_x)
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                bias=norm_layer is None if bias is None else bias,
            )
        ]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(
                activation_layer() if inplace is None else activation_layer(inplace=inplace)
            )
        super().__init__(*layers)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H', W')``."""
        layers = list(self)
        if len(layers) > 1:
            x = conv_norm(layers[0], layers[1], x)
            layers = layers[2:]
        for layer in layers:
            x = layer(x)
        return x


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
