"""FCN: the last map of a classifier says the class of every pixel.

Paper: Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038.
Differs from the paper: a dilated ResNet takes the place of VGG and its skips, with a hidden layer
in the head and an auxiliary head on the stage before the last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from lightning_zoo.models.backbones import IMAGENET_V1, Body, wanted_weights
from lightning_zoo.models.hub import register_model
from lightning_zoo.models.segmentation.backbones import Trunk, trunk_for
from lightning_zoo.models.segmentation.network import SegmentationNetwork

Network = TypeVar("Network", bound=SegmentationNetwork)


class FCNHead(nn.Sequential):
    """A 3x3 convolution to a quarter of the channels, and the logits.

    Args:
        in_channels: Channels of the map.
        num_classes: Number of logits of a pixel.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        hidden = in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(hidden, num_classes, 1),
        )


class FCN(SegmentationNetwork):
    """Segmentation network with a plain convolutional head, see :class:`FCNHead`."""


def assemble(
    network: Callable[[nn.Module, nn.Module, nn.Module | None], Network],
    head: nn.Module,
    trunk: Trunk,
    num_classes: int,
    aux_loss: bool | None,
) -> Network:
    """Return the network over a trunk, with an auxiliary head if ``aux_loss``."""
    if not aux_loss:
        return network(Body(trunk.children, {trunk.high.name: "out"}), head, None)
    body = Body(trunk.children, {trunk.aux.name: "aux", trunk.high.name: "out"})
    return network(body, head, FCNHead(trunk.aux.channels, num_classes))


def _fcn(trunk: Trunk, num_classes: int, aux_loss: bool | None) -> FCN:
    head = FCNHead(trunk.high.channels, num_classes)
    return assemble(FCN, head, trunk, num_classes, aux_loss)


@register_model
def fcn_resnet50(
    *,
    num_classes: int = 21,
    aux_loss: bool | None = None,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trained: bool = False,
    progress: bool = True,
) -> FCN:
    """FCN over a dilated ResNet-50; ``aux_loss`` adds the auxiliary head."""
    trunk = trunk_for(
        "resnet50",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        progress=progress,
    )
    return _fcn(trunk, num_classes, aux_loss)


@register_model
def fcn_resnet101(
    *,
    num_classes: int = 21,
    aux_loss: bool | None = None,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trained: bool = False,
    progress: bool = True,
) -> FCN:
    """FCN over a dilated ResNet-101; ``aux_loss`` adds the auxiliary head."""
    trunk = trunk_for(
        "resnet101",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        progress=progress,
    )
    return _fcn(trunk, num_classes, aux_loss)


@register_model
def fcn(
    *,
    num_classes: int = 21,
    backbone: str = "resnet50",
    backbone_args: dict[str, Any] | None = None,
    pretrained_backbone: bool = False,
    weights_backbone: str | Path | None = None,
    output_stride: int | None = None,
    aux_loss: bool | None = None,
    trained: bool = False,
    progress: bool = True,
) -> FCN:
    """FCN over any ResNet or MobileNet V3 of the zoo.

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
    return _fcn(trunk, num_classes, aux_loss)
