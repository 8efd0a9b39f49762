"""ShuffleNet V2: halves of the channels that are worked on in turn and shuffled.

Paper: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
ECCV 2018, https://arxiv.org/abs/1807.11164.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct
from lightning_zoo.models.hub import register_model


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups: 0 1 2 3 4 5 in two groups gives 0 3 1 4 2 5."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class InvertedResidual(nn.Module):
    """Unit of two branches, shuffled after they are joined.

    With stride 1 the first branch is half of the input as it is; with stride 2 both branches see
    the whole input.

    Args:
        inp: Channels in.
        oup: Channels out, an even number; equal to ``inp`` with stride 1.
        stride: 1 or 2.
    """

    def __init__(self, inp: int, oup: int, stride: int) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ZooError(f"stride is {stride}; expected 1 or 2")
        if stride == 1 and inp != oup:
            raise ZooError(f"{inp} channels in, {oup} out; with stride 1 they are equal")
        if oup % 2:
            raise ZooError(f"oup is {oup}; expected an even number")
        self.stride = stride
        half = oup // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                nn.Conv2d(inp, inp, 3, stride, padding=1, groups=inp, bias=False),
                nn.BatchNorm2d(inp),
                nn.Conv2d(inp, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(inp if stride > 1 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, stride, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` joins and shuffles."""
        if self.stride == 1:
            kept, worked = x.chunk(2, dim=1)
            return [kept, self.branch2(worked)]
        return [self.branch1(x), self.branch2(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, oup, H', W')``."""
        return channel_shuffle(torch.cat(self.branches(x), dim=1), 2)


class ShuffleNetV2(nn.Module):
    """Image classifier.

    Args:
        stages_repeats: Units in each of the three stages, the first of each with stride 2.
        stages_out_channels: Channels of the stem, of the three stages and of the last convolution.
        num_classes: Number of logits.
        inverted_residual: The class of a unit.
    """

    def __init__(
        self,
        stages_repeats: Sequence[int],
        stages_out_channels: Sequence[int],
        *,
        num_classes: int = 1000,
        inverted_residual: Callable[..., nn.Module] = InvertedResidual,
    ) -> None:
        super().__init__()
        if len(stages_repeats) != 3:
            raise ZooError(f"stages_repeats has {len(stages_repeats)} entries; expected 3")
        if len(stages_out_channels) != 5:
            raise ZooError(
                f"stages_out_channels has {len(stages_out_channels)} entries; expected 5"
            )
        stem, *widths, last = stages_out_channels
        self.conv1 = ConvNormAct(3, stem, 3, 2)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stages: list[nn.Sequential] = []
        channels = stem
        for repeats, width in zip(stages_repeats, widths, strict=True):
            units = [inverted_residual(channels, width, 2)]
            units += [inverted_residual(width, width, 1) for _ in range(repeats - 1)]
            stages.append(nn.Sequential(*units))
            channels = width
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = ConvNormAct(channels, last, 1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = self.maxpool(self.conv1(images))  # (N, C, H / 4, W / 4)
        x = self.stage4(self.stage3(self.stage2(x)))  # (N, C, H / 32, W / 32)
        return self.fc(self.conv5(x).mean(dim=(2, 3)))


@register_model
def shufflenet_v2_x0_5(**kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet V2 of half the width."""
    return ShuffleNetV2([4, 8, 4], [24, 48, 96, 192, 1024], **kwargs)


@register_model
def shufflenet_v2_x1_0(**kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet V2."""
    return ShuffleNetV2([4, 8, 4], [24, 116, 232, 464, 1024], **kwargs)


@register_model
def shufflenet_v2_x1_5(**kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet V2 of 1.5 times the width."""
    return ShuffleNetV2([4, 8, 4], [24, 176, 352, 704, 1024], **kwargs)


@register_model
def shufflenet_v2_x2_0(**kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet V2 of twice the width."""
    return ShuffleNetV2([4, 8, 4], [24, 244, 488, 976, 2048], **kwargs)
