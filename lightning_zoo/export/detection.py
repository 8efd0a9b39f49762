"""Detectors as graphs: one image of any size in, what is found in it out, with no Python between.

The networks' own parts are called (backbone, heads, the selection of detections). What stands here
is what they do by looking at sizes and counts in Python, which a graph cannot: the size an image is
resized to, anchors, how many candidates there are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.layers import MultiScaleRoIAlign
from lightning_zoo.models.detection.faster_rcnn import FasterRCNN
from lightning_zoo.models.detection.retinanet import RetinaNet
from lightning_zoo.models.detection.roi_heads import RoIHeads
from lightning_zoo.models.detection.rpn import CODER_WEIGHTS, RegionProposalNetwork, flatten_map
from lightning_zoo.models.detection.ssd import SSD
from lightning_zoo.models.detection.transform import GeneralizedRCNNTransform, ImageList, precise
from lightning_zoo.ops import (
    batched_nms,
    clip_boxes_to_image,
    decode_boxes,
    decode_heatmaps,
    multiscale_roi_align,
    paste_masks,
)

Found = dict[str, Tensor]
Size = tuple[int, int]  # height and width, in a graph symbols that stand for them
PROBE = 256  # pixels; maps of such an image tell their strides


class DetectorGraph(nn.Module):
    """A detector for one uint8 image ``(3, H, W)``, made to be traced.

    Args:
        model: A detector of the zoo, in evaluation; it is copied.
        thresholds: Score ``(num_classes,)`` below which a detection of each class is dropped; None
            leaves all that the network gives.
    """

    thresholds: Tensor | None
    anchors: Tensor  # of SSD, whose images have one size

    def __init__(self, model: nn.Module, thresholds: Tensor | None = None) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).float().eval()
        self.register_buffer("thresholds", thresholds)
        if isinstance(self.model, FasterRCNN):
            self._fix_strides(self.model)
        if isinstance(self.model, SSD):
            self.register_buffer("anchors", _fixed_anchors(self.model))

    def forward(self, image: Tensor) -> Found:
        """Return ``boxes``, ``labels``, ``scores`` and what the network has heads for, best first.

        As of the network itself: boxes ``(N, 4)`` float32 in pixels of the image, ``labels``
        ``(N,)`` int64, ``scores`` ``(N,)``, ``masks`` ``(N, 1, H, W)`` float32, ``keypoints``
        ``(N, points, 3)`` and ``keypoints_scores`` ``(N, points)``; N may be 0.
        """
        model = cast(Any, self.model)
        transform: GeneralizedRCNNTransform = model.transform
        batch, size = _prepare(transform, image)
        features = model.backbone(batch)
        if isinstance(features, Tensor):
            features = {"0": features}
        detect: dict[type, Callable[..., Found]] = {
            FasterRCNN: self._two_stages, RetinaNet: self._retina, SSD: self._ssd
        }  # fmt: skip
        (run,) = [run for kind, run in detect.items() if isinstance(model, kind)]
        found = run(batch, features, size)
        return _to_image(found, size, image)

    def _keep_sure(self, found: Found) -> Found:
        """Drop what lies below the threshold of its class."""
        if self.thresholds is None:
            return found
        keep = torch.where(found["scores"] >= self.thresholds[found["labels"]])[0]
        return {name: value[keep] for name, value in found.items()}

    # -----------------------------------------------------------------------------------------
    # Two stages

    def _fix_strides(self, model: FasterRCNN) -> None:
        """Give every pool the strides of its maps as numbers."""
        maps = _maps(model)
        heads = model.roi_heads
        for name in ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool"):
            pool = getattr(heads, name)
            if isinstance(pool, MultiScaleRoIAlign):
                taken = [maps[key] for key in pool.featmap_names if key in maps]
                scales = [2.0 ** round(math.log2(m.shape[-2] / PROBE)) for m in taken]
                setattr(heads, name, _FixedPool(pool, scales))

    def _two_stages(self, batch: Tensor, features: Mapping[str, Tensor], size: Size) -> Found:
        model = cast(FasterRCNN, self.model)
        heads: RoIHeads = model.roi_heads
        proposals = _propose(model.rpn, batch, list(features.values()), size)
        x = heads.box_head(heads.box_roi_pool(features, [proposals], [size]))
        logits, offsets = heads.box_predictor(x)
        found = heads._select(precise(logits).softmax(dim=-1), offsets, proposals, size)
        found = self._keep_sure(found)
        boxes, labels = [found["boxes"]], found["labels"]
        if heads.has_mask():
            logits = heads._mask_logits(features, boxes, [size], labels)
            found["masks"] = precise(logits).sigmoid()[:, None]
        if heads.has_keypoint():
            heatmaps = heads._heatmaps(features, boxes, [size])
            found["keypoints"], found["keypoints_scores"] = decode_heatmaps(heatmaps, boxes[0])
        return found

    # -----------------------------------------------------------------------------------------
    # One stage

    def _retina(self, batch: Tensor, features: Mapping[str, Tensor], size: Size) -> Found:
        model = cast(RetinaNet, self.model)
        maps = list(features.values())
        logits, offsets = model.head(maps)
        anchors = _anchors(model.anchor_generator, batch, maps)
        counts = [level.shape[1] for level in logits]
        threshold = model.score_thresh
        boxes, scores, labels = [], [], []
        for logit, offset, anchor in zip(
            logits, offsets, torch.split(anchors, counts), strict=True
        ):
            num_classes = logit.shape[2]
            score = precise(logit.flatten()).sigmoid()
            place = torch.where(score > threshold)[0]
            order = _best(score[place], model.topk_candidates)
            place = place[order]
            row = place // num_classes
            box = decode_boxes(offset[0][row], anchor[row], CODER_WEIGHTS)
            boxes.append(clip_boxes_to_image(box, size))
            scores.append(score[place])
            labels.append(place % num_classes)
        box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        keep = batched_nms(box, score, label, model.nms_thresh)[: model.detections_per_img]
        return self._keep_sure({"boxes": box[keep], "labels": label[keep], "scores": score[keep]})

    def _ssd(self, batch: Tensor, features: Mapping[str, Tensor], size: Size) -> Found:
        model = cast(SSD, self.model)
        outputs = model.head(list(features.values()))
        scores = precise(outputs["cls_logits"]).softmax(dim=-1)
        found = model._select(scores[0], outputs["bbox_regression"][0], self.anchors, size)
        return self._keep_sure({k: found[k] for k in ("boxes", "labels", "scores")})


class _FixedPool(nn.Module):
    """A pool whose strides are numbers.

    Args:
        pool: What it does the work of.
        scales: Positions per pixel of each map.
    """

    def __init__(self, pool: MultiScaleRoIAlign, scales: Sequence[float]) -> None:
        super().__init__()
        self.pool, self.scales = pool, list(scales)

    def forward(
        self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Any
    ) -> Tensor:
        """Return ``(K, C, *output_size)`` for the boxes ``(K, 4)`` of one image."""
        pool = self.pool
        maps = [features[name] for name in pool.featmap_names if name in features]
        # the network takes the strides from the height without padding: of low images they come out
        # as half or less, which larger boxes give as well
        height, rows = _as_double((image_shapes[0][0], maps[0].shape[-2])).unbind()
        stretch = torch.exp2((rows / (height * self.scales[0])).log2().round()).float()
        return multiscale_roi_align(
            maps,
            [box * stretch for box in boxes],
            pool.output_size,
            self.scales,
            sampling_ratio=pool.sampling_ratio,
            canonical_scale=pool.canonical_scale,
            canonical_level=pool.canonical_level,
        )


def _prepare(transform: GeneralizedRCNNTransform, image: Tensor) -> tuple[Tensor, Size]:
    """Return the batch of one image, normalised, resized and padded, and its size without padding.

    Sizes are computed in double precision, as Python does: in single precision an image of 427 x
    640 pixels could lose a row.
    """
    x = transform.normalize(image)[None]
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return _resize(x, (height, width)), (height, width)
    sides = _as_double((image.shape[-2], image.shape[-1]))
    scale = torch.minimum(transform.min_size[-1] / sides.min(), transform.max_size / sides.max())
    resized = (sides * scale).long().clamp(min=1)
    step = transform.size_divisible
    blocks = (resized + (step - 1)) // step
    height, width, rows, columns = (_number(n) for n in (*resized.unbind(), *blocks.unbind()))
    _promise(rows * step >= height)
    _promise(columns * step >= width)
    x = _resize(x, (height, width))
    padded = F.pad(x, (0, columns * step - width, 0, rows * step - height))
    return padded, (height, width)


def _resize(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _number(value: Tensor) -> int:
    """Return a size that depends on the image as a number, in a graph as a symbol."""
    number = cast(int, value.item())
    _promise(number >= 1)
    _promise(number <= 1 << 20)
    return number


def _promise(condition: bool) -> None:
    """Tell the tracer what holds, whatever the image."""
    torch._check(condition)  # type: ignore[no-untyped-call]


def _as_double(size: Sequence[int]) -> Tensor:
    return torch.stack([torch.scalar_tensor(side, dtype=torch.float64) for side in size])


def _to_image(found: Found, size: Size, image: Tensor) -> Found:
    """Take boxes, masks and keypoints to the pixels of the image that came in."""
    original = (image.shape[-2], image.shape[-1])
    y, x = (_as_double(original) / _as_double(size)).float().unbind()
    found["boxes"] = found["boxes"] * torch.stack([x, y, x, y])
    if "masks" in found:
        found["masks"] = paste_masks(found["masks"], found["boxes"], original)
    if "keypoints" in found:
        found["keypoints"] = found["keypoints"] * torch.stack([x, y, torch.ones_like(x)])
    return found


def _propose(
    rpn: RegionProposalNetwork, batch: Tensor, maps: Sequence[Tensor], size: Size
) -> Tensor:
    """Return the proposals ``(P, 4)`` of one image, best first."""
    logits, deltas = rpn.head(maps)
    scores = [flatten_map(level, 1)[0, :, 0] for level in logits]
    anchors = torch.split(_anchors(rpn.anchor_generator, batch, maps), [s.shape[0] for s in scores])
    boxes, best, kinds = [], [], []
    for level, (score, delta, anchor) in enumerate(zip(scores, deltas, anchors, strict=True)):
        top = _best(score, rpn._pre_nms_top_n["testing"])
        boxes.append(decode_boxes(flatten_map(delta, 4)[0][top], anchor[top], CODER_WEIGHTS))
        best.append(score[top])
        kinds.append(torch.full_like(top, level))
    box = clip_boxes_to_image(torch.cat(boxes), size)
    score, kind = precise(torch.cat(best)).sigmoid(), torch.cat(kinds)
    sides = box[:, 2:] - box[:, :2]
    keep = torch.where((sides >= rpn.min_size).all(dim=1) & (score >= rpn.score_thresh))[0]
    box, score, kind = box[keep], score[keep], kind[keep]
    keep = batched_nms(box, score, kind, rpn.nms_thresh)
    return box[keep[: rpn._post_nms_top_n["testing"]]]


def _best(scores: Tensor, count: int) -> Tensor:
    """Return the places of the highest scores, at most ``count``, where there may be fewer."""
    padded = torch.cat([scores, scores.new_full((count,), -torch.inf)])
    best, place = padded.topk(count)
    return place[torch.where(best > -torch.inf)[0]]


def _anchors(generator: Any, batch: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Return the anchors of all maps, made anew: symbols cannot be looked up in a cache."""
    grids = [(m.shape[-2], m.shape[-1]) for m in maps]
    return generator._make((batch.shape[-2], batch.shape[-1]), grids, batch.device)


def _maps(model: Any, size: Size = (PROBE, PROBE)) -> Mapping[str, Tensor]:
    with torch.no_grad():
        maps = model.backbone(torch.zeros(1, 3, *size))
    return {"0": maps} if isinstance(maps, Tensor) else maps


def _fixed_anchors(model: SSD) -> Tensor:
    width, height = cast(Size, model.transform.fixed_size)
    maps = list(_maps(model, (height, width)).values())
    batch = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    return model.anchor_generator(batch, maps)[0]
