from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_zoo.ops import match, match_ssd, sample_balanced


def slow_match(iou: Tensor, high: float, low: float, low_quality: bool) -> list[int]:
    out = []
    rows = iou.tolist()
    for j in range(iou.shape[1]):
        column = [row[j] for row in rows]
        best = max(range(len(rows)), key=lambda i: (column[i], -i))
        result = best if column[best] >= high else -1 if column[best] < low else -2
        if low_quality and any(row[j] == max(row) for row in rows):
            result = best
        out.append(result)
    return out


def test_by_hand() -> None:
    iou = torch.tensor([[0.8, 0.3, 0.2, 0.1], [0.1, 0.4, 0.25, 0.6]])
    assert match(iou, 0.7, 0.3, False).tolist() == [0, -2, -1, -2]
    assert match(iou, 0.7, 0.3, True).tolist() == [0, -2, -1, 1]
    # the first object's best box overlaps the second object more, and goes with that
    iou = torch.tensor([[0.2, 0.1], [0.5, 0.6]])
    assert match(iou, 0.7, 0.3, True).tolist() == [1, 1]


@pytest.mark.parametrize("low_quality", [False, True])
def test_slow_formula(low_quality: bool) -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(50):
        iou = torch.randint(0, 11, (3, 20), generator=g).double() / 10  # many ties
        got = match(iou, 0.7, 0.3, low_quality).tolist()
        assert got == slow_match(iou, 0.7, 0.3, low_quality)


def test_without_objects_all_is_background() -> None:
    assert match(torch.zeros(0, 3), 0.7, 0.3, True).tolist() == [-1, -1, -1]
    assert match_ssd(torch.zeros(0, 3)).tolist() == [-1, -1, -1]
    assert match(torch.zeros(2, 0), 0.7, 0.3, True).shape == (0,)


def test_ssd_gives_each_object_a_box() -> None:
    iou = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.1, 0.3]])
    assert match_ssd(iou).tolist() == [0, 0, 1]
    iou = torch.tensor([[0.9, 0.1, 0.1], [0.95, 0.1, 0.1]])
    assert match_ssd(iou).tolist() == [1, -1, -1]  # both want box 0; the later object has it
    iou = torch.tensor([[0.2, 0.1], [0.3, 0.1]])
    assert match_ssd(iou).tolist() == [1, -1]


def test_sampling_keeps_the_proportion() -> None:
    labels = torch.tensor([1] * 50 + [0] * 100 + [-1] * 30 + [3] * 10)
    for size, fraction, positives, negatives in (
        (32, 0.25, 8, 24),
        (200, 0.5, 60, 100),
        (10**6, 0.5, 60, 100),
        (0, 0.5, 0, 0),
    ):
        positive, negative = sample_balanced(labels, size, fraction)
        assert (int(positive.sum()), int(negative.sum())) == (positives, negatives)
        assert (labels[positive] >= 1).all()
        assert (labels[negative] == 0).all()


def test_sampling_is_uniform_and_from_its_generator() -> None:
    labels = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])
    counts = torch.zeros(8)
    g = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    for _ in range(2000):
        positive, negative = sample_balanced(labels, 4, 0.5, g)
        counts += positive.float() + negative.float()
    assert torch.equal(torch.get_rng_state(), state)
    assert ((counts - 1000).abs() < 120).all()
    again = [sample_balanced(labels, 4, 0.5, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(again[0][0], again[1][0])
    assert sample_balanced(labels[:0], 4, 0.5)[0].shape == (0,)
