"""ResNet and ResNeXt of 8-bit integers; the networks are those of the classifiers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_zoo.models.classification.resnet import BasicBlock, Bottleneck, ResNet
from lightning_zoo.models.quantization.constructor import register_quantizable
from lightning_zoo.models.quantization.eager import FloatFunctional, Quantizable


class QuantizableBasicBlock(BasicBlock):
    """Two 3x3 convolutions beside a shortcut, which is added and cut at 0 in one step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_relu = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, planes, H / stride, W / stride)`` for ``(N, in_channels, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.add_relu.add_relu(x, shortcut)

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        return [["conv1", "bn1", "relu"], ["conv2", "bn2"]]


class QuantizableBottleneck(Bottleneck):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, added and cut at 0 in one step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_add_relu = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 4 * planes, H / stride, W / stride)`` for ``(N, in_channels, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.skip_add_relu.add_relu(x, shortcut)

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        return [["conv1", "bn1", "relu1"], ["conv2", "bn2", "relu2"], ["conv3", "bn3"]]


class QuantizableResNet(Quantizable, ResNet):
    """Image classifier, in float or in integers."""

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        return [["conv1", "bn1", "relu"]]


@register_quantizable
def resnet18(**kwargs: Any) -> QuantizableResNet:
    """ResNet-18, float or INT8."""
    return QuantizableResNet(QuantizableBasicBlock, [2, 2, 2, 2], **kwargs)


@register_quantizable
def resnet50(**kwargs: Any) -> QuantizableResNet:
    """ResNet-50, float or INT8."""
    return QuantizableResNet(QuantizableBottleneck, [3, 4, 6, 3], **kwargs)


@register_quantizable
def resnext101_32x8d(
    *, groups: int = 32, width_per_group: int = 8, **kwargs: Any
) -> QuantizableResNet:
    """ResNeXt-101, float or INT8: 32 groups of 8 channels in the first stage."""
    return QuantizableResNet(
        QuantizableBottleneck, [3, 4, 23, 3], groups=groups, width_per_group=width_per_group,
        **kwargs,
    )  # fmt: skip
