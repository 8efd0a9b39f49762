"""VGG: stacks of 3x3 convolutions, a max-pool after each stack, three linear layers.

Paper: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, https://arxiv.org/abs/1409.1556.
Differs from the paper: the ``_bn`` networks have batch norm after every convolution (the
convolutions keep their biases), and an adaptive pool makes 7 x 7 of any input of 32 pixels or more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.models.hub import register_model

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions in each stack, by the number of layers with weights."""


def make_features(depths: tuple[int, ...], *, batch_norm: bool = False) -> nn.Sequential:
    """Return the stacks of convolutions; each ends with a max-pool that halves H and W."""
    layers: list[nn.Module] = []
    in_channels = 3
    for depth, width in zip(depths, WIDTHS, strict=True):
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, width, kernel_size=3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            in_channels = width
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Image classifier.

    Args:
        features: Convolutions that end with 512 channels, see :func:`make_features`.
        num_classes: Number of logits.
        init_weights: Draw the weights as the paper's successors do (Kaiming, fan out); switched
            off, the layers keep torch's own.
        dropout: Probability of dropping a value after each of the two hidden linear layers.
    """

    def __init__(
        self,
        features: nn.Module,
        *,
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = self.features(images)  # (N, 512, H / 32, W / 32)
        x = self.avgpool(x)  # (N, 512, 7, 7)
        return self.classifier(torch.flatten(x, 1))


@register_model
def vgg11(**kwargs: Any) -> VGG:
    """VGG with 11 layers, configuration A of the paper."""
    return VGG(make_features(DEPTHS[11]), **kwargs)


@register_model
def vgg11_bn(**kwargs: Any) -> VGG:
    """VGG with 11 layers and batch norm."""
    return VGG(make_features(DEPTHS[11], batch_norm=True), **kwargs)


@register_model
def vgg13(**kwargs: Any) -> VGG:
    """VGG with 13 layers, configuration B of the paper."""
    return VGG(make_features(DEPTHS[13]), **kwargs)


@register_model
def vgg13_bn(**kwargs: Any) -> VGG:
    """VGG with 13 layers and batch norm."""
    return VGG(make_features(DEPTHS[13], batch_norm=True), **kwargs)


@register_model
def vgg16(**kwargs: Any) -> VGG:
    """VGG with 16 layers, configuration D of the paper."""
    return VGG(make_features(DEPTHS[16]), **kwargs)


@register_model
def vgg16_bn(**kwargs: Any) -> VGG:
    """VGG with 16 layers and batch norm."""
    return VGG(make_features(DEPTHS[16], batch_norm=True), **kwargs)


@register_model
def vgg19(**kwargs: Any) -> VGG:
    """VGG with 19 layers, configuration E of the paper."""
    return VGG(make_features(DEPTHS[19]), **kwargs)


@register_model
def vgg19_bn(**kwargs: Any) -> VGG:
    """VGG with 19 layers and batch norm."""
    return VGG(make_features(DEPTHS[19], batch_norm=True), **kwargs)
