from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision

from lightning_zoo.report.curves import NO_EVIDENCE, make_curve


def slow_point(
    scores: list[float], right: list[bool], truths: int, at: float
) -> tuple[float, float, float]:
    """Precision, recall and F1 by counting."""
    found = [ok for score, ok in zip(scores, right, strict=True) if score >= at]
    hits = sum(found)
    precision = hits / len(found) if found else math.nan
    recall = hits / truths if truths else math.nan
    return precision, recall, 2 * hits / (len(found) + truths) if found or truths else math.nan


def slow_average(scores: list[float], right: list[bool], truths: int) -> float:
    total, before = 0.0, 0.0
    for at in sorted(set(scores), reverse=True):
        precision, recall, _ = slow_point(scores, right, truths, at)
        total += precision * (recall - before)
        before = recall
    return total


@pytest.mark.parametrize("seed", range(12))
def test_a_slow_formula_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    scores = rng.integers(1, 12, count) / 12  # with ties
    right = rng.random(count) < 0.5
    truths = int(right.sum()) + int(rng.integers(0, 5))
    curve = make_curve(scores, right, truths)
    assert (np.diff(curve.scores) < 0).all()
    listed = scores.tolist(), right.tolist(), truths
    for score, precision, recall in zip(curve.scores, curve.precision, curve.recall, strict=True):
        expected = slow_point(*listed, score)
        assert (precision, recall) == pytest.approx(expected[:2], nan_ok=True)
    if not right.any():
        assert curve.best().threshold == NO_EVIDENCE
        return
    assert curve.average_precision == pytest.approx(slow_average(*listed))
    best = curve.best()
    assert (best.precision, best.recall, best.f1) == pytest.approx(
        slow_point(*listed, best.threshold)
    )
    every = {at: slow_point(*listed, at)[2] for at in (*scores.tolist(), 0.0, 1.1)}
    assert best.f1 == pytest.approx(max(every.values()))
    # of several that are best, the one that keeps the least
    highest = max(at for at, f1 in every.items() if f1 == pytest.approx(best.f1))
    kept = scores >= best.threshold
    assert kept.tolist() == (scores >= highest).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = rng.integers(0, 30, 60) / 30, rng.random(60) < 0.3
    expected = binary_average_precision(torch.tensor(scores), torch.tensor(right).long())
    curve = make_curve(scores, right, int(right.sum()))
    assert curve.average_precision == pytest.approx(float(expected), abs=1e-6)


def test_worked_by_hand() -> None:
    # by score: right, wrong, right, wrong; three are to be found
    curve = make_curve(np.array([0.4, 0.9, 0.6, 0.8]), np.array([False, True, True, False]), 3)
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.average_precision == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    best = curve.best()
    assert best.threshold == pytest.approx(0.5)  # halfway between 0.6 and 0.4
    assert best.f1 == pytest.approx(2 / 3)
    everything = make_curve(np.array([0.7, 0.3]), np.array([True, True]), 2).best()
    assert (everything.threshold, everything.f1) == (0.3, 1.0)


@pytest.mark.parametrize(
    ("scores", "right", "truths"),
    [([], [], 0), ([], [], 3), ([0.9, 0.2], [False, False], 0), ([0.9, 0.2], [False, False], 2)],
)
def test_no_evidence_is_one_half(scores: list[float], right: list[bool], truths: int) -> None:
    best = make_curve(np.array(scores), np.array(right, np.bool_), truths).best()
    assert best.threshold == 0.5
    assert (best.precision, best.recall, best.f1) == pytest.approx(
        slow_point(scores, right, truths, 0.5), nan_ok=True
    )
