"""MobileNet V2: inverted residuals, whose shortcuts join the narrow ends of the blocks.

Paper: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
https://arxiv.org/abs/1801.04381.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct, init_mobile_, make_divisible
from lightning_zoo.models.hub import register_model


class InvertedResidual(nn.Module):
    """Widen with 1x1, filter each channel with 3x3, narrow with 1x1 (without activation).

    Args:
        inp: Channels in.
        oup: Channels out.
        stride: 1 or 2; ``is_strided`` marks the blocks with 2, which end a resolution.
        expand_ratio: Channels inside, as a multiple of ``inp``; 1 leaves the first step out.
        norm_layer: Called with the number of channels; None for batch norm.
    """

    def __init__(
        self,
        inp: int,
        oup: int,
        stride: int,
        expand_ratio: int,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ZooError(f"stride is {stride}; expected 1 or 2")
        norm_layer = norm_layer or nn.BatchNorm2d
        act: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": nn.ReLU6}
        hidden = round(inp * expand_ratio)
        self.stride = stride
        self.use_res_connect = stride == 1 and inp == oup
        self.out_channels = oup
        self.is_strided = stride > 1
        layers: list[nn.Module] = []
        if expand_ratio != 1:
            layers.append(ConvNormAct(inp, hidden, 1, **act))
        layers += [
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden, **act),
            nn.Conv2d(hidden, oup, 1, bias=False),
            norm_layer(oup),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, oup, H', W')``."""
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


INVERTED_RESIDUAL_SETTING = (
    # expansion ratio, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """Image classifier.

    Args:
        num_classes: Number of logits.
        width_mult: Factor on every width; the last convolution never gets fewer than 1280.
        inverted_residual_setting: Rows of expansion ratio, channels, blocks, stride of the first.
        round_nearest: Widths are rounded to multiples of this.
        block: The class of a block.
        norm_layer: Called with the number of channels; None for batch norm.
        dropout: Probability of dropping a feature before the last layer.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] = INVERTED_RESIDUAL_SETTING,
        round_nearest: int = 8,
        block: Callable[..., nn.Module] = InvertedResidual,
        norm_layer: Callable[..., nn.Module] | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        norm_layer = norm_layer or nn.BatchNorm2d
        if not inverted_residual_setting or any(len(row) != 4 for row in inverted_residual_setting):
            raise ZooError(
                f"inverted_residual_setting is {inverted_residual_setting}; expected rows of "
                "four numbers: expansion ratio, channels, blocks, stride"
            )
        act: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": nn.ReLU6}
        channels = make_divisible(32 * width_mult, round_nearest)
        self.last_channel = make_divisible(1280 * max(1.0, width_mult), round_nearest)
        features: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, **act)]
        for expand_ratio, width, repeats, stride in inverted_residual_setting:
            out_channels = make_divisible(width * width_mult, round_nearest)
            for i in range(repeats):
                features.append(
                    block(
                        channels,
                        out_channels,
                        stride if i == 0 else 1,
                        expand_ratio=expand_ratio,
                        norm_layer=norm_layer,
                    )
                )
                channels = out_channels
        features.append(ConvNormAct(channels, self.last_channel, 1, **act))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout), nn.Linear(self.last_channel, num_classes)
        )
        init_mobile_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = self.features(images)  # (N, last_channel, H / 32, W / 32)
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


@register_model
def mobilenet_v2(**kwargs: Any) -> MobileNetV2:
    """MobileNet V2."""
    return MobileNetV2(**kwargs)
