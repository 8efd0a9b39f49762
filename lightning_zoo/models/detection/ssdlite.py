"""SSDlite: SSD with depthwise-separable prediction layers over a mobile network.

Papers: Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244;
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
https://arxiv.org/abs/1801.04381.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_zoo.layers import ConvNormAct
from lightning_zoo.models.backbones import (
    IMAGENET_V1,
    NormLayer,
    chosen_weights,
    stage_starts,
)
from lightning_zoo.models.detection.anchors import DefaultBoxGenerator
from lightning_zoo.models.detection.backbones import (
    chosen_layers,
    freeze_stages,
    load_classifier,
    split_stages,
)
from lightning_zoo.models.detection.rpn import init_normal_
from lightning_zoo.models.detection.ssd import SSD, SSDScoringHead
from lightning_zoo.models.hub import register_model

SPREAD = 0.03
"""Deviation of the weights that are drawn."""


def _depthwise(channels: int, stride: int, norm_layer: NormLayer) -> ConvNormAct:
    return ConvNormAct(
        channels,
        channels,
        3,
        stride,
        groups=channels,
        norm_layer=norm_layer,
        activation_layer=nn.ReLU6,
    )


def _extra(in_channels: int, out_channels: int, norm_layer: NormLayer) -> nn.Sequential:
    """Return a block that halves the resolution."""
    between = out_channels // 2
    act: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": nn.ReLU6}
    return nn.Sequential(
        ConvNormAct(in_channels, between, 1, **act),
        _depthwise(between, 2, norm_layer),
        ConvNormAct(between, out_channels, 1, **act),
    )


class SSDLiteHead(nn.Module):
    """Class logits and box offsets, each by a depthwise convolution and a 1x1 one.

    Args:
        in_channels: Channels of each map.
        num_anchors: Boxes at one position of each map.
        num_classes: Classes with the background.
        norm_layer: Makes a norm from the number of channels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_anchors: Sequence[int],
        num_classes: int,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        heads = []
        for columns in (num_classes, 4):
            blocks = nn.ModuleList(
                nn.Sequential(
                    _depthwise(width, 1, norm_layer), nn.Conv2d(width, count * columns, 1)
                )
                for width, count in zip(in_channels, num_anchors, strict=True)
            )
            init_normal_(blocks, SPREAD)
            heads.append(SSDScoringHead(blocks, columns))
        self.classification_head, self.regression_head = heads

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``cls_logits`` ``(N, K, C)`` and ``bbox_regression`` ``(N, K, 4)``."""
        return {
            "bbox_regression": self.regression_head(features),
            "cls_logits": self.classification_head(features),
        }


class SSDLiteFeatureExtractorMobileNet(nn.Module):
    """Six maps: one inside a MobileNet V3, its last, and four of layers after it.

    Args:
        features: The layers of the MobileNet.
        split: Child of them whose widening layer gives the first map.
        norm_layer: Norm of the further layers.
    """

    def __init__(self, features: nn.Sequential, split: int, norm_layer: NormLayer) -> None:
        super().__init__()
        layers = list(features)
        block: nn.Sequential = layers[split].block  # type: ignore[assignment]
        self.features = nn.Sequential(
            nn.Sequential(*layers[:split], block[0]),
            nn.Sequential(block[1:], *layers[split + 1 :]),
        )
        widths: list[int] = [layers[-1].out_channels, 512, 256, 256, 128]  # type: ignore[list-item]
        self.extra = nn.ModuleList(_extra(a, b, norm_layer) for a, b in pairwise(widths))
        init_normal_(self.extra, SPREAD)
        first: int = block[0].out_channels  # type: ignore[assignment]
        self.out_channels = [first, *widths]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return six maps ``(N, C, H, W)`` by name, for normalised images ``(N, 3, H, W)``."""
        maps = []
        for block in (*self.features, *self.extra):
            x = block(x)
            maps.append(x)
        return OrderedDict((str(i), m) for i, m in enumerate(maps))


@register_model
def ssdlite320_mobilenet_v3_large(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    norm_layer: NormLayer | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> SSD:
    """SSDlite over MobileNet V3 large, for images of 320 x 320 pixels."""
    weights = chosen_weights(
        pretrained_backbone, weights_backbone, trained=trained, default=IMAGENET_V1
    )
    trainable = chosen_layers(
        trainable_backbone_layers, loaded=trained or weights is not None, most=6, default=6
    )
    norm_layer = norm_layer or partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    features = load_classifier(
        "mobilenet_v3_large",
        weights,
        progress=progress,
        norm_layer=norm_layer,
        reduced_tail=weights is None,  # the published detector was trained without a classifier
    ).features
    if weights is None:
        init_normal_(features, SPREAD)
    starts = stage_starts(features)
    freeze_stages(split_stages(features, starts), trainable)
    defaults: dict[str, Any] = {
        "anchor_generator": DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95),
        "size": (320, 320),
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "score_thresh": 0.001,
        "nms_thresh": 0.55,
        "detections_per_img": 300,
        "topk_candidates": 300,
    }
    options = {**defaults, **kwargs}
    backbone = SSDLiteFeatureExtractorMobileNet(features, starts[-2], norm_layer)
    if "head" not in options:
        counts = options["anchor_generator"].num_anchors_per_location()
        options["head"] = SSDLiteHead(backbone.out_channels, counts, num_classes, norm_layer)
    return SSD(backbone, num_classes=num_classes, **options)
