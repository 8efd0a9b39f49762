"""SqueezeNet: fire modules that squeeze the channels with 1x1 convolutions before they expand.

Paper: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB
model size", 2016, https://arxiv.org/abs/1602.07360; version 1.1 is the authors' later one,
https://github.com/forresti/SqueezeNet/tree/master/SqueezeNet_v1.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.errors import unknown
from lightning_zoo.models.hub import register_model


class Fire(nn.Module):
    """A 1x1 convolution that squeezes, then 1x1 and 3x3 convolutions side by side.

    Args:
        in_channels: Channels of the input.
        squeeze: Channels after squeezing.
        expand: Channels of each of the two expansions; the output has twice as many.
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, kernel_size=1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, kernel_size=1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, kernel_size=3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 2 * expand, H, W)`` for ``(N, in_channels, H, W)``."""
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([narrow, wide], 1)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)


def _features_1_0() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 96, kernel_size=7, stride=2),
        nn.ReLU(inplace=True),
        _pool(),
        Fire(96, 16, 64),
        Fire(128, 16, 64),
        Fire(128, 32, 128),
        _pool(),
        Fire(256, 32, 128),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        _pool(),
        Fire(512, 64, 256),
    )


def _features_1_1() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=3, stride=2),
        nn.ReLU(inplace=True),
        _pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        _pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        _pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


FEATURES = {"1_0": _features_1_0, "1_1": _features_1_1}


class SqueezeNet(nn.Module):
    """Image classifier.

    Args:
        version: ``"1_0"``, or ``"1_1"``: 2.4 times less computation for the same accuracy.
        num_classes: Number of logits.
        dropout: Probability of dropping a value before the last convolution.

    Raises:
        ZooError: If ``version`` is another.
    """

    def __init__(self, version: str, *, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        if version not in FEATURES:
            raise unknown("version of SqueezeNet", version, FEATURES)
        self.features = FEATURES[version]()
        final_conv = nn.Conv2d(512, num_classes, kernel_size=1)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            final_conv,
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module is final_conv:
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``, none below 0, for images ``(N, 3, H, W)``."""
        x = self.features(images)
        x = self.classifier(x)  # (N, num_classes, 1, 1)
        return torch.flatten(x, 1)


@register_model
def squeezenet1_0(**kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.0, the paper's."""
    return SqueezeNet("1_0", **kwargs)


@register_model
def squeezenet1_1(**kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.1: smaller first convolution, earlier pooling."""
    return SqueezeNet("1_1", **kwargs)
