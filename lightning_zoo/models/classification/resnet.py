"""ResNet, ResNeXt and Wide ResNet: stacks of residual blocks.

Papers: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385; Xie et al., "Aggregated Residual Transformations for Deep Neural
Networks", CVPR 2017, https://arxiv.org/abs/1611.05431 (ResNeXt: grouped 3x3 convolutions);
Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, https://arxiv.org/abs/1605.07146.
Differs from the paper: the bottleneck's stride is on its 3x3 convolution, not on the first 1x1
(known as v1.5); the wide networks widen the 3x3 convolutions of the bottleneck alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct, conv_norm
from lightning_zoo.models.hub import register_model

NormLayer = Callable[[int], nn.Module]


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """3x3 convolution without bias that keeps H and W at stride 1."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
    )


def conv1x1(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        in_channels: Channels of the input.
        planes: Channels of both convolutions.
        stride: Stride of the first convolution.
        downsample: Shortcut where it changes the shape; left out, the input itself.
        groups: 1; other values are the bottleneck's.
        base_width: 64; other values are the bottleneck's.
        dilation: 1; other values are the bottleneck's.
        norm_layer: Makes a norm from the number of channels.

    Raises:
        ZooError: If an argument has a value that is the bottleneck's.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        for argument, value, expected in (
            ("groups", groups, 1),
            ("width_per_group", base_width, 64),
            ("dilation", dilation, 1),
        ):
            if value != expected:
                raise ZooError(
                    f"{argument}={value} needs bottleneck blocks (resnet50 and deeper); "
                    f"the basic block has {argument}={expected} only"
                )
        self.conv1 = conv3x3(in_channels, planes, stride=stride)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, planes, H / stride, W / stride)`` for ``(N, in_channels, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(conv_norm(self.conv1, self.bn1, x))
        x = conv_norm(self.conv2, self.bn2, x)
        x += shortcut
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut.

    Args:
        in_channels: Channels of the input.
        planes: The output has four times as many channels.
        stride: Stride of the 3x3 convolution.
        downsample: Shortcut where it changes the shape; left out, the input itself.
        groups: Groups of the 3x3 convolution.
        base_width: Channels of one group where ``planes`` is 64.
        dilation: Dilation of the 3x3 convolution.
        norm_layer: Makes a norm from the number of channels.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        width = int(planes * base_width / 64) * groups
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = norm_layer(width)
        self.relu1 = nn.ReLU(inplace=True)  # one each, so that they fuse with their convolutions
        self.conv2 = conv3x3(width, width, stride=stride, groups=groups, dilation=dilation)
        self.bn2 = norm_layer(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = norm_layer(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 4 * planes, H / stride, W / stride)`` for ``(N, in_channels, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(conv_norm(self.conv1, self.bn1, x))
        x = self.relu2(conv_norm(self.conv2, self.bn2, x))
        x = conv_norm(self.conv3, self.bn3, x)
        x += shortcut
        return self.relu(x)


class ResNet(nn.Module):
    """Image classifier; its four stages are the backbones of segmentation and detection.

    Args:
        block: Residual block.
        layers: Blocks in each of the four stages.
        num_classes: Number of logits.
        zero_init_residual: Start the last norm of each block at 0, so that the block begins as its
            shortcut (https://arxiv.org/abs/1706.02677).
        groups: Groups of the 3x3 convolutions.
        width_per_group: Channels of one group in the first stage.
        replace_stride_with_dilation: For each of stages 2 to 4, whether it keeps the resolution
            and dilates its 3x3 convolutions instead.
        norm_layer: Makes a norm from the number of channels; left out, ``nn.BatchNorm2d``.

    Raises:
        ZooError: If ``replace_stride_with_dilation`` has not three values.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        *,
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        dilate = replace_stride_with_dilation or (False, False, False)
        if len(dilate) != 3:
            raise ZooError(
                "replace_stride_with_dilation takes three values, for layer2, layer3 and layer4, "
                f"not {replace_stride_with_dilation!r}"
            )
        norm_layer = norm_layer or nn.BatchNorm2d
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        in_channels, dilation = 64, 1
        stages: list[nn.Sequential] = []
        for i, depth in enumerate(layers):
            planes = 64 * 2**i
            stride = 1 if i == 0 else 2
            first_dilation = dilation  # of the stage before: its receptive field is not dilated yet
            if i > 0 and dilate[i - 1]:
                dilation, stride = dilation * stride, 1
            blocks: list[nn.Module] = []
            for j in range(depth):
                downsample = None
                if j == 0 and (stride != 1 or in_channels != planes * block.expansion):
                    downsample = ConvNormAct(
                        in_channels,
                        planes * block.expansion,
                        1,
                        stride,
                        bias=False,
                        norm_layer=norm_layer,
                        activation_layer=None,
                    )
                blocks.append(
                    block(
                        in_channels,
                        planes,
                        stride=stride if j == 0 else 1,
                        downsample=downsample,
                        groups=groups,
                        base_width=width_per_group,
                        dilation=first_dilation if j == 0 else dilation,
                        norm_layer=norm_layer,
                    )
                )
                in_channels = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(in_channels, num_classes)
        self._init_weights(zero_init_residual)

    def _init_weights(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                    if isinstance(last.weight, Tensor):
                        nn.init.zeros_(last.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = self.relu(conv_norm(self.conv1, self.bn1, images))
        x = self.maxpool(x)  # (N, 64, H / 4, W / 4)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)  # (N, 512 * expansion, H / 32, W / 32)
        x = self.avgpool(x)
        return self.fc(torch.flatten(x, 1))


@register_model
def resnet18(**kwargs: Any) -> ResNet:
    """ResNet-18."""
    return ResNet(BasicBlock, [2, 2, 2, 2], **kwargs)


@register_model
def resnet34(**kwargs: Any) -> ResNet:
    """ResNet-34."""
    return ResNet(BasicBlock, [3, 4, 6, 3], **kwargs)


@register_model
def resnet50(**kwargs: Any) -> ResNet:
    """ResNet-50."""
    return ResNet(Bottleneck, [3, 4, 6, 3], **kwargs)


@register_model
def resnet101(**kwargs: Any) -> ResNet:
    """ResNet-101."""
    return ResNet(Bottleneck, [3, 4, 23, 3], **kwargs)


@register_model
def resnet152(**kwargs: Any) -> ResNet:
    """ResNet-152."""
    return ResNet(Bottleneck, [3, 8, 36, 3], **kwargs)


@register_model
def resnext50_32x4d(*, groups: int = 32, width_per_group: int = 4, **kwargs: Any) -> ResNet:
    """ResNeXt-50: 32 groups of 4 channels in the first stage."""
    return ResNet(
        Bottleneck, [3, 4, 6, 3], groups=groups, width_per_group=width_per_group, **kwargs
    )


@register_model
def resnext101_32x8d(*, groups: int = 32, width_per_group: int = 8, **kwargs: Any) -> ResNet:
    """ResNeXt-101: 32 groups of 8 channels in the first stage."""
    return ResNet(
        Bottleneck, [3, 4, 23, 3], groups=groups, width_per_group=width_per_group, **kwargs
    )


@register_model
def wide_resnet50_2(*, width_per_group: int = 128, **kwargs: Any) -> ResNet:
    """Wide ResNet-50: its 3x3 convolutions are twice as wide as ResNet-50's."""
    return ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=width_per_group, **kwargs)


@register_model
def wide_resnet101_2(*, width_per_group: int = 128, **kwargs: Any) -> ResNet:
    """Wide ResNet-101: its 3x3 convolutions are twice as wide as ResNet-101's."""
    return ResNet(Bottleneck, [3, 4, 23, 3], width_per_group=width_per_group, **kwargs)
