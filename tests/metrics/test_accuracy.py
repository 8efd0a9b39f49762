"""Accuracy and means: worked by hand, against a slow formula, over ranks, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_zoo.metrics import SampleMean, TopKAccuracy


def measure(metric: TopKAccuracy, logits: Tensor, labels: Tensor) -> dict[str, float]:
    metric.update(logits, labels)
    return {name: float(value) for name, value in metric.compute().items()}


def slow(logits: Tensor, labels: Tensor, k: int) -> float:
    """Count the samples with fewer than k logits above the label's."""
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += sum(value > row[label] for value in row) < k
    return 100 * right / len(labels)


def test_worked_by_hand() -> None:
    logits = torch.tensor(
        [
            [3.0, 2.0, 1.0, 0.0],  # label 0: first
            [3.0, 2.0, 1.0, 0.0],  # label 1: second
            [0.0, 1.0, 2.0, 3.0],  # label 0: fourth
            [-9.0, -1.0, -5.0, -7.0],  # label 2: second
            [0.5, 0.1, 0.9, 0.3],  # label 3: third
        ]
    )
    labels = torch.tensor([0, 1, 0, 2, 3])
    found = measure(TopKAccuracy((1, 2, 3)), logits, labels)
    assert found == {"acc@1": 20.0, "acc@2": 60.0, "acc@3": 80.0}


def test_default_is_one_and_five() -> None:
    assert set(measure(TopKAccuracy(), torch.eye(10), torch.arange(10))) == {"acc@1", "acc@5"}


@pytest.mark.parametrize("seed", range(3))
def test_slow_formula(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(200, 17, generator=rng)
    labels = torch.randint(17, (200,), generator=rng)
    metric = TopKAccuracy((1, 3, 5))
    for part in torch.arange(200).split([1, 120, 79]):
        metric.update(logits[part], labels[part])
    found = metric.compute()
    for k in (1, 3, 5):
        assert float(found[f"acc@{k}"]) == pytest.approx(slow(logits, labels, k), abs=1e-12)
        assert found[f"acc@{k}"].dtype == torch.float64
    assert int(metric.total) == 200


def test_renaming_the_classes_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(5)
    logits, labels = torch.randn(64, 9, generator=rng), torch.randint(9, (64,), generator=rng)
    order = torch.randperm(9, generator=rng)
    place = order.argsort()
    assert measure(TopKAccuracy((1, 4)), logits, labels) == measure(
        TopKAccuracy((1, 4)), logits[:, order], place[labels]
    )


def test_a_tie_has_one_winner() -> None:
    """Equal logits: each sample is right for exactly k of the labels, never for all."""
    labels = torch.arange(6)
    found = measure(TopKAccuracy((1, 2)), torch.zeros(6, 6), labels)
    assert found == {"acc@1": pytest.approx(100 / 6), "acc@2": pytest.approx(200 / 6)}


def test_nan_is_wrong() -> None:
    logits = torch.eye(4)
    logits[1, 1] = math.nan  # torch's topk puts NaN first
    logits[2, 0] = math.nan
    logits[3, 3] = math.inf
    found = measure(TopKAccuracy((1, 4)), logits, torch.arange(4))
    assert found == {"acc@1": 50.0, "acc@4": 50.0}


def test_fewer_classes_than_k() -> None:
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    assert measure(TopKAccuracy(), logits, torch.tensor([0, 1])) == {"acc@1": 50.0, "acc@5": 100.0}


def test_half_precision() -> None:
    logits = torch.eye(8, dtype=torch.bfloat16)
    assert measure(TopKAccuracy(), logits, torch.arange(8))["acc@1"] == 100.0


def test_nothing_counted() -> None:
    metric = TopKAccuracy()
    metric.update(torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_merged_over_two_ranks() -> None:
    """What torchmetrics sums over ranks gives the figures of all samples, evenly spread or not."""
    rng = torch.Generator().manual_seed(7)
    logits, labels = torch.randn(50, 8, generator=rng), torch.randint(8, (50,), generator=rng)
    ranks = [TopKAccuracy(), TopKAccuracy()]
    ranks[0].update(logits[:13], labels[:13])
    ranks[1].update(logits[13:], labels[13:])
    whole = TopKAccuracy()
    whole.update(logits, labels)
    merged = TopKAccuracy()
    for name, reduction in merged._reductions.items():
        assert reduction is not None
        state = reduction(torch.stack([getattr(rank, name) for rank in ranks]))
        setattr(merged, name, state)
    merged._update_count = 1
    assert merged.compute() == whole.compute()
    assert merged.correct.dtype == torch.int64, "whole numbers: no rounding in any order"


def test_reset() -> None:
    metric = TopKAccuracy((1,))
    measure(metric, torch.eye(3), torch.tensor([1, 2, 0]))
    metric.reset()
    assert measure(metric, torch.eye(3), torch.arange(3)) == {"acc@1": 100.0}


def test_mean() -> None:
    metric = SampleMean()
    metric.update(torch.tensor(2.0), 3)
    metric.update(torch.tensor(10.0, requires_grad=True), 1)
    assert float(metric.compute()) == 4.0
    metric.reset()
    # a million and one hundredth: float32 would lose the small ones
    metric.update(torch.tensor(1e6), 1)
    for _ in range(1000):
        metric.update(torch.tensor(0.01), 1)
    assert float(metric.sum) == pytest.approx(1e6 + 10, rel=1e-9)
    assert int(metric.count) == 1001
    assert not metric.sum.requires_grad


def test_mean_of_nothing() -> None:
    metric = SampleMean()
    metric.update(torch.zeros(()), 0)
    assert math.isnan(float(metric.compute()))
