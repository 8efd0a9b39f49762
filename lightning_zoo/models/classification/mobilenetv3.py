"""MobileNet V3: inverted residuals found by search, with squeeze-and-excitation and hard-swish.

Paper: Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct, SqueezeExcitation, init_mobile_, make_divisible
from lightning_zoo.models.hub import register_model


@dataclass(frozen=True)
class InvertedResidualConfig:
    """One block of the network.

    Attributes:
        input_channels: Channels in.
        kernel: Side of the depthwise kernel.
        expanded_channels: Channels inside; as many as come in leaves the widening out.
        out_channels: Channels out.
        use_se: Whether squeeze-and-excitation follows the depthwise convolution.
        activation: ``"RE"`` for ReLU, ``"HS"`` for hard-swish.
        stride: 1 or 2. It is 2 also where dilation replaces it, so that the block is marked.
        dilation: Distance of the depthwise kernel's taps; above 1 the block keeps the resolution.
    """

    input_channels: int
    kernel: int
    expanded_channels: int
    out_channels: int
    use_se: bool
    activation: str
    stride: int
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.activation not in ("RE", "HS"):
            raise ZooError(f"activation is {self.activation!r}; expected 'RE' or 'HS'")
        if self.stride not in (1, 2):
            raise ZooError(f"stride is {self.stride}; expected 1 or 2")


HARD_SE = partial(SqueezeExcitation, scale_activation=nn.Hardsigmoid)


class InvertedResidual(nn.Module):
    """Widen with 1x1, filter each channel, weight the channels, narrow with 1x1.

    ``is_strided`` marks the blocks that end a resolution (or would, were they not dilated):
    backbones find their feature maps by it.

    Args:
        cnf: What the block looks like.
        norm_layer: Called with the number of channels.
        se_layer: Called with the channels and the squeezed channels.
    """

    def __init__(
        self,
        cnf: InvertedResidualConfig,
        norm_layer: Callable[..., nn.Module],
        se_layer: Callable[..., nn.Module] = HARD_SE,
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if cnf.activation == "HS" else nn.ReLU
        act: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": activation}
        expanded = cnf.expanded_channels
        layers: list[nn.Module] = []
        if expanded != cnf.input_channels:
            layers.append(ConvNormAct(cnf.input_channels, expanded, 1, **act))
        layers.append(
            ConvNormAct(
                expanded,
                expanded,
                cnf.kernel,
                1 if cnf.dilation > 1 else cnf.stride,
                dilation=cnf.dilation,
                groups=expanded,
                **act,
            )
        )
        if cnf.use_se:
            layers.append(se_layer(expanded, make_divisible(expanded // 4)))
        layers.append(
            ConvNormAct(expanded, cnf.out_channels, 1, norm_layer=norm_layer, activation_layer=None)
        )
        self.block = nn.Sequential(*layers)
        self.use_res_connect = cnf.stride == 1 and cnf.input_channels == cnf.out_channels
        self.out_channels = cnf.out_channels
        self.is_strided = cnf.stride > 1

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H', W')``."""
        return x + self.block(x) if self.use_res_connect else self.block(x)


class MobileNetV3(nn.Module):
    """Image classifier.

    Args:
        inverted_residual_setting: The blocks, from high resolution to low.
        last_channel: Channels of the hidden layer before the logits.
        num_classes: Number of logits.
        block: The class of a block.
        norm_layer: Called with the number of channels; None for batch norm with eps 1e-3 and
            momentum 0.01.
        dropout: Probability of dropping a feature before the last layer.
    """

    def __init__(
        self,
        inverted_residual_setting: Sequence[InvertedResidualConfig],
        last_channel: int,
        *,
        num_classes: int = 1000,
        block: Callable[..., nn.Module] = InvertedResidual,
        norm_layer: Callable[..., nn.Module] | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not inverted_residual_setting:
            raise ZooError("inverted_residual_setting is empty; expected at least one block")
        norm_layer = norm_layer or partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
        act: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": nn.Hardswish}
        in_channels = inverted_residual_setting[0].input_channels
        out_channels = inverted_residual_setting[-1].out_channels
        self.features = nn.Sequential(
            ConvNormAct(3, in_channels, 3, 2, **act),
            *(block(cnf, norm_layer) for cnf in inverted_residual_setting),
            ConvNormAct(out_channels, 6 * out_channels, 1, **act),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * out_channels, last_channel),
            nn.Hardswish(inplace=True),
            nn.Dropout(p=dropout, inplace=True),
            nn.Linear(last_channel, num_classes),
        )
        init_mobile_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = self.features(images)  # (N, C, H / 32, W / 32); dilated: (N, C, H / 16, W / 16)
        return self.classifier(self.avgpool(x).flatten(1))


Table = Sequence[tuple[int, int, int, bool, str, int]]
"""Rows of kernel, expanded channels, output channels, squeeze-and-excitation, activation, stride.

The first row does not expand: its second number is also the stem's width."""

LARGE: Table = [
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
]

SMALL: Table = [
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
]


def configure(
    table: Table,
    last_channel: int,
    width_mult: float = 1.0,
    reduced_tail: bool = False,
    dilated: bool = False,
) -> tuple[list[InvertedResidualConfig], int]:
    """Return the first arguments of :class:`MobileNetV3`: the blocks and the hidden layer's width.

    Args:
        table: One row a block; the last three are the last stage.
        last_channel: Channels of the hidden layer.
        width_mult: Factor on every width; all are rounded to multiples of 8.
        reduced_tail: Halve the widths of the last stage and of the hidden layer.
        dilated: Let the last stage keep the resolution and dilate its kernels instead.
    """
    tail = len(table) - 3
    in_channels = make_divisible(table[0][1] * width_mult)
    rows: list[InvertedResidualConfig] = []
    for i, (kernel, expanded, out_channels, use_se, activation, stride) in enumerate(table):
        if reduced_tail and i >= tail:
            out_channels //= 2
            if i > tail:  # the stage's first block widens what the stage before gives
                expanded //= 2
        row = InvertedResidualConfig(
            in_channels,
            kernel,
            make_divisible(expanded * width_mult),
            make_divisible(out_channels * width_mult),
            use_se,
            activation,
            stride,
            2 if dilated and i >= tail else 1,
        )
        rows.append(row)
        in_channels = row.out_channels
    return rows, make_divisible(last_channel // (2 if reduced_tail else 1) * width_mult)


@register_model
def mobilenet_v3_large(
    *, width_mult: float = 1.0, reduced_tail: bool = False, dilated: bool = False, **kwargs: Any
) -> MobileNetV3:
    """MobileNet V3 large; for the options see :func:`configure`."""
    return MobileNetV3(*configure(LARGE, 1280, width_mult, reduced_tail, dilated), **kwargs)


@register_model
def mobilenet_v3_small(
    *, width_mult: float = 1.0, reduced_tail: bool = False, dilated: bool = False, **kwargs: Any
) -> MobileNetV3:
    """MobileNet V3 small; for the options see :func:`configure`."""
    return MobileNetV3(*configure(SMALL, 1024, width_mult, reduced_tail, dilated), **kwargs)
