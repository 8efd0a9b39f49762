"""Video ResNets: residual networks whose convolutions see several frames.

Paper: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR
2018, https://arxiv.org/abs/1711.11248.
Differs from the paper: the second convolution of a block is factorised with the hidden width of the
first, as in the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.layers import channels_last_on_cpu
from lightning_zoo.models.hub import register_model

MakeConv = Callable[[int, int, int, int], nn.Module]
"""Makes a 3x3 convolution from channels in, channels out, hidden channels and stride."""


class Conv3D(nn.Conv3d):
    """3x3x3 convolution without bias: 3 frames, 3 rows, 3 columns.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        hidden_channels: Not used.
        stride: Step in frames and in pixels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, hidden_channels: int, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=False)


class ConvNoTemporal(nn.Conv3d):
    """1x3x3 convolution without bias: each frame by itself, and all frames are kept.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        hidden_channels: Not used.
        stride: Step in pixels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, hidden_channels: int, stride: int = 1
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            (1, 3, 3),
            (1, stride, stride),
            padding=(0, 1, 1),
            bias=False,
        )


class TemporalConv(nn.Conv3d):
    """3x1x1 convolution without bias: each pixel by itself.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        stride: Step in frames.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, T', H, W)``, on a CPU by a convolution of frames and pixels.

        That one has the quicker gradients.
        """
        if x.device.type != "cpu":
            return super().forward(x)
        n, channels, frames, height, width = x.shape
        x = x.reshape(n, channels, frames, height * width)
        x = F.conv2d(x, self.weight[..., 0], None, (self.stride[0], 1), (1, 0))
        return x.view(n, self.out_channels, x.shape[2], height, width)


class Conv2Plus1D(nn.Sequential):
    """1x3x3 and 3x1x1 convolutions without bias, with norm and ReLU between them.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        hidden_channels: Channels between the two.
        stride: Step in frames and in pixels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, hidden_channels: int, stride: int = 1
    ) -> None:
        super().__init__(
            ConvNoTemporal(in_channels, hidden_channels, 0, stride),
            nn.BatchNorm3d(hidden_channels),
            nn.ReLU(inplace=True),
            TemporalConv(hidden_channels, out_channels, stride),
        )


def hidden_width(in_channels: int, out_channels: int) -> int:
    """Return the hidden channels that give a 2+1-D convolution the parameters of a 3-D one."""
    return in_channels * out_channels * 27 // (in_channels * 9 + 3 * out_channels)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        in_channels: Channels of the input.
        planes: Channels of both convolutions.
        make_conv: Makes the convolutions.
        stride: Step of the first convolution.
        downsample: Shortcut where it changes the shape; left out, the input itself.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        make_conv: MakeConv,
        stride: int = 1,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(in_channels, planes)  # of both convolutions
        self.conv1 = nn.Sequential(
            make_conv(in_channels, planes, hidden, stride),
            nn.BatchNorm3d(planes),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(make_conv(planes, planes, hidden, 1), nn.BatchNorm3d(planes))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, planes, T', H', W')`` for ``(N, in_channels, T, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv2(self.conv1(x))
        x += shortcut
        return self.relu(x)


CONVOLUTIONS: dict[str, tuple[MakeConv, MakeConv]] = {
    "3d": (Conv3D, Conv3D),
    "mixed": (Conv3D, ConvNoTemporal),
    "2plus1d": (Conv2Plus1D, Conv2Plus1D),
}
"""Convolutions of the first stage and of the others."""


class VideoResNet(nn.Module):
    """Classifier of clips.

    Args:
        conv: ``"3d"``; ``"mixed"`` for 3-D convolutions in the first stage and 2-D ones, which keep
            all frames, after it; ``"2plus1d"`` for pairs of a 2-D convolution over the pixels and
            a 1-D one over the frames.
        layers: Blocks in each stage.
        widths: Channels of each stage, as many as ``layers``.
        num_classes: Number of logits.

    Raises:
        ZooError: If there is no such ``conv``, or as many widths as layers are missing.
    """

    def __init__(
        self,
        conv: str = "3d",
        layers: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        num_classes: int = 400,
    ) -> None:
        super().__init__()
        if conv not in CONVOLUTIONS:
            raise unknown("conv", conv, CONVOLUTIONS)
        if len(widths) != len(layers) or not layers:
            raise ZooError(f"layers is {list(layers)} and widths {list(widths)}; expected as many")
        # on a CPU 0.9 of the time; the 1-D convolutions over frames would take 1.5 times as long
        self.is_quick_with_channels_last = conv != "2plus1d"
        in_channels = widths[0]
        self.stem = nn.Sequential(*_stem(conv, in_channels))
        first, others = CONVOLUTIONS[conv]
        self.num_stages = len(layers)
        for i, (depth, width) in enumerate(zip(layers, widths, strict=True)):
            make_conv = others if i else first
            blocks: list[nn.Module] = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                downsample = None
                if stride != 1 or in_channels != width:
                    steps = (1, stride, stride) if make_conv is ConvNoTemporal else stride
                    downsample = nn.Sequential(
                        nn.Conv3d(in_channels, width, 1, steps, bias=False),
                        nn.BatchNorm3d(width),
                    )
                blocks.append(BasicBlock(in_channels, width, make_conv, stride, downsample))
                in_channels = width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(in_channels, num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised clips ``(N, 3, T, H, W)``."""
        if self.is_quick_with_channels_last:
            clips = channels_last_on_cpu(clips)
        x = self.stem(clips)  # (N, C, T, H / 2, W / 2)
        for i in range(self.num_stages):
            x = self.get_submodule(f"layer{i + 1}")(x)  # T, H and W halve from the second on
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stem(conv: str, width: int) -> list[nn.Module]:
    if conv != "2plus1d":
        first = nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False)
        return [first, nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
    hidden = 45
    return [
        nn.Conv3d(3, hidden, (1, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(hidden),
        nn.ReLU(inplace=True),
        TemporalConv(hidden, width),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    ]


@register_model
def r3d_18(**kwargs: Any) -> VideoResNet:
    """ResNet-18 of 3-D convolutions."""
    return VideoResNet("3d", **kwargs)


@register_model
def mc3_18(**kwargs: Any) -> VideoResNet:
    """ResNet-18 of 3-D convolutions in its first stage and 2-D ones after it."""
    return VideoResNet("mixed", **kwargs)


@register_model
def r2plus1d_18(**kwargs: Any) -> VideoResNet:
    """ResNet-18 of pairs of 2-D convolutions over the pixels and 1-D ones over the frames."""
    return VideoResNet("2plus1d", **kwargs)


@register_model
def video_resnet(**kwargs: Any) -> VideoResNet:
    """ResNet of any depth and width over clips, see :class:`VideoResNet`."""
    return VideoResNet(**kwargs)
