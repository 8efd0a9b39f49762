"""RetinaNet: every anchor is classified at once, and the focal loss looks away from the easy ones.

Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
https://arxiv.org/abs/1708.02002.
Differs from the paper: P6 is made of P5, not of the backbone's last map, and the box loss is L1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.layers import ConvNormAct, LastLevelP6P7
from lightning_zoo.models.backbones import (
    IMAGENET_V1,
    NormLayer,
    wanted_weights,
)
from lightning_zoo.models.detection.anchors import AnchorGenerator
from lightning_zoo.models.detection.backbones import (
    backbone_width,
    fpn_for,
)
from lightning_zoo.models.detection.inputs import check_images, check_targets
from lightning_zoo.models.detection.names import current_name, without_eps
from lightning_zoo.models.detection.rpn import flatten_map, init_normal_
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
from lightning_zoo.ops import (
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    encode_boxes,
    match,
    sigmoid_focal_loss,
)
from lightning_zoo.ops.matcher import BETWEEN

RATIOS = (0.5, 1.0, 2.0)
CODER_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
PRIOR = 0.01
"""Probability of an object that the classifier starts with."""

Losses = dict[str, Tensor]


def _tower(channels: int, norm_layer: Callable[..., nn.Module] | None) -> nn.Sequential:
    return nn.Sequential(
        *(ConvNormAct(channels, channels, 3, norm_layer=norm_layer) for _ in range(4))
    )


class RetinaNetClassificationHead(nn.Module):
    """Four convolutions and the logits of every class for each anchor.

    Args:
        in_channels: Channels of the maps.
        num_anchors: Anchors at one position.
        num_classes: Classes; channel 0 exists but no object has it.
        norm_layer: Norm of the convolutions; left out, they have none.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.conv = _tower(in_channels, norm_layer)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        init_normal_(self, 0.01)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        self.num_classes = num_classes
        self.num_anchors = num_anchors

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return for each map logits ``(N, H * W * A, C)``."""
        return [flatten_map(self.cls_logits(self.conv(x)), self.num_classes) for x in features]


class RetinaNetRegressionHead(nn.Module):
    """Four convolutions and the box offsets for each anchor.

    Args:
        in_channels: Channels of the maps.
        num_anchors: Anchors at one position.
        norm_layer: Norm of the convolutions; left out, they have none.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.conv = _tower(in_channels, norm_layer)
        self.bbox_reg = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        init_normal_(self, 0.01)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return for each map offsets ``(N, H * W * A, 4)``."""
        return [flatten_map(self.bbox_reg(self.conv(x)), 4) for x in features]


class RetinaNetHead(nn.Module):
    """Classes and boxes, by separate layers that all maps share.

    Args:
        in_channels: Channels of the maps.
        num_anchors: Anchors at one position.
        num_classes: Classes; channel 0 exists but no object has it.
        norm_layer: Norm of the convolutions; left out, they have none.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.classification_head = RetinaNetClassificationHead(
            in_channels, num_anchors, num_classes, norm_layer
        )
        self.regression_head = RetinaNetRegressionHead(in_channels, num_anchors, norm_layer)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return for each map logits ``(N, H * W * A, C)`` and offsets ``(N, H * W * A, 4)``."""
        return self.classification_head(features), self.regression_head(features)


class RetinaNet(nn.Module):
    """Object detector of one stage.

    It is called as :class:`~lightning_zoo.models.detection.faster_rcnn.FasterRCNN`; its losses are
    ``classification`` and ``bbox_regression``. Labels index the logits directly.

    Args:
        backbone: Gives a dictionary of feature maps for a batch; ``out_channels`` is their width.
        num_classes: Classes, with a class 0 that no object has.
        min_size: Length in pixels that the shorter side of an image is resized to; of several,
            training draws one for each image and evaluation takes the last.
        max_size: Length in pixels that the longer side is limited to.
        image_mean: Per-channel mean that is subtracted; None for ImageNet's.
        image_std: Per-channel standard deviation that is divided by; None for ImageNet's.
        anchor_generator: Makes the anchors; None for three sizes from 32 to 512 pixels on each of
            five maps.
        head: Gives logits and offsets; None for the usual one.
        score_thresh: Probability above which an anchor is a candidate.
        nms_thresh: Overlap above which the less certain of two detections is suppressed.
        detections_per_img: Detections of an image at most.
        fg_iou_thresh: Overlap with an object from which on an anchor is positive.
        bg_iou_thresh: Overlap below which an anchor is negative; those between are left out.
        topk_candidates: Candidates of each map at most.
        size_divisible: Height and width of a batch are multiples of it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        anchor_generator: nn.Module | None = None,
        head: nn.Module | None = None,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        detections_per_img: int = 300,
        fg_iou_thresh: float = 0.5,
        bg_iou_thresh: float = 0.4,
        topk_candidates: int = 1000,
        size_divisible: int = 32,
    ) -> None:
        super().__init__()
        width = backbone_width(backbone)
        self.backbone = backbone
        self.anchor_generator = anchor_generator or retina_anchors((32, 64, 128, 256, 512))
        if head is None:
            per_location = self.anchor_generator.num_anchors_per_location()  # type: ignore[operator]
            head = RetinaNetHead(width, per_location[0], num_classes)
        self.head = head
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.transform = GeneralizedRCNNTransform(
            min_size,
            max_size,
            image_mean or IMAGENET_MEAN,
            image_std or IMAGENET_STD,
            size_divisible,
        )
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.topk_candidates = topk_candidates

    @property
    def num_classes(self) -> int | None:
        """Classes; None where a head of the user's own does not tell."""
        return getattr(getattr(self.head, "classification_head", None), "num_classes", None)

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
        logits, offsets = self.head(maps)
        anchors = self.anchor_generator(batch, maps)
        losses = {} if targets is None else self._losses(logits, offsets, anchors, targets)
        if self.training:
            return losses
        counts = [level.shape[1] for level in logits]
        detections = [
            self._select(
                [level[i] for level in logits],
                [level[i] for level in offsets],
                anchors[i].split(counts),
                size,
            )
            for i, size in enumerate(batch.image_sizes)
        ]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        detections = self.transform.postprocess(detections, batch.image_sizes, sizes)
        return (losses, detections) if with_losses else detections

    def _losses(
        self,
        logits: Sequence[Tensor],
        offsets: Sequence[Tensor],
        anchors: Sequence[Tensor],
        targets: Sequence[Target],
    ) -> Losses:
        """Return both losses: of each image the sum over its positives, averaged over images."""
        all_logits, all_offsets = torch.cat(list(logits), dim=1), torch.cat(list(offsets), dim=1)
        class_loss, box_loss = [], []
        for i, target in enumerate(targets):
            boxes, labels = target["boxes"], target["labels"]
            matches = match(
                box_iou(boxes, anchors[i]), self.fg_iou_thresh, self.bg_iou_thresh, True
            )
            positive = torch.where(matches >= 0)[0]
            objects = matches[positive]
            count = max(len(positive), 1)
            truth = torch.zeros_like(all_logits[i])
            truth[positive, labels[objects]] = 1
            counts = torch.where(matches != BETWEEN)[0]
            focal = sigmoid_focal_loss(all_logits[i, counts], truth[counts], reduction="sum")
            class_loss.append(focal / count)
            wanted = encode_boxes(boxes[objects], anchors[i][positive], CODER_WEIGHTS)
            found = precise(all_offsets[i, positive])
            box_loss.append(F.l1_loss(found, wanted, reduction="sum") / count)
        return {
            "classification": torch.stack(class_loss).mean(),
            "bbox_regression": torch.stack(box_loss).mean(),
        }

    def _select(
        self,
        logits: Sequence[Tensor],
        offsets: Sequence[Tensor],
        anchors: Sequence[Tensor],
        size: Size,
    ) -> Detections:
        """Return the detections of one image, from the best candidates of each map."""
        # what is far below the threshold is dropped before its probability is computed
        least = math.log(self.score_thresh / (1 - self.score_thresh)) if self.score_thresh else None
        boxes, scores, labels = [], [], []
        for logit, offset, anchor in zip(logits, offsets, anchors, strict=True):
            flat = logit.flatten()
            if least is not None and self.score_thresh < 1:
                place = torch.where(flat > least - 0.02 * abs(least) - 1e-3)[0]
                score = precise(flat[place]).sigmoid()
            else:
                place, score = torch.arange(len(flat), device=flat.device), precise(flat).sigmoid()
            keep = torch.where(score > self.score_thresh)[0]
            score, order = score[keep].topk(min(self.topk_candidates, len(keep)))
            place = place[keep][order]
            row = place // logit.shape[1]
            box = decode_boxes(offset[row], anchor[row], CODER_WEIGHTS)
            boxes.append(clip_boxes_to_image(box, size))
            scores.append(score)
            labels.append(place % logit.shape[1])
        box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        keep = batched_nms(box, score, label, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": box[keep], "scores": score[keep], "labels": label[keep]}


def retina_anchors(
    sizes: Sequence[int], aspect_ratios: Sequence[float] = RATIOS
) -> AnchorGenerator:
    """Return anchors of three sizes on each map: the one given, and 1.26 and 1.59 times that."""
    thirds = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in sizes)
    return AnchorGenerator(thirds, (tuple(aspect_ratios),) * len(thirds))


@register_model(rename=current_name, finish=without_eps)
def retinanet_resnet50_fpn(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> RetinaNet:
    """RetinaNet over a ResNet-50 with a feature pyramid."""
    backbone = fpn_for(
        "resnet50",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        trainable_layers=trainable_backbone_layers,
        returned_layers=(2, 3, 4),
        extra_blocks=LastLevelP6P7(256, 256),
        progress=progress,
    )
    return RetinaNet(backbone, num_classes, **kwargs)


@register_model(rename=current_name)
def retinanet(
    *,
    num_classes: int = 91,
    backbone: str = "resnet50",
    backbone_args: dict[str, Any] | None = None,
    pretrained_backbone: bool = False,
    weights_backbone: str | Path | None = None,
    trainable_backbone_layers: int | None = None,
    returned_layers: Sequence[int] = (2, 3, 4),
    fpn_channels: int = 256,
    anchor_sizes: Sequence[int] | None = None,
    aspect_ratios: Sequence[float] = RATIOS,
    norm_layer: NormLayer | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> RetinaNet:
    """RetinaNet over any classifier of the zoo with a feature pyramid.

    Nothing is loaded unless ``weights_backbone`` names weights or a file, or
    ``pretrained_backbone`` asks for the best published ones. ``anchor_sizes`` are the smallest of
    the three sizes in pixels on each map: four times the stride where they are left out. The other
    arguments are those of :func:`~lightning_zoo.models.detection.backbones.fpn_backbone` and of the
    network.
    """
    pyramid = fpn_for(
        backbone,
        pretrained_backbone=True,
        weights_backbone=wanted_weights(pretrained_backbone, weights_backbone),
        trained=trained,
        trainable_layers=trainable_backbone_layers,
        returned_layers=returned_layers,
        out_channels=fpn_channels,
        extra_blocks=LastLevelP6P7(fpn_channels, fpn_channels),
        norm_layer=norm_layer,
        progress=progress,
        **(backbone_args or {}),
    )
    if anchor_sizes is None:
        first = 8 * 2 ** min(returned_layers)
        anchor_sizes = [first * 2**i for i in range(len(returned_layers) + 2)]
    anchors = retina_anchors(anchor_sizes, aspect_ratios)
    return RetinaNet(pyramid, num_classes, **{"anchor_generator": anchors, **kwargs})
