"""LR-ASPP: a light head for mobile networks, with contours from a map of stride 8.

Paper: Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct
from lightning_zoo.models.backbones import IMAGENET_V1, Body, wanted_weights
from lightning_zoo.models.hub import register_model
from lightning_zoo.models.segmentation.backbones import trunk_for
from lightning_zoo.models.segmentation.network import full_size, has_depthwise, quick_order, resize


class LRASPPHead(nn.Module):
    """A map of semantics, weighted by its global mean, and a map of contours give the logits.

    Args:
        low_channels: Channels of the map of contours.
        high_channels: Channels of the map of semantics.
        num_classes: Number of logits of a pixel.
        inter_channels: Width of the hidden layer.
    """

    def __init__(
        self, low_channels: int, high_channels: int, num_classes: int, inter_channels: int = 128
    ) -> None:
        super().__init__()
        self.cbr = ConvNormAct(high_channels, inter_channels, 1)
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(high_channels, inter_channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.low_classifier = nn.Conv2d(low_channels, num_classes, 1)
        self.high_classifier = nn.Conv2d(inter_channels, num_classes, 1)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """Return logits of the size of the map ``low``, ``(N, C, H, W)``; ``high`` is smaller."""
        low, high = maps["low"], maps["high"]
        x = self.cbr(high) * self.scale(high)
        x = resize(x, (low.shape[-2], low.shape[-1]))
        return self.low_classifier(low) + self.high_classifier(x)


class LRASPP(nn.Module):
    """Class of every pixel.

    Args:
        backbone: Gives a dictionary of the maps ``low`` and ``high`` for a batch.
        low_channels: Channels of ``low``.
        high_channels: Channels of ``high``.
        num_classes: Number of logits of a pixel.
        inter_channels: Width of the head's hidden layer.
    """

    def __init__(
        self,
        backbone: nn.Module,
        low_channels: int,
        high_channels: int,
        num_classes: int,
        inter_channels: int = 128,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.has_depthwise = has_depthwise(backbone)
        self.classifier = LRASPPHead(low_channels, high_channels, num_classes, inter_channels)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return logits ``out`` ``(N, classes, H, W)`` for normalised images ``(N, 3, H, W)``."""
        logits = self.classifier(self.backbone(quick_order(images, self)))
        return OrderedDict(out=full_size(logits, images))


def _lraspp(
    name: str,
    backbone: str,
    num_classes: int,
    aux_loss: bool | None,
    inter_channels: int = 128,
    **kwargs: Any,
) -> LRASPP:
    if aux_loss:
        raise ZooError(f"{name} has no auxiliary head; leave out aux_loss")
    trunk = trunk_for(backbone, **kwargs)
    low, high = trunk.low, trunk.high
    if low == high:
        raise ZooError(
            f"{name} needs two maps, but the first map of stride 8 is the last one of {backbone}; "
            "take output_stride 16 or 32"
        )
    body = Body(trunk.children, {low.name: "low", high.name: "high"})
    return LRASPP(body, low.channels, high.channels, num_classes, inter_channels)


@register_model
def lraspp_mobilenet_v3_large(
    *,
    num_classes: int = 21,
    aux_loss: bool | None = None,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trained: bool = False,
    progress: bool = True,
) -> LRASPP:
    """LR-ASPP over a dilated MobileNet V3 large; ``aux_loss=True`` is an error."""
    return _lraspp(
        "lraspp_mobilenet_v3_large",
        "mobilenet_v3_large",
        num_classes,
        aux_loss,
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        progress=progress,
    )


@register_model
def lraspp(
    *,
    num_classes: int = 21,
    backbone: str = "mobilenet_v3_large",
    backbone_args: dict[str, Any] | None = None,
    pretrained_backbone: bool = False,
    weights_backbone: str | Path | None = None,
    output_stride: int | None = None,
    inter_channels: int = 128,
    aux_loss: bool | None = None,
    trained: bool = False,
    progress: bool = True,
) -> LRASPP:
    """LR-ASPP over any ResNet or MobileNet V3 of the zoo; ``aux_loss=True`` is an error.

    Nothing is loaded unless ``weights_backbone`` names weights or a file, or
    ``pretrained_backbone`` asks for the best published ones. For ``output_stride`` see
    :func:`~lightning_zoo.models.segmentation.backbones.make_trunk`.
    """
    return _lraspp(
        "lraspp",
        backbone,
        num_classes,
        aux_loss,
        inter_channels,
        pretrained_backbone=True,
        weights_backbone=wanted_weights(pretrained_backbone, weights_backbone),
        trained=trained,
        output_stride=output_stride,
        progress=progress,
        **(backbone_args or {}),
    )
