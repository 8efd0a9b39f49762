"""Objects found and true: against pycocotools, by hand, and against each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_zoo.metrics import CocoMetric
from lightning_zoo.report.matching import match_objects
from lightning_zoo.report.objects import ObjectCollector

NAMES = ["__background__", "cat", "dog", "owl"]


def corners(rng: np.random.Generator, count: int) -> torch.Tensor:
    start = rng.integers(0, 60, (count, 2))
    return torch.tensor(np.hstack([start, start + rng.integers(8, 40, (count, 2))])).float()


def scene(rng: np.random.Generator, number: int, extra: int = 8) -> tuple[Any, Any]:
    """An image of a few objects, some of them crowds, found more or less well."""
    count = int(rng.integers(0, 7))
    boxes = corners(rng, count)
    labels = torch.tensor(rng.integers(1, 4, count))
    crowd = torch.tensor((rng.random(count) < 0.15).astype(np.int64))
    target = {"id": number, "boxes": boxes, "labels": labels, "iscrowd": crowd}
    near = boxes + torch.tensor(rng.integers(-6, 7, (count, 4))).float()
    near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
    confused = torch.tensor(rng.integers(1, 4, count))
    said = torch.where(torch.tensor(rng.random(count) < 0.25), confused, labels)
    twice = rng.integers(0, max(count, 1), 2 if count else 0)
    found = torch.cat([near, near[twice], corners(rng, extra)])
    said = torch.cat([said, said[twice], torch.tensor(rng.integers(1, 4, extra))])
    scores = torch.tensor(rng.integers(1, 25, len(found)) / 25).float()  # with ties
    return {"boxes": found, "labels": said, "scores": scores}, target


def slow_ap50(records: list[Any], label: int) -> float:
    """COCO's average of the precision at 101 recalls, from our matches."""
    entries, truths = [], 0
    for record in records:
        one = match_objects(record)
        truths += int((one.true_labels == label).sum())
        for place in range(len(one.labels)):
            if one.labels[place] == label and one.matches[place] != -2:
                entries.append((-one.scores[place], one.matches[place] >= 0))
    entries.sort(key=lambda entry: entry[0])  # a stable sort, as the evaluator's
    hits, points = 0, []
    for n, (_, right) in enumerate(entries, start=1):
        hits += right
        points.append((hits / truths, hits / n))
    total = 0.0
    for recall in np.linspace(0, 1, 101):
        total += max((p for r, p in points if r >= recall), default=0.0)
    return 100 * total / 101


@pytest.mark.parametrize("seed", range(5))
def test_the_evaluator_counts_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = CocoMetric(("bbox",), NAMES, backend="pycocotools")
    for number in range(25):
        found, target = scene(rng, number)
        metric.update([found], [target])
    compared = 0
    for row in metric.per_class():
        if row["objects"]:
            records = [metric.records[i] for i in sorted(metric.records)]
            assert slow_ap50(records, row["label"]) == pytest.approx(row["box_map50"], abs=1e-9)
            compared += 1
    assert compared == 3


def test_a_hundred_of_a_class_count() -> None:
    rng = np.random.default_rng(0)
    metric = CocoMetric(("bbox",), NAMES, backend="pycocotools")
    for number in range(3):
        found, target = scene(rng, number, extra=500)
        metric.update([found], [target])
    assert any((record.labels == 1).sum() > 100 for record in metric.records.values())
    for row in metric.per_class():
        records = list(metric.records.values())
        assert slow_ap50(records, row["label"]) == pytest.approx(row["box_map50"], abs=1e-9)


def collector(scenes: list[tuple[Any, Any]]) -> ObjectCollector:
    task = SimpleNamespace(iou_types=("bbox",), class_names=NAMES, sigmas=None)
    made = ObjectCollector(task)
    for found, target in scenes:
        made.add({"target": [target]}, {"detections": [found]})
    return made


def test_table_matrix_and_curves_agree() -> None:
    rng = np.random.default_rng(7)
    findings = collector([scene(rng, number) for number in range(40)]).finish()
    assert findings.confusion is not None
    counts = findings.confusion.counts
    assert findings.confusion.names == ["cat", "dog", "owl", "nothing"]
    for place, row in enumerate(findings.rows):
        right, true, found = counts[place, place], counts[place].sum(), counts[:, place].sum()
        assert row["objects"] == true
        assert row["recall"] == pytest.approx(100 * right / true)
        assert row["precision"] == pytest.approx(100 * right / found)
        assert row["threshold"] == f"{findings.thresholds[str(row['class'])]:.3f}"
    assert counts[3, 3] == 0
    assert list(findings.thresholds) == ["cat", "dog", "owl"]


def box(x: float, y: float) -> list[float]:
    return [x, y, x + 10, y + 10]


def objects(*entries: tuple[str, float, float, float]) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([box(x, y) for _, x, y, _ in entries]).reshape(-1, 4),
        "labels": torch.tensor([NAMES.index(name) for name, *_ in entries], dtype=torch.int64),
        "scores": torch.tensor([score for *_, score in entries]),
    }


def test_worked_by_hand() -> None:
    def truth(number: int, *entries: tuple[str, float, float]) -> dict[str, Any]:
        made = objects(*((name, x, y, 1.0) for name, x, y in entries))
        return {"id": number, "boxes": made["boxes"], "labels": made["labels"]}

    scenes = [
        # right, and found twice
        (objects(("cat", 0, 0, 0.9), ("cat", 1, 0, 0.8)), truth(1, ("cat", 0, 0))),
        # a dog taken for a cat, a dog missed
        (objects(("cat", 20, 20, 0.7)), truth(2, ("dog", 20, 20), ("dog", 50, 50))),
        # right
        (objects(("dog", 0, 0, 0.6), ("cat", 0, 50, 0.9)), truth(3, ("dog", 0, 0), ("cat", 0, 50))),
        # nothing found: two missed
        (objects(), truth(4, ("owl", 0, 0), ("owl", 30, 30))),
    ]
    findings = collector(scenes).finish()
    # cats: 0.9 right, 0.9 right, 0.8 wrong, 0.7 wrong: best at 0.9, halfway down to 0.8
    assert findings.thresholds["cat"] == pytest.approx(0.85)
    assert findings.thresholds["dog"] == pytest.approx(0.6)
    assert findings.thresholds["owl"] == 0.5
    assert [mistake.id for mistake in findings.mistakes] == [2, 4]
    assert findings.mistakes[0].text == "2 dog missed"  # the cat of 0.7 does not count as found
    assert findings.mistakes[1].text == "2 owl missed"
    assert findings.confusion is not None
    assert findings.confusion.counts.tolist() == [
        [2, 0, 0, 0],
        [0, 1, 0, 2],
        [0, 0, 0, 2],
        [0, 0, 0, 0],
    ]
    one = match_objects(collector(scenes).metric.records[2])
    assert one.pairs({1: 0.5, 2: 0.5, 3: 0.5}) == [(0, 0), (1, None)]
    assert one.pairs({1: 0.8, 2: 0.5, 3: 0.5}) == [(0, None), (1, None)]


def test_worst_come_first() -> None:
    def truth(number: int, *places: float) -> dict[str, Any]:
        made = objects(*(("cat", x, 0, 1.0) for x in places))
        return {"id": number, "boxes": made["boxes"], "labels": made["labels"]}

    scenes = [
        (objects(("cat", 0, 0, 0.5)), truth(1, 0)),
        (objects(("cat", 0, 0, 0.5), ("cat", 50, 50, 0.9)), truth(2, 0)),
        (objects(("cat", 0, 0, 0.5)), truth(3, 0, 30, 60)),
        (objects(("cat", 0, 0, 0.5), ("dog", 30, 0, 0.6)), truth(4, 0, 30)),
    ]
    findings = collector(scenes).finish()
    assert [(m.id, m.text) for m in findings.mistakes] == [
        (3, "2 cat missed"),
        (4, "1 cat taken for dog"),
        (2, "1 cat too many"),
    ]
    image = torch.zeros(3, 80, 80, dtype=torch.uint8)
    found, true = findings.mistakes[0].show({"image": image})
    assert (found.title, true.title) == ("found", "true")
    assert true.image.any(axis=2).sum() > found.image.any(axis=2).sum() > 0


def test_nothing_at_all() -> None:
    findings = collector([(objects(), {"id": 1, **objects()})]).finish()
    assert findings.thresholds == {"cat": 0.5, "dog": 0.5, "owl": 0.5}
    assert findings.curves == []
    assert findings.mistakes == []
