"""The confusion matrix: by hand, against a slow formula, over ranks, at the edges, and its pace."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_zoo.metrics import ConfusionMatrix, format_table

ROOT = Path(__file__).resolve().parents[2]
TRUTH = torch.tensor([[0, 0, 1], [1, 2, 255]], dtype=torch.uint8)
FOUND = torch.tensor([[0, 1, 1], [1, 0, 2]], dtype=torch.uint8)


def measure(labels: Tensor, target: Tensor, classes: int) -> dict[str, float]:
    metric = ConfusionMatrix(classes)
    metric.update(labels, target)
    return {name: float(value) for name, value in metric.compute().items()}


def sample(
    seed: int, classes: int, shape: tuple[int, ...] = (3, 20, 24), dtype: torch.dtype = torch.uint8
) -> tuple[Tensor, Tensor]:
    """Return predictions that are mostly right, and truth with void."""
    rng = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, shape, generator=rng)
    other = torch.randint(classes, shape, generator=rng)
    labels = torch.where(torch.rand(shape, generator=rng) < 0.7, target, other)
    target[torch.rand(shape, generator=rng) < 0.1] = 255
    return labels.to(dtype), target.to(dtype)


def slow(labels: Tensor, target: Tensor, classes: int) -> dict[str, float]:
    """Intersections and unions as sets of pixels."""
    truth, found = target.flatten().tolist(), labels.flatten().tolist()
    counted = {i for i, label in enumerate(truth) if 0 <= label < classes}
    ious = []
    for label in range(classes):
        true = {i for i in counted if truth[i] == label}
        predicted = {i for i in counted if found[i] == label}
        if true | predicted:
            ious.append(len(true & predicted) / len(true | predicted))
    right = sum(truth[i] == found[i] for i in counted)
    return {"miou": 100 * sum(ious) / len(ious), "pixel_acc": 100 * right / len(counted)}


def test_worked_by_hand() -> None:
    metric = ConfusionMatrix(3)
    metric.update(FOUND, TRUTH)
    assert metric.counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    found = metric.compute()
    # class 0: 1 of 3, class 1: 2 of 3, class 2: none of 1
    assert float(found["miou"]) == pytest.approx(100 / 3)
    assert float(found["pixel_acc"]) == pytest.approx(60)
    assert {value.dtype for value in found.values()} == {torch.float64}
    rows = metric.per_class(["__background__", "cat", "dog"])
    assert rows[1] == {
        "label": 1,
        "name": "cat",
        "pixels": 2,
        "iou": pytest.approx(200 / 3),
        "acc": 100.0,
    }
    assert [row["pixels"] for row in rows] == [2, 2, 1]
    assert [row["acc"] for row in rows] == [50.0, 100.0, 0.0]
    assert "2  dog" in format_table(rows)


@pytest.mark.parametrize("classes", [2, 21, 200, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64], ids=str)
def test_slow_formula(classes: int, dtype: torch.dtype) -> None:
    labels, target = sample(classes, classes, dtype=dtype)
    metric = ConfusionMatrix(classes)
    for one, truth in zip(labels, target, strict=True):
        metric.update(one, truth)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx(slow(labels, target, classes), abs=1e-9)
    assert int(metric.counts.sum()) == int((target != 255).sum())
    assert metric.counts.dtype == torch.int64


def test_whatever_is_no_class_does_not_count() -> None:
    target = torch.tensor([0, -1, 1, 3, 255, 100_000, -(2**40)])
    metric = ConfusionMatrix(3)
    metric.update(torch.tensor([0, 2, 2, 2, 2, 2, 2]), target)
    assert metric.counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_more_classes_than_bytes() -> None:
    labels, target = sample(1, 300, dtype=torch.int64)  # 255 is a class like any other here
    assert measure(labels, target, 300) == pytest.approx(slow(labels, target, 300), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_order_and_batches_change_nothing(seed: int) -> None:
    labels, target = sample(seed, 7)
    whole = ConfusionMatrix(7)
    whole.update(labels, target)
    order = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(seed))
    parts = ConfusionMatrix(7)
    for part in order.split([1, 700, labels.numel() - 701]):
        parts.update(labels.flatten()[part], target.flatten()[part])
    assert torch.equal(parts.counts, whole.counts)
    assert parts.compute() == whole.compute()


def test_renaming_the_classes_changes_nothing() -> None:
    labels, target = sample(4, 9, dtype=torch.int64)
    place = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    renamed = torch.cat([place, torch.full((247,), 255)])
    assert measure(renamed[labels], renamed[target], 9) == pytest.approx(
        measure(labels, target, 9), abs=1e-12
    )


def test_absent_classes_are_left_out() -> None:
    target = torch.tensor([0, 0, 5, 5], dtype=torch.uint8)
    metric = ConfusionMatrix(8)
    metric.update(torch.tensor([0, 0, 5, 6], dtype=torch.uint8), target)
    # 0 is whole, 5 is half, 6 was seen where it is not; the others are nowhere
    assert float(metric.compute()["miou"]) == pytest.approx(50)
    rows = metric.per_class(["a", "b"])
    assert [row["name"] for row in rows] == ["a", "b", *"234567"]
    assert [r["label"] for r in rows if not math.isnan(r["iou"])] == [0, 5, 6]
    assert [r["label"] for r in rows if not math.isnan(r["acc"])] == [0, 5], "6 is never true"


def test_no_pixel_counted() -> None:
    void = torch.full((4, 4), 255, dtype=torch.uint8)
    found = measure(torch.zeros_like(void), void, 3)
    assert math.isnan(found["miou"])
    assert math.isnan(found["pixel_acc"])
    metric = ConfusionMatrix(3)
    metric.update(void[:0], void[:0])
    assert int(metric.counts.sum()) == 0
    metric.update(torch.zeros_like(void), void)
    metric.update(FOUND, TRUTH)
    assert float(metric.compute()["pixel_acc"]) == pytest.approx(60), "void images change nothing"


def test_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"labels are \(2, 3\) and target is \(1, 3\)"):
        ConfusionMatrix(3).update(FOUND, TRUTH[:1])


def test_reset() -> None:
    metric = ConfusionMatrix(3)
    metric.update(FOUND, TRUTH)
    metric.per_class([])
    metric.reset()
    metric.update(TRUTH[:1], TRUTH[:1])
    assert [row["pixels"] for row in metric.per_class([])] == [2, 1, 0]
    assert float(metric.compute()["miou"]) == 100


def test_pace() -> None:
    """A matrix of one image costs far less than a network's pass: 0.7 ms on one core."""
    labels, target = sample(0, 21, (520, 700))
    metric = ConfusionMatrix(21)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        metric.update(labels, target)
        best = min(best, time.perf_counter() - start)
    assert best < 0.02


SCRIPT = """
import json, sys
from pathlib import Path
import torch.distributed as dist
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_confusion import ConfusionMatrix, sample

rank, folder = int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
labels, target = sample(3, 6, (5, 8, 9))
metric = ConfusionMatrix(6)
for i in [0, 2, 3, 4] if rank == 0 else [1]:
    metric.update(labels[i], target[i])
rows = metric.per_class([])  # first, and without what compute() has kept
figures = {name: float(value) for name, value in metric.compute().items()}
result = {"rows": rows, "figures": figures, "again": metric.per_class([])}
(folder / f"{rank}.json").write_text(json.dumps(result))
dist.destroy_process_group()
"""


def test_two_processes(tmp_path: Path) -> None:
    """Two processes with unequal shares say, both, what one process says."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(2):
        command = [sys.executable, str(script), __file__, str(rank), str(tmp_path)]
        running.append(subprocess.Popen(command, env=environment, cwd=tmp_path))
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    labels, target = sample(3, 6, (5, 8, 9))
    whole = ConfusionMatrix(6)
    whole.update(labels, target)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["figures"] == measure(labels, target, 6)
        assert found["rows"] == found["again"] == whole.per_class([])
