"""The second stage: what stands in each proposed box, its exact place, its mask and keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.models.detection.mask_targets import mask_targets
from lightning_zoo.models.detection.rpn import BalancedSampler, Generators
from lightning_zoo.models.detection.transform import Detections, Size, Target, precise
from lightning_zoo.ops import (
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    decode_heatmaps,
    encode_boxes,
    keypoint_bins,
    match,
    remove_small_boxes,
)

MIN_SIDE = 1e-2
"""Side in pixels below which detections are dropped."""


class Samples(NamedTuple):
    """The boxes of one image that take part in the losses.

    Attributes:
        boxes: ``(K, 4)``, those that match an object first.
        num_positives: How many do.
        objects: ``(K,)`` int64, the object of each (0 for the others).
        labels: ``(K,)`` int64, 0 for background.
    """

    boxes: Tensor
    num_positives: int
    objects: Tensor
    labels: Tensor


class RoIHeads(nn.Module):
    """Classify proposals and refine them; give masks and keypoints where it has heads for them.

    Args:
        box_roi_pool: Cuts proposals out of the feature maps.
        box_head: Turns a cut into a vector.
        box_predictor: Turns a vector into logits ``(K, C)`` and offsets ``(K, 4 * C)``.
        fg_iou_thresh: Overlap with an object from which on a proposal is positive.
        bg_iou_thresh: Overlap below which it is background.
        batch_size_per_image: Proposals of an image that take part in the loss.
        positive_fraction: The largest share of positives among them.
        bbox_reg_weights: Factors of the offsets; None for 10, 10, 5, 5.
        score_thresh: Probability above which a box is a detection.
        nms_thresh: Overlap above which the less certain of two detections is suppressed.
        detections_per_img: Detections of an image at most.
        mask_roi_pool: As for boxes; the same for ``mask_head`` and ``mask_predictor``.
        mask_head: See above.
        mask_predictor: Turns a cut into logits ``(K, C, S, S)``.
        keypoint_roi_pool: As for boxes; the same for ``keypoint_head`` and the predictor.
        keypoint_head: See above.
        keypoint_predictor: Turns a cut into heat maps ``(K, points, S, S)``.
    """

    def __init__(
        self,
        box_roi_pool: nn.Module,
        box_head: nn.Module,
        box_predictor: nn.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        bbox_reg_weights: Sequence[float] | None,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
        mask_roi_pool: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        keypoint_roi_pool: nn.Module | None = None,
        keypoint_head: nn.Module | None = None,
        keypoint_predictor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.fg_bg_sampler = BalancedSampler(batch_size_per_image, positive_fraction)
        self.bbox_reg_weights = tuple(bbox_reg_weights or (10.0, 10.0, 5.0, 5.0))
        self.box_roi_pool = box_roi_pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.mask_roi_pool = mask_roi_pool
        self.mask_head = mask_head
        self.mask_predictor = mask_predictor
        self.keypoint_roi_pool = keypoint_roi_pool
        self.keypoint_head = keypoint_head
        self.keypoint_predictor = keypoint_predictor

    def has_mask(self) -> bool:
        """Whether there is a mask head."""
        return self.mask_predictor is not None

    def has_keypoint(self) -> bool:
        """Whether there is a keypoint head."""
        return self.keypoint_predictor is not None

    def forward(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        image_shapes: Sequence[Size],
        targets: Sequence[Target] | None = None,
        generators: Generators | None = None,
    ) -> tuple[list[Detections], dict[str, Tensor]]:
        """Return the detections of each image (none in training) and the losses.

        Args:
            features: Maps ``(N, C, H, W)`` by name.
            proposals: ``(P, 4)`` of each image, in pixels of the resized image.
            image_shapes: Height and width of each resized image.
            targets: ``boxes``, ``labels`` and what the heads learn; without them no losses.
            generators: Source of randomness for each image; left out, the global one.
        """
        losses = {}
        if targets is not None:
            generators = generators or [None] * len(targets)
            losses = self._losses(features, proposals, image_shapes, targets, generators)
        if self.training:
            return [], losses
        return self._detect(features, proposals, image_shapes), losses

    # -----------------------------------------------------------------------------------------
    # Learning

    def _losses(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        image_shapes: Sequence[Size],
        targets: Sequence[Target],
        generators: Generators,
    ) -> dict[str, Tensor]:
        samples = [
            self._sample(boxes, target, generator)
            for boxes, target, generator in zip(proposals, targets, generators, strict=True)
        ]
        x = self.box_head(self.box_roi_pool(features, [s.boxes for s in samples], image_shapes))
        logits, offsets = self.box_predictor(x)
        losses = self._box_losses(logits, offsets, samples, targets)
        if self.has_mask() or self.has_keypoint():
            boxes = [s.boxes[: s.num_positives] for s in samples]
            objects = [s.objects[: s.num_positives] for s in samples]
            labels = torch.cat([s.labels[: s.num_positives] for s in samples])
        if self.has_mask():
            masks = self._mask_logits(features, boxes, image_shapes, labels)
            losses["loss_mask"] = mask_loss(masks, boxes, objects, targets, image_shapes)
        if self.has_keypoint():
            heatmaps = self._heatmaps(features, boxes, image_shapes)
            losses["loss_keypoint"] = keypoint_loss(heatmaps, boxes, objects, targets)
        return losses

    @torch.no_grad()
    def _sample(
        self, proposals: Tensor, target: Target, generator: torch.Generator | None
    ) -> Samples:
        """Choose the boxes of one image to learn from, its objects' own boxes among them."""
        truth, labels = target["boxes"], target["labels"]
        boxes = torch.cat([proposals, truth.to(proposals.dtype)])
        matches = match(box_iou(truth, boxes), self.fg_iou_thresh, self.bg_iou_thresh, False)
        objects = matches.clamp(min=0)
        if len(truth):
            label = torch.where(matches >= 0, labels[objects], matches + 1)
        else:
            label = torch.zeros_like(matches)
        positive, negative = self.fg_bg_sampler(label, generator)
        chosen = torch.cat([positive, negative])
        return Samples(boxes[chosen], len(positive), objects[chosen], label[chosen])

    def _box_losses(
        self, logits: Tensor, offsets: Tensor, samples: Sequence[Samples], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        labels = torch.cat([s.labels for s in samples])
        count = max(len(labels), 1)
        wanted, places, start = [], [], 0
        for sample, target in zip(samples, targets, strict=True):
            n = sample.num_positives
            places.append(torch.arange(start, start + n, device=labels.device))
            start += len(sample.labels)
            truth = target["boxes"][sample.objects[:n]]
            wanted.append(encode_boxes(truth, sample.boxes[:n], self.bbox_reg_weights))
        place = torch.cat(places)
        offsets = offsets.view(len(labels), offsets.shape[1] // 4, 4)
        # a regressor that knows no classes has one set of offsets for all of them
        kind = labels[place] if offsets.shape[1] > 1 else torch.zeros_like(place)
        return {
            "loss_classifier": F.cross_entropy(precise(logits), labels, reduction="sum") / count,
            "loss_box_reg": F.smooth_l1_loss(
                precise(offsets[place, kind]), torch.cat(wanted), beta=1 / 9, reduction="sum"
            )
            / count,
        }

    # -----------------------------------------------------------------------------------------
    # Answering

    def _detect(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        image_shapes: Sequence[Size],
    ) -> list[Detections]:
        x = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, offsets = self.box_predictor(x)
        scores = precise(logits).softmax(dim=-1)
        counts = [len(boxes) for boxes in proposals]
        detections = [
            self._select(*image)
            for image in zip(
                torch.split(scores, counts),
                torch.split(offsets, counts),
                proposals,
                image_shapes,
                strict=True,
            )
        ]
        boxes = [found["boxes"] for found in detections]
        counts = [len(b) for b in boxes]
        if self.has_mask():
            labels = torch.cat([found["labels"] for found in detections])
            masks = precise(self._mask_logits(features, boxes, image_shapes, labels)).sigmoid()
            for found, mask in zip(detections, torch.split(masks[:, None], counts), strict=True):
                found["masks"] = mask
        if self.has_keypoint():
            heatmaps = self._heatmaps(features, boxes, image_shapes)
            for found, heatmap in zip(detections, torch.split(heatmaps, counts), strict=True):
                found["keypoints"], found["keypoints_scores"] = decode_heatmaps(
                    heatmap, found["boxes"]
                )
        return detections

    def _select(self, scores: Tensor, offsets: Tensor, proposals: Tensor, size: Size) -> Detections:
        """Return the detections of one image; every box may be one of each class."""
        row, kind = torch.where(scores[:, 1:] > self.score_thresh)
        labels = kind + 1
        offsets = offsets.view(scores.shape[0], offsets.shape[1] // 4, 4)
        chosen = offsets[row, labels] if offsets.shape[1] > 1 else offsets[row, 0]
        boxes = decode_boxes(chosen, proposals[row], self.bbox_reg_weights)
        boxes = clip_boxes_to_image(boxes, size)
        keep = remove_small_boxes(boxes, MIN_SIDE)
        boxes, score, labels = boxes[keep], scores[row, labels][keep], labels[keep]
        keep = batched_nms(boxes, score, labels, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": boxes[keep], "labels": labels[keep], "scores": score[keep]}

    # -----------------------------------------------------------------------------------------
    # Masks and keypoints

    def _mask_logits(
        self,
        features: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[Size],
        labels: Tensor,
    ) -> Tensor:
        """Return the logits ``(K, S, S)`` of each box's own class."""
        pool, head, predictor = _heads(self.mask_roi_pool, self.mask_head, self.mask_predictor)
        x = head(pool(features, boxes, image_shapes))
        if hasattr(predictor, "of_class"):
            return predictor.of_class(x, labels)
        logits = predictor(x)
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _heatmaps(
        self,
        features: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[Size],
    ) -> Tensor:
        """Return logits ``(K, points, S, S)``."""
        pool, head, predictor = _heads(
            self.keypoint_roi_pool, self.keypoint_head, self.keypoint_predictor
        )
        return predictor(head(pool(features, boxes, image_shapes)))


def _heads(*modules: Any) -> tuple[Any, Any, Any]:
    pool, head, predictor = modules
    return pool, head, predictor


def mask_loss(
    logits: Tensor,
    boxes: Sequence[Tensor],
    objects: Sequence[Tensor],
    targets: Sequence[Target],
    image_shapes: Sequence[Size],
) -> Tensor:
    """Return the cross entropy of masks ``(K, S, S)``, averaged over their pixels."""
    wanted = [
        mask_targets(target["masks"], box, index, logits.shape[-1], size)
        for target, box, index, size in zip(targets, boxes, objects, image_shapes, strict=True)
    ]
    logits = precise(logits)
    truth = torch.cat(wanted).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    return loss / max(logits.numel(), 1)  # without positives 0, with the graph that DDP expects


def keypoint_loss(
    heatmaps: Tensor,
    boxes: Sequence[Tensor],
    objects: Sequence[Tensor],
    targets: Sequence[Target],
) -> Tensor:
    """Return the cross entropy of each labelled keypoint's place, averaged over the keypoints."""
    size = heatmaps.shape[-1]
    bins, valid = [], []
    for target, box, index in zip(targets, boxes, objects, strict=True):
        place, counts = keypoint_bins(target["keypoints"][index], box, size)
        bins.append(place.flatten())
        valid.append(counts.flatten())
    chosen = torch.where(torch.cat(valid))[0]
    logits = heatmaps.reshape(-1, size * size)[chosen]
    loss = F.cross_entropy(precise(logits), torch.cat(bins)[chosen], reduction="sum")
    return loss / max(len(chosen), 1)
