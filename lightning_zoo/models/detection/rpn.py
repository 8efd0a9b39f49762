"""Region proposals: where something may be, whatever it is.

Paper: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", NeurIPS 2015, https://arxiv.org/abs/1506.01497.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.layers import ConvNormAct
from lightning_zoo.layers.conv_norm import has_hooks
from lightning_zoo.models.detection.transform import ImageList, Target, precise
from lightning_zoo.ops import (
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    encode_boxes,
    match,
    sample_balanced,
)

CODER_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
Generators = Sequence[torch.Generator | None]


@dataclass
class BalancedSampler:
    """How many boxes of an image take part in a loss.

    Attributes:
        batch_size_per_image: Boxes at most.
        positive_fraction: The largest share of positives among them.
    """

    batch_size_per_image: int
    positive_fraction: float

    def __call__(
        self, labels: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the indices of the chosen positives and negatives (label 0) of one image."""
        positive, negative = sample_balanced(
            labels, self.batch_size_per_image, self.positive_fraction, generator
        )
        return torch.where(positive)[0], torch.where(negative)[0]


class RPNHead(nn.Module):
    """Objectness and box offsets at each position of each feature map.

    Args:
        in_channels: Channels of the maps.
        num_anchors: Anchors at one position.
        conv_depth: 3x3 convolutions before the two outputs.
    """

    def __init__(self, in_channels: int, num_anchors: int, conv_depth: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(ConvNormAct(in_channels, in_channels, 3, norm_layer=None) for _ in range(conv_depth))
        )
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, kernel_size=1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, kernel_size=1)
        init_normal_(self, 0.01)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return for each map logits ``(N, A, H, W)`` and offsets ``(N, 4 * A, H, W)``."""
        hidden = [self.conv(feature) for feature in features]
        return [self.cls_logits(x) for x in hidden], [self.bbox_pred(x) for x in hidden]

    def at(
        self, features: Sequence[Tensor], chosen: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return logits ``(S,)`` and offsets ``(S, 4)`` of a few anchors of each image.

        They equal those of :meth:`forward` up to rounding; needs a depth of one convolution.

        Args:
            features: Maps ``(N, C, H, W)``.
            chosen: For each image the indices of its anchors, counted over all maps by row, column
                and anchor.
        """
        anchors = self.cls_logits.out_channels
        index = torch.cat(list(chosen))
        image = torch.cat([torch.full_like(found, i) for i, found in enumerate(chosen)])
        patches, places, start = [], [], 0
        for x in features:
            count = x.shape[2] * x.shape[3] * anchors
            place = torch.where((index >= start) & (index < start + count))[0]
            position = (index[place] - start).div(anchors, rounding_mode="floor")
            patches.append(neighbourhoods(x, image[place], position))
            places.append(place)
            start += count
        order = torch.cat(places).argsort()
        conv = self.conv[0][0]  # type: ignore[index]
        weight = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
        hidden = F.relu(torch.addmm(conv.bias, torch.cat(patches)[order], weight))
        logits = F.linear(hidden, self.cls_logits.weight.flatten(1), self.cls_logits.bias)
        deltas = F.linear(hidden, self.bbox_pred.weight.flatten(1), self.bbox_pred.bias)
        anchor = index.remainder(anchors)
        rows = torch.arange(len(index), device=index.device)
        sizes = [len(found) for found in chosen]
        return list(
            zip(
                torch.split(logits[rows, anchor], sizes),
                torch.split(deltas.view(-1, anchors, 4)[rows, anchor], sizes),
                strict=True,
            )
        )


class RegionProposalNetwork(nn.Module):
    """Propose boxes for the second stage, and learn to.

    Args:
        anchor_generator: Makes the boxes to start from.
        head: Gives objectness and offsets, see :class:`RPNHead`.
        fg_iou_thresh: Overlap with an object from which on an anchor is positive.
        bg_iou_thresh: Overlap below which an anchor is negative.
        batch_size_per_image: Anchors of an image that take part in the loss.
        positive_fraction: The largest share of positives among them.
        pre_nms_top_n: Proposals of each map kept before suppression, under ``training`` and
            ``testing``.
        post_nms_top_n: Proposals of an image kept after it, likewise.
        nms_thresh: Overlap above which the less certain of two proposals is suppressed.
        score_thresh: Objectness in [0, 1] below which proposals are dropped.
        min_size: Side in pixels below which proposals are dropped.
    """

    def __init__(
        self,
        anchor_generator: nn.Module,
        head: nn.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_top_n: Mapping[str, int],
        post_nms_top_n: Mapping[str, int],
        nms_thresh: float,
        score_thresh: float = 0.0,
        min_size: float = 1e-3,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.fg_bg_sampler = BalancedSampler(batch_size_per_image, positive_fraction)
        self._pre_nms_top_n = dict(pre_nms_top_n)
        self._post_nms_top_n = dict(post_nms_top_n)
        self.nms_thresh = nms_thresh
        self.score_thresh = score_thresh
        self.min_size = min_size

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        targets: Sequence[Target] | None = None,
        generators: Generators | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals ``(P, 4)`` of each image, best first, and the losses.

        Args:
            images: The batch.
            features: Maps ``(N, C, H, W)`` by name, from high resolution to low.
            targets: ``boxes`` of each image; without them there are no losses.
            generators: Source of randomness for each image; left out, the global one.
        """
        maps = list(features.values())
        few = targets is not None and torch.is_grad_enabled() and self._loss_takes_few(maps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not few):
            logits, deltas = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        num_anchors = [level[0].numel() for level in logits]
        scores = torch.cat([flatten_map(level, 1)[..., 0] for level in logits], dim=1)  # (N, K)
        deltas = torch.cat([flatten_map(level, 4) for level in deltas], dim=1)  # (N, K, 4)
        proposals = self._propose(
            scores.detach(), deltas.detach(), anchors, images.image_sizes, num_anchors
        )
        if targets is None:
            return proposals, {}
        generators = generators or [None] * len(targets)

        def outputs(chosen: Sequence[Tensor]) -> Sequence[tuple[Tensor, Tensor]]:
            if few:
                return self.head.at(maps, chosen)  # type: ignore[operator]
            return [(scores[i, index], deltas[i, index]) for i, index in enumerate(chosen)]

        return proposals, self._losses(outputs, anchors, targets, generators)

    def _loss_takes_few(self, maps: Sequence[Tensor]) -> bool:
        """Whether gradients of the few anchors in the loss alone cost less than those of all.

        Proposals carry no gradient, so that nothing but the 256 anchors of the loss needs one: to
        run the head a second time at their positions saves its whole backward pass.
        """
        head = self.head
        if type(head) is not RPNHead or len(head.conv) > 1 or has_hooks(*head.modules()):
            return False
        positions = sum(x.shape[2] * x.shape[3] for x in maps)
        return 9 * self.fg_bg_sampler.batch_size_per_image < positions

    def _propose(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        num_anchors: Sequence[int],
    ) -> list[Tensor]:
        """Return the best proposals of each image: the top of each level, without doubles."""
        stage = "training" if self.training else "testing"
        tops, levels, start = [], [], 0
        for level, count in enumerate(num_anchors):
            top = min(self._pre_nms_top_n[stage], count)
            found = logits[:, start : start + count].topk(top, dim=1).indices + start
            tops.append(found)
            levels.append(torch.full((top,), level, device=logits.device))
            start += count
        kinds, top_index = torch.cat(levels), torch.cat(tops, dim=1)
        proposals = []
        for i, index in enumerate(top_index):
            boxes = decode_boxes(deltas[i, index], anchors[i][index], CODER_WEIGHTS)
            boxes = clip_boxes_to_image(boxes, sizes[i])
            score = precise(logits[i, index]).sigmoid()
            sides = boxes[:, 2:] - boxes[:, :2]
            keep = (sides >= self.min_size).all(dim=1) & (score >= self.score_thresh)
            keep = torch.where(keep)[0]
            boxes, score = boxes[keep], score[keep]
            keep = batched_nms(boxes, score, kinds[keep], self.nms_thresh)
            proposals.append(boxes[keep[: self._post_nms_top_n[stage]]])
        return proposals

    def _losses(
        self,
        outputs: Callable[[Sequence[Tensor]], Sequence[tuple[Tensor, Tensor]]],
        anchors: Sequence[Tensor],
        targets: Sequence[Target],
        generators: Generators,
    ) -> dict[str, Tensor]:
        """Return both losses; ``outputs`` gives logits and offsets of each image's anchors."""
        chosen, num_positive, regression = [], [], []
        for i, (target, generator) in enumerate(zip(targets, generators, strict=True)):
            boxes = target["boxes"]
            matches = match(
                box_iou(boxes, anchors[i]), self.fg_iou_thresh, self.bg_iou_thresh, True
            )
            # 1 for a match of any object, 0 for background, -1 for what lies between
            positive, negative = self.fg_bg_sampler(
                torch.where(matches >= 0, 1, matches + 1), generator
            )
            chosen.append(torch.cat([positive, negative]))
            num_positive.append(len(positive))
            regression.append(
                encode_boxes(boxes[matches[positive]], anchors[i][positive], CODER_WEIGHTS)
            )
        logits, deltas, labels = [], [], []
        for (logit, delta), count in zip(outputs(chosen), num_positive, strict=True):
            logits.append(precise(logit))
            deltas.append(precise(delta[:count]))
            labels.append(logits[-1].new_zeros(len(logit)))
            labels[-1][:count] = 1
        label = torch.cat(labels)
        objectness = F.binary_cross_entropy_with_logits(torch.cat(logits), label, reduction="sum")
        offsets = F.smooth_l1_loss(
            torch.cat(deltas), torch.cat(regression), beta=1 / 9, reduction="sum"
        )
        total = max(len(label), 1)
        return {"loss_objectness": objectness / total, "loss_rpn_box_reg": offsets / total}


def neighbourhoods(x: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Return the 3x3 pixels round some positions of maps, zero outside, as ``(S, 9 * C)``.

    Args:
        x: Maps ``(N, C, H, W)``.
        image: Which map, int64 ``(S,)``.
        position: Which pixel of it, by rows, int64 ``(S,)``.
    """
    height, width = x.shape[2:]
    step = torch.tensor([-1, 0, 1], device=x.device)
    rows = position.div(width, rounding_mode="floor")[:, None, None] + step[:, None]  # (S, 3, 1)
    columns = position.remainder(width)[:, None, None] + step  # (S, 1, 3)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = x[
        image[:, None, None], :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    ]  # (S, 3, 3, C)
    return (pixels * inside.unsqueeze(-1)).flatten(1)


def flatten_map(x: Tensor, width: int) -> Tensor:
    """Turn a head's output ``(N, A * width, H, W)`` into ``(N, H * W * A, width)``."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def init_normal_(module: nn.Module, std: float) -> None:
    """Draw the weights of all convolutions from a normal distribution; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
