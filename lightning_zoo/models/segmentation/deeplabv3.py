"""DeepLab v3: the head looks at several scales at once, by convolutions of several dilations.

Paper: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
https://arxiv.org/abs/1706.05587.
Differs from the paper: the rates stay 12, 24 and 36 where the output stride is not 8, a 3x3
convolution follows the pyramid, and an auxiliary head (of FCN) may be trained beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct
from lightning_zoo.models.backbones import IMAGENET_V1, wanted_weights
from lightning_zoo.models.hub import register_model
from lightning_zoo.models.segmentation.backbones import Trunk, trunk_for
from lightning_zoo.models.segmentation.fcn import assemble
from lightning_zoo.models.segmentation.network import SegmentationNetwork, resize

RATES = (12, 24, 36)


class ASPPPooling(nn.Sequential):
    """The mean of the whole map, through a 1x1 convolution, at every position.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H, W)``.

        Raises:
            ZooError: If the norm would have to learn from a single value per channel.
        """
        if type(self[2]) is nn.BatchNorm2d and self[2].training and len(x) == 1:
            raise ZooError(
                "a batch of one image cannot train DeepLab v3: batch norm over its pooled map "
                "needs at least two; raise batch.per_device, or synchronise the norms of several "
                "devices"
            )
        pooled = x
        for step in self:
            pooled = step(pooled)
        return resize(pooled, (x.shape[-2], x.shape[-1]))


class ASPP(nn.Module):
    """Spatial pyramid of dilated convolutions.

    Args:
        in_channels: Channels in.
        atrous_rates: Dilations of the 3x3 convolutions, in positions of the map.
        out_channels: Channels of each branch and of the output.
    """

    def __init__(
        self, in_channels: int, atrous_rates: Sequence[int] = RATES, out_channels: int = 256
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                ConvNormAct(in_channels, out_channels, 1),
                *(ConvNormAct(in_channels, out_channels, 3, dilation=r) for r in atrous_rates),
                ASPPPooling(in_channels, out_channels),
            ]
        )
        self.project = nn.Sequential(
            *ConvNormAct(len(self.convs) * out_channels, out_channels, 1), nn.Dropout(0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H, W)``."""
        return self.project(torch.cat([conv(x) for conv in self.convs], dim=1))


class DeepLabHead(nn.Sequential):
    """The pyramid, a 3x3 convolution and the logits.

    Args:
        in_channels: Channels of the map.
        num_classes: Number of logits of a pixel.
        atrous_rates: Dilations of the pyramid.
        channels: Width of the pyramid.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        atrous_rates: Sequence[int] = RATES,
        channels: int = 256,
    ) -> None:
        super().__init__(
            ASPP(in_channels, atrous_rates, channels),
            *ConvNormAct(channels, channels, 3),
            nn.Conv2d(channels, num_classes, 1),
        )


class DeepLabV3(SegmentationNetwork):
    """Segmentation network with a pyramid of dilated convolutions, see :class:`DeepLabHead`."""


def _deeplabv3(trunk: Trunk, num_classes: int, aux_loss: bool | None, *args: Any) -> DeepLabV3:
    head = DeepLabHead(trunk.high.channels, num_classes, *args)
    return assemble(DeepLabV3, head, trunk, num_classes, aux_loss)


@register_model
def deeplabv3_resnet50(
    *,
    num_classes: int = 21,
    aux_loss: bool | None = None,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trained: bool = False,
    progress: bool = True,
) -> DeepLabV3:
    """DeepLab v3 over a dilated ResNet-50; ``aux_loss`` adds the auxiliary head."""
    trunk = trunk_for(
        "resnet50",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        progress=progress,
    )
    return _deeplabv3(trunk, num_classes, aux_loss)


@register_model
def deeplabv3_resnet101(
    *,
    num_classes: int = 21,
    aux_loss: bool | None = None,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trained: bool = False,
    progress: bool = True,
) -> DeepLabV3:
    """DeepLab v3 over a dilated ResNet-101; ``aux_loss`` adds the auxiliary head."""
    trunk = trunk_for(
        "resnet101",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        progress=progress,
    )
    return _deeplabv3(trunk, num_classes, aux_loss)


@register_model
def deeplabv3_mobilenet_v3_large(
    *,
    num_classes: int = 21,
    aux_loss: bool | None = None,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trained: bool = False,
    progress: bool = True,
) -> DeepLabV3:
    """DeepLab v3 over a dilated MobileNet V3 large; ``aux_loss`` adds the auxiliary head."""
    trunk = trunk_for(
        "mobilenet_v3_large",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        progress=progress,
    )
    return _deeplabv3(trunk, num_classes, aux_loss)


@register_model
def deeplabv3(
    *,
    num_classes: int = 21,
    backbone: str = "resnet50",
    backbone_args: dict[str, Any] | None = None,
    pretrained_backbone: bool = False,
    weights_backbone: str | Path | None = None,
    output_stride: int | None = None,
    atrous_rates: Sequence[int] = RATES,
    aspp_channels: int = 256,
    aux_loss: bool | None = None,
    trained: bool = False,
    progress: bool = True,
) -> DeepLabV3:
    """DeepLab v3 over any ResNet or MobileNet V3 of the zoo.

    Nothing is loaded unless ``weights_backbone`` names weights or a file, or
    ``pretrained_backbone`` asks for the best published ones. For ``output_stride`` see
    :func:`~lightning_zoo.models.segmentation.backbones.make_trunk`.
    """
    trunk = trunk_for(
        backbone,
        pretrained_backbone=True,
        weights_backbone=wanted_weights(pretrained_backbone, weights_backbone),
        trained=trained,
        output_stride=output_stride,
        progress=progress,
        **(backbone_args or {}),
    )
    return _deeplabv3(trunk, num_classes, aux_loss, atrous_rates, aspp_channels)
