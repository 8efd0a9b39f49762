"""SSD: boxes and classes from maps of six resolutions, in one pass over a small square image.

Paper: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016,
https://arxiv.org/abs/1512.02325.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.errors import ZooError
from lightning_zoo.models.backbones import (
    chosen_weights,
)
from lightning_zoo.models.detection.anchors import DefaultBoxGenerator
from lightning_zoo.models.detection.backbones import (
    chosen_layers,
    freeze_stages,
)
from lightning_zoo.models.detection.inputs import check_images, check_targets
from lightning_zoo.models.detection.rpn import flatten_map
from lightning_zoo.models.detection.transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Detections,
    GeneralizedRCNNTransform,
    Size,
    Target,
    precise,
)
from lightning_zoo.models.hub import register_model
from lightning_zoo.models.registry import get_entry
from lightning_zoo.ops import (
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    encode_boxes,
    match_ssd,
)

CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
FEATURES = "IMAGENET1K_FEATURES"
Losses = dict[str, Tensor]


class SSDScoringHead(nn.Module):
    """One module for each map, and their outputs as one row an anchor.

    Args:
        module_list: Gives ``(N, A * num_columns, H, W)`` for a map.
        num_columns: Values of an anchor.
    """

    def __init__(self, module_list: nn.ModuleList, num_columns: int) -> None:
        super().__init__()
        self.module_list = module_list
        self.num_columns = num_columns

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(N, anchors, num_columns)``."""
        rows = [
            flatten_map(module(x), self.num_columns)
            for module, x in zip(self.module_list, features, strict=True)
        ]
        return torch.cat(rows, dim=1)


class SSDHead(nn.Module):
    """Class logits and box offsets by one 3x3 convolution each.

    Args:
        in_channels: Channels of each map.
        num_anchors: Boxes at one position of each map.
        num_classes: Classes with the background.
    """

    def __init__(
        self, in_channels: Sequence[int], num_anchors: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        heads = []
        for columns in (num_classes, 4):
            convs = nn.ModuleList(
                nn.Conv2d(width, count * columns, kernel_size=3, padding=1)
                for width, count in zip(in_channels, num_anchors, strict=True)
            )
            _init_xavier(convs)
            heads.append(SSDScoringHead(convs, columns))
        self.classification_head, self.regression_head = heads

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``cls_logits`` ``(N, K, C)`` and ``bbox_regression`` ``(N, K, 4)``."""
        return {
            "bbox_regression": self.regression_head(features),
            "cls_logits": self.classification_head(features),
        }


class SSDFeatureExtractorVGG(nn.Module):
    """The six maps of SSD300: two of VGG-16, four of layers after it.

    Args:
        features: The convolutions of VGG-16; changed in place.
    """

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        pools = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
        _, _, third, fourth, fifth = pools
        features[third] = nn.MaxPool2d(2, 2, ceil_mode=True)  # 38 positions a side, not 37
        self.scale_weight = nn.Parameter(torch.full((512,), 20.0))
        self.features = nn.Sequential(*list(features)[:fourth])
        dilated = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            nn.Conv2d(512, 1024, kernel_size=3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, kernel_size=1),
            nn.ReLU(inplace=True),
        )
        further = nn.ModuleList(
            [
                _extra(1024, 256, 512, stride=2, padding=1),
                _extra(512, 128, 256, stride=2, padding=1),
                _extra(256, 128, 256, stride=1, padding=0),
                _extra(256, 128, 256, stride=1, padding=0),
            ]
        )
        _init_xavier(dilated)
        _init_xavier(further)
        between = list(features)[fourth:fifth]
        self.extra = nn.ModuleList([nn.Sequential(*between, dilated), *further])
        self.out_channels = [512, 1024, 512, 256, 256, 256]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return six maps ``(N, C, H, W)`` by name, for normalised images ``(N, 3, H, W)``."""
        x = self.features(x)
        maps = [self.scale_weight.view(1, -1, 1, 1) * F.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return OrderedDict((str(i), m) for i, m in enumerate(maps))


def _extra(
    in_channels: int, between: int, out_channels: int, *, stride: int, padding: int
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, between, kernel_size=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(between, out_channels, kernel_size=3, stride=stride, padding=padding),
        nn.ReLU(inplace=True),
    )


def _init_xavier(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SSD(nn.Module):
    """Object detector of one stage for images of one size.

    It is called as :class:`~lightning_zoo.models.detection.faster_rcnn.FasterRCNN`; its losses are
    ``classification`` and ``bbox_regression``.

    Args:
        backbone: Gives a dictionary of feature maps for a batch; where ``out_channels`` does not
            list their widths, they are found by trying it.
        anchor_generator: Makes the default boxes.
        size: Width and height in pixels that every image is resized to.
        num_classes: Classes with the background.
        image_mean: Per-channel mean that is subtracted; None for ImageNet's.
        image_std: Per-channel standard deviation that is divided by; None for ImageNet's.
        head: Gives logits and offsets; None for the usual one.
        score_thresh: Probability above which a box is a candidate.
        nms_thresh: Overlap above which the less certain of two detections is suppressed.
        detections_per_img: Detections of an image at most.
        iou_thresh: Overlap with an object from which on a default box is positive.
        topk_candidates: Candidates of each class at most.
        positive_fraction: Share of positives in the class loss; the hardest negatives are the rest.
    """

    def __init__(
        self,
        backbone: nn.Module,
        anchor_generator: DefaultBoxGenerator,
        size: tuple[int, int],
        num_classes: int,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        head: nn.Module | None = None,
        score_thresh: float = 0.01,
        nms_thresh: float = 0.45,
        detections_per_img: int = 200,
        iou_thresh: float = 0.5,
        topk_candidates: int = 400,
        positive_fraction: float = 0.25,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.anchor_generator = anchor_generator
        if head is None:
            widths = map_widths(backbone, size)
            counts = anchor_generator.num_anchors_per_location()
            if len(widths) != len(counts):
                raise ZooError(
                    f"the backbone gives {len(widths)} feature maps but the anchor generator has "
                    f"boxes for {len(counts)}"
                )
            head = SSDHead(widths, counts, num_classes)
        self.head = head
        self.transform = GeneralizedRCNNTransform(
            min(size),
            max(size),
            image_mean or IMAGENET_MEAN,
            image_std or IMAGENET_STD,
            size_divisible=1,
            fixed_size=(size[0], size[1]),
        )
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.iou_thresh = iou_thresh
        self.topk_candidates = topk_candidates
        self.neg_to_pos_ratio = (1.0 - positive_fraction) / positive_fraction

    @property
    def num_classes(self) -> int | None:
        """Classes with the background; None where a head of the user's own does not tell."""
        return getattr(getattr(self.head, "classification_head", None), "num_columns", None)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        with_losses: bool = False,
    ) -> Losses | list[Detections] | tuple[Losses, list[Detections]]:
        """Return losses in training, detections in evaluation, both ``with_losses``.

        Raises:
            ZooError: If images or targets cannot be used; the text names the image.
        """
        images = check_images(images)
        learns = self.training or with_losses
        if learns:
            targets = check_targets(
                targets, images, num_classes=self.num_classes, drop_crowds=not self.training
            )
        batch, targets = self.transform(images, targets if learns else None)
        features = self.backbone(batch.tensors)
        maps = [features] if isinstance(features, Tensor) else list(features.values())
        outputs = self.head(maps)
        logits, offsets = outputs["cls_logits"], outputs["bbox_regression"]
        anchors = self.anchor_generator(batch, maps)
        losses = {} if targets is None else self._losses(logits, offsets, anchors, targets)
        if self.training:
            return losses
        scores = precise(logits).softmax(dim=-1)
        detections = [self._select(*image) for image in zip(
            scores, offsets, anchors, batch.image_sizes, strict=True)]  # fmt: skip
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        detections = self.transform.postprocess(detections, batch.image_sizes, sizes)
        return (losses, detections) if with_losses else detections

    def _losses(
        self,
        logits: Tensor,
        offsets: Tensor,
        anchors: Sequence[Tensor],
        targets: Sequence[Target],
    ) -> Losses:
        """Return both losses: sums over the batch's positives, divided by their number."""
        labels = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
        box_loss = []
        for i, target in enumerate(targets):
            boxes = target["boxes"]
            matches = match_ssd(box_iou(boxes, anchors[i]), self.iou_thresh)
            positive = torch.where(matches >= 0)[0]
            objects = matches[positive]
            labels[i, positive] = target["labels"][objects]
            wanted = encode_boxes(boxes[objects], anchors[i][positive], CODER_WEIGHTS)
            found = precise(offsets[i, positive])
            box_loss.append(F.smooth_l1_loss(found, wanted, reduction="sum"))
        positives = labels > 0
        entropy = F.cross_entropy(
            precise(logits).flatten(0, 1), labels.flatten(), reduction="none"
        ).view(labels.shape)
        # of each image the negatives that are hardest, so many to a positive
        hardness = entropy.detach().masked_fill(positives, -torch.inf)
        rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
        negatives = rank < self.neg_to_pos_ratio * positives.sum(dim=1, keepdim=True)
        chosen = positives | negatives
        count = positives.sum().clamp(min=1)
        return {
            "bbox_regression": torch.stack(box_loss).sum() / count,
            "classification": torch.where(chosen, entropy, 0.0).sum() / count,
        }

    def _select(self, scores: Tensor, offsets: Tensor, anchors: Tensor, size: Size) -> Detections:
        """Return the detections of one image; every box may be one of each class."""
        by_class = scores[:, 1:].t().contiguous()  # (C - 1, K)
        best, rows = by_class.topk(min(self.topk_candidates, by_class.shape[1]), dim=1)
        kind, rank = torch.where(best > self.score_thresh)
        score, row = best[kind, rank], rows[kind, rank]
        boxes = decode_boxes(offsets[row], anchors[row], CODER_WEIGHTS)
        boxes = clip_boxes_to_image(boxes, size)
        keep = batched_nms(boxes, score, kind + 1, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": boxes[keep], "scores": score[keep], "labels": kind[keep] + 1}


def map_widths(backbone: nn.Module, size: tuple[int, int]) -> list[int]:
    """Return the channels of each map: those that the backbone lists, or those that it gives."""
    listed = getattr(backbone, "out_channels", None)
    if isinstance(listed, Sequence):
        return list(listed)
    was_training = backbone.training
    backbone.eval()
    device = next(backbone.parameters()).device
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, size[1], size[0], device=device))
    backbone.train(was_training)
    maps = [features] if isinstance(features, Tensor) else features.values()
    return [m.shape[1] for m in maps]


@register_model
def ssd300_vgg16(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = FEATURES,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> SSD:
    """SSD over VGG-16, for images of 300 x 300 pixels."""
    weights = chosen_weights(
        pretrained_backbone, weights_backbone, trained=trained, default=FEATURES
    )
    trainable = chosen_layers(
        trainable_backbone_layers,
        loaded=trained or weights is not None,
        most=5,
        default=4,
    )
    build = get_entry("vgg16", "classification").load_builder()
    features: nn.Sequential = build(weights=weights, progress=progress).features
    pools = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    starts = [0, *pools[:-1], len(features)]
    layers = list(features)
    freeze_stages([layers[a:b] for a, b in pairwise(starts)], trainable)
    defaults: dict[str, Any] = {
        "anchor_generator": DefaultBoxGenerator(
            [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
            steps=[8, 16, 32, 64, 100, 300],
        ),
        "size": (300, 300),
        "image_mean": [0.48235, 0.45882, 0.40784],
        "image_std": [1 / 255] * 3,  # the backbone wants values from 0 to 255
    }
    return SSD(SSDFeatureExtractorVGG(features), num_classes=num_classes, **{**defaults, **kwargs})
