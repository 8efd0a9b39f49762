"""Exactly torchvision's results, where it is installed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_zoo import ops

pytestmark = pytest.mark.parity
THRESHOLDS = (0.05, 0.3, 0.45, 0.5, 0.55, 0.6, 0.7)
CASES = 20_000


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pytest.importorskip("torchvision")


def random_boxes(g: torch.Generator, kind: int, count: int) -> Tensor:
    if kind % 8 == 0:  # integers: many equal overlaps
        corner = torch.randint(0, 20, (count, 2), generator=g).float()
        return torch.cat([corner, corner + torch.randint(0, 12, (count, 2), generator=g)], dim=1)
    center = torch.rand(count, 2, generator=g) * 100
    if kind % 8 in (1, 2):  # around few centres
        center = center[torch.randint(0, max(1, count // 20), (count,), generator=g)]
        center = center + torch.randn(count, 2, generator=g)
    size = torch.rand(count, 2, generator=g) * 30
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1)
    pick = torch.randint(0, max(count, 1), (3,), generator=g)
    if kind % 8 == 3 and count:
        boxes[pick[0], pick[1] % 4] = math.nan
    elif kind % 8 == 4 and count:
        boxes[pick[0], pick[1] % 4] = math.inf
        boxes[pick[1], pick[2] % 4] = -math.inf
    elif kind % 8 == 5 and count:
        boxes[pick] = boxes[pick][:, [2, 3, 0, 1]]  # inverted
    elif kind % 8 == 6 and count:
        boxes[pick, 2:] = boxes[pick, :2]  # a point
        boxes[::7, 3] = boxes[::7, 1]
    elif kind % 8 == 7:
        boxes = boxes * 10.0 ** float(torch.randint(-12, 13, (1,), generator=g)) + float(pick[0])
    return boxes


def test_nms_in_random_cases(theirs: Any) -> None:
    for seed in range(CASES):
        g = torch.Generator().manual_seed(seed)
        large = seed % 25 == 0  # beyond 400 boxes another path does the work
        count = int(torch.randint(0, 1500 if large else 60, (1,), generator=g))
        boxes = random_boxes(g, seed // 25 if large else seed, count)
        scores = torch.rand(count, generator=g)
        if seed % 3 == 0:
            scores = (scores * 10).round() / 10
        if seed % 50 == 1 and count:
            scores[0] = math.nan
        threshold = THRESHOLDS[seed % 7]
        expected = theirs.ops.nms(boxes, scores, threshold)
        got = ops.nms(boxes, scores, threshold)
        assert torch.equal(got, expected), f"seed {seed}, {count} boxes, threshold {threshold}"


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
def test_nms_of_many_boxes(theirs: Any, scale: float) -> None:
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        count = 1000 + 400 * seed
        boxes = random_boxes(g, (0, 1, 6)[seed % 3], count) * scale
        boxes[:, 2:] *= float(1 + seed % 2)
        scores = torch.rand(count, generator=g)
        for threshold in (THRESHOLDS[seed % 7], 0.001, 0.9, 0.99):
            expected = theirs.ops.nms(boxes, scores, threshold)
            assert torch.equal(ops.nms(boxes, scores, threshold), expected)


def test_nms_of_doubles(theirs: Any) -> None:
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        boxes = random_boxes(g, seed, 200).double()
        scores = torch.rand(200, generator=g).double()
        threshold = THRESHOLDS[seed % 7]
        expected = theirs.ops.nms(boxes, scores, threshold)
        assert torch.equal(ops.nms(boxes, scores, threshold), expected)


@pytest.mark.parametrize("count", [0, 1, 200, 1000, 1001, 3000])
@pytest.mark.parametrize("kind", [0, 1, 3, 5, 6])
def test_batched_nms(theirs: Any, count: int, kind: int) -> None:
    g = torch.Generator().manual_seed(count + kind)
    boxes = random_boxes(g, kind, count)
    scores = (torch.rand(count, generator=g) * 50).round() / 50
    kinds = torch.randint(0, 7, (count,), generator=g) * 13
    for threshold in THRESHOLDS:
        expected = theirs.ops.batched_nms(boxes, scores, kinds, threshold)
        assert torch.equal(ops.batched_nms(boxes, scores, kinds, threshold), expected)


def random_rois(g: torch.Generator, count: int, maps: int, side: float) -> Tensor:
    """Small, large, degenerate, inverted, outside and all of the map."""
    center = torch.rand(count, 2, generator=g) * side
    size = torch.exp(torch.rand(count, 2, generator=g) * math.log(side))
    rois = torch.cat([center - size / 2, center + size / 2], dim=1)
    rois[0] = torch.tensor([0, 0, side, side])
    rois[1] = torch.tensor([side * 2, side * 2, side * 3, side * 3])
    rois[2, 2:] = rois[2, :2]
    rois[3] = rois[3, [2, 3, 0, 1]]
    rois[4] = rois[4].round()
    index = torch.randint(0, maps, (count, 1), generator=g).float()
    return torch.cat([index, rois], dim=1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3, 0, -1])
@pytest.mark.parametrize("size", [7, (3, 5)])
def test_roi_align(theirs: Any, aligned: bool, samples: int, size: int | tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(samples + 10 * aligned)
    for scale in (1.0, 0.25):
        features = torch.randn(2, 5, 31, 44, generator=g, requires_grad=True)
        rois = random_rois(g, 40, 2, 40 / scale)
        args = (rois, size, scale, samples, aligned)
        ours, expected = ops.roi_align(features, *args), theirs.ops.roi_align(features, *args)
        assert (ours - expected).abs().max() <= 1e-6
        grad = torch.rand(ours.shape, generator=g) / 4
        (mine,) = torch.autograd.grad(ours, features, grad)
        (other,) = torch.autograd.grad(expected, features, grad)
        assert (mine - other).abs().max() <= 2e-6 * max(1.0, float(other.abs().max()))


def test_multiscale_roi_align(theirs: Any) -> None:
    g = torch.Generator().manual_seed(0)
    sides = (64, 32, 16, 8)
    features = {str(i): torch.randn(2, 6, s, s + 3, generator=g) for i, s in enumerate(sides)}
    boxes = [random_rois(g, count, 1, 256.0)[:, 1:] for count in (30, 20)]
    boxes = [b[b[:, 2] >= b[:, 0]] for b in boxes]
    pooler = theirs.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    expected = pooler(features, boxes, [(256, 256), (256, 256)])
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    got = ops.multiscale_roi_align(list(features.values()), boxes, 7, scales)
    assert (got - expected).abs().max() <= 1e-6


def test_box_ops(theirs: Any) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = random_boxes(g, 1, 50), random_boxes(g, 0, 40)
    assert torch.equal(ops.box_area(a), theirs.ops.box_area(a))
    assert torch.equal(ops.box_iou(a, b), theirs.ops.box_iou(a, b))
    expected = theirs.ops.generalized_box_iou(a, b)
    torch.testing.assert_close(ops.generalized_box_iou(a, b), expected, equal_nan=True)
    assert torch.equal(
        ops.clip_boxes_to_image(a, (60, 50)), theirs.ops.clip_boxes_to_image(a, (60, 50))
    )
    for pair in (("xyxy", "xywh"), ("cxcywh", "xyxy"), ("xywh", "cxcywh")):
        expected = theirs.ops.box_convert(a, *pair)
        torch.testing.assert_close(ops.box_convert(a, *pair), expected)
    assert torch.equal(ops.remove_small_boxes(a, 5), theirs.ops.remove_small_boxes(a, 5))
    masks = torch.rand(4, 9, 11, generator=g) > 0.9
    assert torch.equal(ops.masks_to_boxes(masks), theirs.ops.masks_to_boxes(masks))


def test_focal_loss(theirs: Any) -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    targets = (logits > 1).float()
    for alpha, gamma in ((0.25, 2.0), (-1, 1.5)):
        expected = theirs.ops.sigmoid_focal_loss(logits, targets, alpha, gamma, "sum")
        got = ops.sigmoid_focal_loss(logits, targets, alpha, gamma, "sum")
        torch.testing.assert_close(got, expected)


def test_pasted_masks(theirs: Any) -> None:
    g = torch.Generator().manual_seed(0)
    paste = theirs.models.detection.roi_heads.paste_masks_in_image
    boxes = random_rois(g, 30, 1, 90.0)[:, 1:]
    masks = torch.rand(30, 1, 28, 28, generator=g)
    keep = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < 80) & (boxes[:, 1] < 70)
    masks, boxes = masks[keep], boxes[keep]
    torch.testing.assert_close(
        ops.paste_masks(masks, boxes, (70, 80)), paste(masks, boxes, (70, 80)), atol=1e-6, rtol=0
    )


def test_boxes_of_ssd_and_anchors(theirs: Any) -> None:
    anchor_utils = theirs.models.detection.anchor_utils
    ratios = [[2], [2, 3], [2, 3], [2]]
    scales = [0.1, 0.3, 0.6, 0.8, 1.05]
    steps = [8, 16, 32, 64]
    grids = [(20, 15), (10, 8), (5, 4), (1, 1)]
    image = torch.zeros(1, 3, 160, 160)
    images = theirs.models.detection.image_list.ImageList(image, [(160, 160)])
    maps = [torch.zeros(1, 1, *grid) for grid in grids]
    for used in (steps, None):
        generator = anchor_utils.DefaultBoxGenerator(ratios, scales=scales, steps=used)
        expected = generator(images, maps)[0]
        sizes = ops.default_box_sizes(scales, ratios)
        got = ops.default_boxes(grids, (160, 160), sizes, steps=used)
        torch.testing.assert_close(got, expected)
    sizes, ratios = ((32, 40, 50), (64, 80, 101)), ((0.5, 1.0, 2.0),) * 2
    expected = anchor_utils.AnchorGenerator(sizes, ratios)(images, maps[:2])[0]
    cells = [ops.cell_anchors(s, r) for s, r in zip(sizes, ratios, strict=True)]
    strides = [(160 // h, 160 // w) for h, w in grids[:2]]
    assert torch.equal(torch.cat(ops.grid_anchors(grids[:2], strides, cells)), expected)


def test_matching_coding_and_sampling(theirs: Any) -> None:
    utils = theirs.models.detection._utils
    g = torch.Generator().manual_seed(0)
    for seed in range(200):
        truth, boxes = random_boxes(g, seed % 3, 1 + seed % 7), random_boxes(g, 0, 60)
        iou = ops.box_iou(truth, boxes).nan_to_num(0)
        for high, low, also in ((0.7, 0.3, True), (0.5, 0.5, False), (0.5, 0.4, True)):
            expected = utils.Matcher(high, low, allow_low_quality_matches=also)(iou)
            assert torch.equal(ops.match(iou, high, low, also), expected)
        labels = torch.randint(-1, 3, (100,), generator=g)
        sampler = utils.BalancedPositiveNegativeSampler(32, 0.25)
        torch.manual_seed(seed)
        (positive,), (negative,) = sampler([labels])
        torch.manual_seed(seed)
        got = ops.sample_balanced(labels, 32, 0.25)
        assert torch.equal(got[0], positive.bool())
        assert torch.equal(got[1], negative.bool())
        a, b = random_boxes(g, 1, 30), random_boxes(g, 1, 30)
        a[:, 2:] += 1
        b[:, 2:] += 1
        weights = (10.0, 10.0, 5.0, 5.0)
        coder = utils.BoxCoder(weights)
        (expected,) = coder.encode([a], [b])
        torch.testing.assert_close(ops.encode_boxes(a, b, weights), expected)
        deltas = torch.randn(30, 8, generator=g) * 5
        expected = coder.decode(deltas, [b]).flatten(1)
        torch.testing.assert_close(ops.decode_boxes(deltas, b, weights), expected)


def test_keypoints(theirs: Any) -> None:
    heads = theirs.models.detection.roi_heads
    g = torch.Generator().manual_seed(0)
    boxes = random_boxes(g, 7, 10).abs()
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + 1 + 40 * torch.rand(10, 2, generator=g)], 1)
    points = torch.rand(10, 17, 3, generator=g)
    points[..., :2] = boxes[:, None, :2] + (points[..., :2] * 1.4 - 0.2) * (
        boxes[:, None, 2:] - boxes[:, None, :2]
    )
    points[:, 0, :2], points[..., 2] = boxes[:, 2:], (points[..., 2] > 0.3).float()
    expected = heads.keypoints_to_heatmap(points, boxes, 56)
    bins, valid = ops.keypoint_bins(points, boxes, 56)
    assert torch.equal(bins, expected[0])
    assert torch.equal(valid, expected[1].bool())
    maps = torch.randn(10, 17, 56, 56, generator=g)
    points, scores = heads.heatmaps_to_keypoints(maps, boxes)
    got = ops.decode_heatmaps(maps, boxes)
    torch.testing.assert_close(got[0], points)
    torch.testing.assert_close(got[1], scores)
