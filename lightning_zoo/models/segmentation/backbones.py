"""Classifiers without their heads, dilated so that their last maps keep more of the resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lightning_zoo.errors import ZooError
from lightning_zoo.models.backbones import IMAGENET_V1, chosen_weights, stage_starts, trunk
from lightning_zoo.models.classification.mobilenetv3 import MobileNetV3
from lightning_zoo.models.classification.resnet import ResNet
from lightning_zoo.models.registry import get_entry

BASIC = ("resnet18", "resnet34")
"""ResNets of basic blocks."""


@dataclass(frozen=True)
class Tap:
    """A map that is taken out of a backbone.

    Attributes:
        name: Child of the backbone that gives it.
        channels: Its width.
    """

    name: str
    channels: int


@dataclass(frozen=True)
class Trunk:
    """A classifier without its head.

    Attributes:
        children: Its modules by name, in the order that they run in.
        high: The last map, at the output stride.
        aux: The map that an auxiliary head is trained on: the stage before the last (ResNet), or
            the first map of stride 8 (MobileNet).
        low: The first map of stride 8, which LR-ASPP takes the contours from.
    """

    children: dict[str, nn.Module]
    high: Tap
    aux: Tap
    low: Tap


def make_trunk(
    name: str,
    weights: str | Path | None,
    *,
    output_stride: int | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> Trunk:
    """Return a ResNet or a MobileNet V3 whose last map has the output stride.

    Bottleneck ResNets (resnet50 and deeper) and MobileNets keep all stages and dilate the last
    ones. The basic blocks of resnet18 and resnet34 cannot dilate: their network ends with the stage
    that has the output stride.

    Args:
        name: The classifier.
        weights: Its published weights or a file; None for none.
        output_stride: 8, 16 or 32 pixels of the image for one of the last map; None for 8
            (bottleneck ResNets) or 16. MobileNets have no 8.
        progress: Show the download.
        kwargs: Further arguments of the classifier.

    Raises:
        ZooError: If the classifier is of another family or cannot have the stride.
    """
    constructor = get_entry(name, "classification").load_builder()
    family = constructor.__annotations__["return"]
    if family not in (ResNet, MobileNetV3):
        raise ZooError(
            f"{name} cannot be the backbone of a segmentation network; "
            "take a ResNet or a MobileNet V3"
        )
    strides = [16, 32] if family is MobileNetV3 else [8, 16, 32]
    default = 16 if family is MobileNetV3 or name in BASIC else 8
    stride = default if output_stride is None else output_stride
    if stride not in strides:
        expected = ", ".join(map(str, strides))
        raise ZooError(f"output_stride is {stride}; {name} has {expected}")
    kwargs = {"weights": weights, "progress": progress, **kwargs}
    if family is MobileNetV3:
        model = constructor(**{"dilated": stride == 16, **kwargs})
        features = model.features
        starts = stage_starts(features)
        last, low = (Tap(str(i), features[i].out_channels) for i in (starts[-1], starts[-4]))
        return Trunk(trunk(model), high=last, aux=low, low=low)
    stages = int(math.log2(stride)) - 1  # that reach the output stride by halving
    if name not in BASIC:
        dilate = [i > stages for i in (2, 3, 4)]
        kwargs = {"replace_stride_with_dilation": dilate, **kwargs}
        stages = 4
    model = constructor(**kwargs)
    width = model.fc.in_features // 8
    taps = [Tap(f"layer{i}", width * 2 ** (i - 1)) for i in range(1, stages + 1)]
    return Trunk(trunk(model), high=taps[-1], aux=taps[-2], low=taps[1])


def trunk_for(
    name: str,
    *,
    pretrained_backbone: bool,
    weights_backbone: str | Path | None,
    trained: bool,
    **kwargs: Any,
) -> Trunk:
    """Return the trunk of a network, see :func:`chosen_weights` and :func:`make_trunk`."""
    weights = chosen_weights(
        pretrained_backbone, weights_backbone, trained=trained, default=IMAGENET_V1
    )
    return make_trunk(name, weights, **kwargs)
