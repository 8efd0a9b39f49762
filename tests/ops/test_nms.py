from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_zoo.ops import batched_nms, nms, nms_blocks, nms_sweep


def slow_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """One box after the other, every step rounded to float32."""
    f = np.float32
    order = sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i))
    kept: list[int] = []
    for j in order:
        b = [f(v) for v in boxes[j].tolist()]
        for i in kept:
            a = [f(v) for v in boxes[i].tolist()]
            w = max(min(a[2], b[2]) - max(a[0], b[0]), f(0))
            h = max(min(a[3], b[3]) - max(a[1], b[1]), f(0))
            areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
            union = areas[0] + areas[1] - w * h
            if union != 0 and float(w * h / union) > threshold:
                break
        else:
            kept.append(j)
    return kept


def clusters(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return boxes around a few centres, and scores with ties."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.rand(max(1, count // 15), 2, generator=g) * 200
    center = centers[torch.randint(0, len(centers), (count,), generator=g)]
    center = center + torch.randn(count, 2, generator=g) * 2
    size = 10 + torch.rand(count, 2, generator=g) * 20
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1)
    return boxes, (torch.rand(count, generator=g) * 100).round() / 100


def test_by_hand() -> None:
    boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 1], [5, 5, 6, 6], [0, 0, 2, 1.5]])
    scores = torch.tensor([0.8, 0.9, 0.1, 0.7])
    # IoU of 0 and 1 is 1/2, of 0 and 3 is 3/4, of 1 and 3 is 2/3
    assert nms(boxes, scores, 0.7).tolist() == [1, 0, 2]
    assert nms(boxes, scores, 0.5).tolist() == [1, 0, 2]  # suppresses above, not at, the threshold
    assert nms(boxes, scores, 0.49).tolist() == [1, 2]
    assert nms(boxes, scores, 0.8).tolist() == [1, 0, 3, 2]


def test_threshold_is_compared_in_double_precision() -> None:
    # the IoU is 3/5, which as float32 lies above 0.6, and so does float32(0.6)
    boxes = torch.tensor([[0.0, 0, 5, 1], [0, 0, 3, 1]])
    assert nms(boxes, torch.tensor([2.0, 1.0]), 0.6).tolist() == [0]
    # the IoU 7/10 as float32 lies below 0.7
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 7, 1]])
    assert nms(boxes, torch.tensor([2.0, 1.0]), 0.7).tolist() == [0, 1]


@pytest.mark.parametrize(("count", "threshold"), [(1, 0.5), (60, 0.05), (300, 0.7), (500, 0.3)])
def test_slow_formula(count: int, threshold: float) -> None:
    boxes, scores = clusters(count, seed=count)
    if count != 300:
        boxes = boxes.round()  # ties of the IoU
    assert nms(boxes, scores, threshold).tolist() == slow_nms(boxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0.002, 0.05, 0.3, 0.5, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_sweep_and_blocks_agree(threshold: float, scale: float) -> None:
    for seed in range(2):
        boxes = clusters(1200, seed)[0] * scale
        boxes[::9, 2] += boxes[::9, 2] * 3 * scale  # a few far larger ones
        boxes[1::11] = boxes[::11][: len(boxes[1::11])]  # doubles
        boxes[:, 2:] = torch.maximum(boxes[:, :2], boxes[:, 2:])
        sides = boxes.T.contiguous().numpy()
        area = (sides[2] - sides[0]) * (sides[3] - sides[1])
        sides = np.concatenate([sides, area[None]])
        limit = np.float32(threshold)
        assert nms_sweep.suits(sides, limit)
        kept = nms_sweep.keep(sides, None, limit)
        assert np.array_equal(kept, nms_blocks.keep(sides, limit))
        on_device = nms_blocks.keep_on_device(boxes, None, float(limit))
        assert kept.tolist() == on_device.tolist()


def test_chain_where_each_touches_its_neighbour() -> None:
    x = torch.arange(3000.0)[:, None] * 4
    boxes = torch.cat([x, torch.zeros_like(x), x + 10, torch.ones_like(x)], dim=1)
    kept = nms(boxes, -x[:, 0], 0.4)  # neighbours overlap by 6 / 14
    assert kept.tolist() == list(range(0, 3000, 2))


def test_broken_boxes() -> None:
    boxes, scores = clusters(600)
    boxes[5, 0], boxes[6, 3], boxes[7, 2] = math.nan, math.inf, -math.inf
    boxes[8] = boxes[8, [2, 3, 0, 1]]
    assert len(nms(boxes, scores, 0.5)) == len(nms(boxes[:, [1, 0, 3, 2]], scores, 0.5))
    assert {5, 6} <= set(nms(boxes, scores, 0.5).tolist())  # their IoU is nan or 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(dtype: torch.dtype) -> None:
    boxes, scores = clusters(500)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    expected = nms(boxes.float(), scores.float(), 0.5)
    assert nms(boxes, scores, 0.5).tolist() == expected.tolist()
    kinds = torch.arange(500) % 3
    assert batched_nms(boxes, scores, kinds, 0.5).dtype == torch.int64


def test_empty() -> None:
    for kept in (
        nms(torch.zeros(0, 4), torch.zeros(0), 0.5),
        batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5),
    ):
        assert kept.shape == (0,)
        assert kept.dtype == torch.int64


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 80), st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_what_stays_is_apart_and_what_goes_is_covered(seed: int, count: int, limit: float) -> None:
    boxes, scores = clusters(count, seed) if count else (torch.zeros(0, 4), torch.zeros(0))
    kept = nms(boxes, scores, limit)
    assert kept.tolist() == slow_nms(boxes, scores, limit)
    assert torch.equal(scores[kept], scores[kept].sort(descending=True).values)
    assert nms(boxes[kept], scores[kept], limit).tolist() == list(range(len(kept)))
    mirrored = torch.stack([-boxes[:, 2], boxes[:, 1], -boxes[:, 0], boxes[:, 3]], dim=1)
    assert torch.equal(nms(mirrored, scores, limit), kept)


@pytest.mark.parametrize("count", [300, 1400])
@pytest.mark.parametrize("broken", [False, True])
def test_kinds_do_not_compete(count: int, broken: bool) -> None:
    boxes, _ = clusters(count)
    scores = torch.linspace(1, 0, count)
    if broken:
        boxes[3, 1] = math.inf if count > 1000 else boxes[3, 1]
    kinds = (torch.arange(count) * 7) % 5
    expected: list[int] = []
    for kind in range(5):
        index = torch.where(kinds == kind)[0]
        expected += index[nms(boxes[index], scores[index], 0.5)].tolist()
    assert batched_nms(boxes, scores, kinds, 0.5).tolist() == sorted(expected)
    on_device = nms_blocks.keep_on_device(boxes, kinds, 0.5)
    assert on_device.tolist() == sorted(expected)


def test_ops_pass_torch_own_checks() -> None:
    boxes, scores = clusters(30)
    kinds = torch.arange(30) % 3
    torch.library.opcheck(torch.ops.lightning_zoo.nms.default, (boxes, scores, 0.5))
    torch.library.opcheck(torch.ops.lightning_zoo.batched_nms.default, (boxes, scores, kinds, 0.5))


class Best(torch.nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, kinds: Tensor) -> Tensor:
        return boxes[batched_nms(boxes, scores, kinds, 0.5)[:10]]


def test_export_with_any_number_of_boxes() -> None:
    def arguments(count: int) -> tuple[Tensor, Tensor, Tensor]:
        return *clusters(count), torch.arange(count) % 3

    any_number = torch.export.Dim("boxes", min=2, max=100_000)
    exported = torch.export.export(Best(), arguments(20), dynamic_shapes=[{0: any_number}] * 3)
    for count in (30, 1100):
        got = exported.module()(*arguments(count))
        assert torch.equal(got, Best()(*arguments(count)))
