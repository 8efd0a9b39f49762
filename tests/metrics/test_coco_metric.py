"""COCO's figures: pycocotools' own on the same records, examples by hand, symmetries, the edges."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.keypoints import COCO_PERSON
from lightning_zoo.metrics import CocoMetric, format_table

ROOT = Path(__file__).parents[2]
COCO100 = ROOT.parent / "shared" / "data" / "coco100"
BACKENDS = ["pycocotools", "faster-coco-eval"]
ALL = ["bbox", "segm", "keypoints"]
# place of each of our figures among the twelve, or with keypoints ten, that pycocotools prints
STATS = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5}
STATS |= {"mar1": 6, "mar10": 7, "mar100": 8}
KEYPOINT_STATS = {"map": 0, "map50": 1, "map75": 2, "map_medium": 3, "map_large": 4, "mar": 5}
H, W, K = 60, 80, 17


def need(backend: str) -> str:
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    return backend


def box_mask(box: NDArray[Any]) -> NDArray[np.uint8]:
    mask = np.zeros((H, W), np.uint8)
    x, y, w, h = np.round(box).astype(int)
    mask[max(y, 0) : y + h, max(x, 0) : x + w] = 1
    mask[y + h // 2 :, x + w // 2 :] = 0  # three quarters of the box
    return mask


def decode(rles: list[dict[str, Any]]) -> Tensor:
    """Return uint8 masks (N, H, W)."""
    with warnings.catch_warnings():
        # pycocotools 2.0.11 with numpy 2 warns of its own __array__
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(coco_mask.decode(rles)).permute(2, 0, 1)


def rle_of(mask: NDArray[np.uint8]) -> dict[str, Any]:
    return dict(coco_mask.encode(np.asfortranarray(mask)))


Made = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def make(seed: int, *, images: int = 12, classes: int = 6, many: bool = False) -> Made:
    """Return detections and targets, as a detector and its data make them.

    Among them: images without objects, without detections and without both, crowds, classes of
    crowds alone, detections of classes that are nowhere, twice the same detection and equal scores.
    """
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.choice(np.arange(1, 400), classes, replace=False))
    detections, targets = [], []
    number = 1000
    for place in range(images):
        count = 0 if place in (0, 1) else int(rng.integers(1, 7))
        corner, side = rng.uniform(0, 30, (count, 2)), rng.uniform(3, 34, (count, 2))
        truth = np.concatenate([corner, side], axis=1)
        kinds = rng.choice(labels[:-1], count)
        annotations = []
        points = np.zeros((count, K, 3))
        for i, box in enumerate(truth):
            mask = box_mask(box)
            points[i, :, :2] = box[:2] + rng.uniform(0, 1, (K, 2)) * box[2:]
            points[i, :, 2] = rng.integers(0, 3, K) * (rng.random() > 0.2)
            crowd = int(kinds[i] == labels[0] or rng.random() < 0.1)
            number += 7
            annotations.append(
                {
                    "id": number,
                    "image_id": 50 - place,
                    "category_id": int(kinds[i]),
                    "bbox": box.tolist(),
                    "area": float(mask.sum()) * (1.0 if rng.random() < 0.8 else 60.0),
                    "iscrowd": crowd,
                    "segmentation": rle_of(mask),
                    "keypoints": points[i].reshape(-1).tolist(),
                    "num_keypoints": int((points[i, :, 2] > 0).sum()),
                }
            )
        copies = 40 if many else 3
        origin = np.repeat(np.arange(count), copies) if place != 2 else np.arange(0)
        boxes = truth[origin] + rng.normal(0, 2, (len(origin), 4)) * rng.random((len(origin), 1))
        boxes[:, 2:] = boxes[:, 2:].clip(1)
        found = kinds[origin].copy()
        wrong = rng.random(len(found)) < 0.2
        found[wrong] = rng.choice([*labels, 401], wrong.sum())
        moved = points[origin] + rng.normal(0, 1.5, (len(origin), K, 3))
        moved[:, :, 2] = 1
        if place == 1:
            boxes, found = np.array([[3.0, 4, 20, 20]]), labels[:1]
            moved = rng.uniform(0, 50, (1, K, 3))
        if len(boxes) > 3:
            boxes[1], found[1], moved[1] = boxes[0], found[0], moved[0]
        scores = np.round(rng.random(len(boxes)), 2)
        masks = np.stack([box_mask(b) for b in boxes]) if len(boxes) else np.zeros((0, H, W))
        xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        detections.append(
            {
                "boxes": torch.tensor(xyxy, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(found, dtype=torch.int64),
                "scores": torch.tensor(scores, dtype=torch.float32),
                "masks": torch.tensor(masks, dtype=torch.float32)[:, None] * 0.7,
                "keypoints": torch.tensor(moved, dtype=torch.float32).reshape(-1, K, 3),
            }
        )
        targets.append({"id": 50 - place, "annotations": annotations})
    return detections, targets


def plain(folder: Path, kind: str, made: Made, sigmas: Any = None) -> NDArray[np.float64]:
    """Write the records to JSON files; return what pycocotools alone says of them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    detections, targets = made
    annotations = copy.deepcopy([a for target in targets for a in target["annotations"]])
    for entry in annotations:
        if "segmentation" in entry:
            entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode()
    results: list[dict[str, Any]] = []
    for detection, target in zip(detections, targets, strict=True):
        xywh = detection["boxes"].clone()
        xywh[:, 2:] -= xywh[:, :2]
        for i, (label, score) in enumerate(
            zip(detection["labels"].tolist(), detection["scores"].tolist(), strict=True)
        ):
            entry = {"image_id": target["id"], "category_id": label, "score": score}
            if kind == "bbox":
                entry["bbox"] = xywh[i].tolist()
            elif kind == "segm":
                rle = rle_of((detection["masks"][i, 0] > 0.5).numpy().astype(np.uint8))
                entry["segmentation"] = {**rle, "counts": rle["counts"].decode()}
            else:
                entry["keypoints"] = detection["keypoints"][i].flatten().tolist()
            results.append(entry)
    labels = sorted({a["category_id"] for a in annotations} | {r["category_id"] for r in results})
    content = {
        "images": [{"id": target["id"], "height": H, "width": W} for target in targets],
        "categories": [{"id": label, "name": str(label)} for label in labels],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def measured(made: Made, kinds: list[str], backend: str, **options: Any) -> dict[str, float]:
    metric = CocoMetric(kinds, [], backend=backend, **options)
    metric.update(*made)
    return metric.compute()


def check(found: dict[str, float], stats: NDArray[np.float64], prefix: str) -> None:
    for name, place in (KEYPOINT_STATS if prefix == "kp" else STATS).items():
        value = found[f"{prefix}_{name}"]
        assert type(value) is float
        if stats[place] == -1:
            assert math.isnan(value), name
        else:
            assert value / 100 == pytest.approx(stats[place], abs=1e-12), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("seed", "many"), [(0, False), (1, False), (2, True)])
def test_pycocotools_numbers(
    seed: int, many: bool, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(seed, many=many)
    found = measured(made, ALL, need(backend))
    assert capsys.readouterr().out == ""
    assert len(found) == 9 + 9 + 6
    assert 5 < found["box_map"] < 95, "neither trivial nor perfect"
    check(found, plain(tmp_path, "bbox", made), "box")
    check(found, plain(tmp_path, "segm", made), "mask")
    check(found, plain(tmp_path, "keypoints", made), "kp")


def real_images(split: str) -> Made:
    """Return COCO's own annotations with detections that are nearly right."""
    content = json.loads((COCO100 / "annotations" / f"instances_{split}2017.json").read_text())
    generator = torch.Generator().manual_seed(3)
    detections, targets = [], []
    for image in content["images"]:
        annotations = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        for entry in annotations:
            rle = entry["segmentation"]
            if not isinstance(rle["counts"], str):
                rle = coco_mask.frPyObjects(rle, image["height"], image["width"])
            counts = rle["counts"]
            entry["segmentation"] = {
                "size": rle["size"],
                "counts": counts.encode() if isinstance(counts, str) else counts,
            }
        boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes += torch.randn(boxes.shape, generator=generator) * 4
        rles = [a["segmentation"] for a in annotations]
        masks = torch.zeros(0, image["height"], image["width"])
        if rles:
            masks = decode(rles).float()
        noise = torch.rand(masks.shape, generator=generator) * 0.5
        detections.append(
            {
                "boxes": boxes,
                "labels": torch.tensor([a["category_id"] for a in annotations]).long(),
                "scores": torch.rand(len(boxes), generator=generator),
                "masks": (masks.roll((2, -3), (1, 2)) * 0.4 + noise)[:, None],
            }
        )
        targets.append({"id": image["id"], "annotations": annotations})
    return detections, targets


@pytest.mark.skipif(not COCO100.is_dir(), reason="needs the hundred images of COCO")
@pytest.mark.parametrize("backend", BACKENDS)
def test_real_annotations(backend: str, tmp_path: Path) -> None:
    made = real_images("val")
    found = measured(made, ["bbox", "segm"], need(backend))
    check(found, plain(tmp_path, "bbox", made), "box")
    check(found, plain(tmp_path, "segm", made), "mask")
    assert 20 < found["box_map"] < 90
    assert 20 < found["mask_map"] < 90


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_number_of_keypoints(backend: str, tmp_path: Path) -> None:
    sigmas = (0.03, 0.2, 0.08, 0.1, 0.05)
    detections, targets = make(4)
    for detection, target in zip(detections, targets, strict=True):
        detection["keypoints"] = detection["keypoints"][:, :5]
        for entry in target["annotations"]:
            entry["keypoints"] = entry["keypoints"][:15]
            entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])
    made = detections, targets
    found = measured(made, ["keypoints"], need(backend), sigmas=sigmas)
    check(found, plain(tmp_path, "keypoints", made, sigmas), "kp")
    strict = measured(made, ["keypoints"], backend, sigmas=[s / 3 for s in sigmas])
    assert strict["kp_map"] < found["kp_map"]
    without = copy.deepcopy(targets)
    for entry in [a for target in without for a in target["annotations"]]:
        del entry["num_keypoints"]
    assert measured((detections, without), ["keypoints"], backend, sigmas=sigmas) == found
    with pytest.raises(ZooError, match="has 5 keypoints, and there are 17 sigmas"):
        measured(made, ["keypoints"], backend)


# --- examples worked by hand ---------------------------------------------------------------------


def one(boxes: list[list[float]], scores: list[float], labels: list[int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def true(image_id: int, boxes: list[list[float]], labels: list[int], **more: Any) -> dict[str, Any]:
    target = one(boxes, [0.0] * len(boxes), labels)
    del target["scores"]
    return {"id": image_id, **target, **more}


@pytest.mark.parametrize("backend", BACKENDS)
def test_worked_by_hand(backend: str) -> None:
    """One object; the best detection misses, the second has IoU 0.8 with it.

    At thresholds 0.50 to 0.80, which are 7 of 10, precision is one half at every recall; the recall
    is 1. Above, both are 0. The IoU is 40 x 50 of 50 x 50.
    """
    metric = CocoMetric(["bbox"], ["", "cat"], backend=need(backend))
    found = one([[60, 60, 90, 90], [0, 0, 40, 50]], [0.9, 0.6], [1, 1])
    metric.update([found], [true(7, [[0, 0, 50, 50]], [1])])
    result = metric.compute()
    assert result["box_map"] == pytest.approx(0.7 * 50, abs=1e-12)
    assert result["box_map50"] == pytest.approx(50, abs=1e-12)
    assert result["box_map75"] == pytest.approx(50, abs=1e-12)
    assert result["box_mar1"] == 0, "the best detection alone finds nothing"
    assert result["box_mar10"] == result["box_mar100"] == pytest.approx(70, abs=1e-12)
    assert result["box_map_medium"] == pytest.approx(70, abs=1e-12), "the miss is small: ignored"
    assert math.isnan(result["box_map_small"])
    assert math.isnan(result["box_map_large"])
    assert metric.per_class() == [
        {
            "label": 1,
            "name": "cat",
            "images": 1,
            "objects": 1,
            "box_map": pytest.approx(35, abs=1e-12),
            "box_map50": pytest.approx(50, abs=1e-12),
        }
    ]


def test_mask_by_hand() -> None:
    """A mask is what lies strictly above one half; at exactly one half nothing is found."""
    truth = torch.zeros(1, 10, 10, dtype=torch.uint8)
    truth[:, 2:6, 2:8] = 1
    target = true(1, [[2, 2, 8, 6]], [1], masks=truth, area=torch.tensor([24.0]))
    for inside, expected in ((0.5, 0.0), (0.5001, 100.0), (1.0, 100.0)):
        metric = CocoMetric(["segm"], ["", "cat"])
        found = one([[2, 2, 8, 6]], [0.9], [1])
        metric.update([{**found, "masks": truth[:, None].float() * inside}], [target])
        assert metric.compute()["mask_map"] == pytest.approx(expected, abs=1e-12)


def test_keypoints_by_hand() -> None:
    """Similarity is the mean of exp(-d^2 / (2 area (2 sigma)^2)) over the keypoints to be seen."""
    area, sigma, far = 400.0, 0.05, 1.2
    similarity = (1 + math.exp(-(far**2) / (2 * area * (2 * sigma) ** 2))) / 2
    assert 0.90 < similarity < 0.95
    points = torch.tensor([[[5.0, 5, 2], [9, 9, 1], [0, 0, 0]]])
    target = true(1, [[0, 0, 20, 20]], [1], keypoints=points, area=torch.tensor([area]))
    moved = points + torch.tensor([[0, 0, 0], [far, 0, 0], [30, 30, 0]])
    metric = CocoMetric(["keypoints"], ["", "dog"], sigmas=[sigma] * 3)
    metric.update([{**one([[0, 0, 20, 20]], [0.9], [1]), "keypoints": moved}], [target])
    result = metric.compute()
    assert result["kp_map"] == result["kp_mar"] == pytest.approx(90, abs=1e-12)
    assert set(result) == {f"kp_{name}" for name in KEYPOINT_STATS}


def test_hundred_and_twenty_detections() -> None:
    """Only the best hundred of a class in an image count, and twenty with keypoints."""
    boxes = [[200.0, 200, 240, 240]] * 100 + [[0.0, 0, 50, 50]]
    scores = [0.9] * 100 + [0.1]
    target = true(1, [[0, 0, 50, 50]], [1], keypoints=torch.tensor([[[5.0, 5, 2]]]))
    for wrong, box, keypoints in ((100, 0, 0), (99, 1, 0), (20, 1, 0), (19, 1, 1)):
        found = one(boxes[100 - wrong :], scores[100 - wrong :], [1] * (wrong + 1))
        found["keypoints"] = torch.tensor([[[300.0, 300, 1]]] * wrong + [[[5.0, 5, 1]]])
        metric = CocoMetric(["bbox", "keypoints"], ["", "cat"], sigmas=[0.1])
        metric.update([found], [target])
        result = metric.compute()
        assert (result["box_mar100"] > 0) == bool(box), wrong
        assert (result["kp_mar"] > 0) == bool(keypoints), wrong


def test_no_object_of_a_size() -> None:
    metric = CocoMetric(["bbox"], ["", "cat"])
    metric.update([one([[0, 0, 9, 9]], [1.0], [1])], [true(1, [[0, 0, 9, 9]], [1])])
    result = metric.compute()
    assert result["box_map"] == result["box_map_small"] == pytest.approx(100)
    assert math.isnan(result["box_map_large"])


# --- symmetries ----------------------------------------------------------------------------------


def test_order_of_images() -> None:
    detections, targets = make(5)
    whole = measured((detections, targets), ALL, "pycocotools")
    order = np.random.default_rng(0).permutation(len(targets))
    metric = CocoMetric(ALL, [])
    for i in order:
        metric.update([detections[i]], [targets[i]])
    assert metric.compute() == pytest.approx(whole, abs=1e-12, nan_ok=True)


def test_labels_renamed() -> None:
    detections, targets = make(6)
    whole = measured((detections, targets), ALL, "auto")
    for detection in detections:
        detection["labels"] = 500 - detection["labels"]
    for entry in [a for target in targets for a in target["annotations"]]:
        entry["category_id"] = 500 - entry["category_id"]
    renamed = measured((detections, targets), ALL, "auto")
    assert renamed == pytest.approx(whole, abs=1e-11, nan_ok=True)


def test_mirrored() -> None:
    rng = np.random.default_rng(8)
    detections, targets, mirrored, mirrored_targets = [], [], [], []
    for image_id in range(6):
        truth = torch.tensor(rng.integers(0, 40, (4, 4)), dtype=torch.float32)
        truth[:, 2:] += truth[:, :2] + 4
        found = truth + torch.tensor(rng.integers(-3, 4, (4, 4)))
        scores = rng.random(4).tolist()
        detections.append(one(found.tolist(), scores, [1, 2, 1, 2]))
        targets.append(true(image_id, truth.tolist(), [1, 2, 1, 2]))
        flip = torch.tensor([128.0, 0, 128, 0])
        sign = torch.tensor([-1.0, 1, -1, 1])
        swap = [2, 1, 0, 3]
        mirrored.append(one((found * sign + flip)[:, swap].tolist(), scores, [1, 2, 1, 2]))
        boxes = (truth * sign + flip)[:, swap].tolist()
        mirrored_targets.append(true(image_id, boxes, [1, 2, 1, 2]))
    whole = measured((detections, targets), ["bbox"], "auto")
    assert 5 < whole["box_map"] < 95
    again = measured((mirrored, mirrored_targets), ["bbox"], "auto")
    assert again == pytest.approx(whole, abs=1e-12, nan_ok=True)


def test_tensors_in_place_of_annotations() -> None:
    """Truth from the target's tensors gives what the same truth from annotations gives."""
    detections, targets = make(9)
    tensors = []
    for target in targets:
        found = target["annotations"]
        boxes = torch.tensor([a["bbox"] for a in found], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = torch.zeros(0, H, W, dtype=torch.uint8)
        if found:
            masks = decode([a["segmentation"] for a in found])
        points = torch.tensor([a["keypoints"] for a in found], dtype=torch.float64)
        tensors.append(
            {
                "id": torch.tensor(target["id"]),
                "boxes": boxes,
                "labels": torch.tensor([a["category_id"] for a in found]).long(),
                "area": torch.tensor([a["area"] for a in found], dtype=torch.float64),
                "iscrowd": torch.tensor([a["iscrowd"] for a in found]).long(),
                "masks": masks,
                "keypoints": points.reshape(-1, K, 3),
            }
        )
    whole = measured((detections, targets), ALL, "auto")
    again = measured((detections, tensors), ALL, "auto")
    assert again == pytest.approx(whole, abs=1e-12, nan_ok=True)


def test_masks_given_as_run_lengths() -> None:
    detections, targets = make(10)
    whole = measured((detections, targets), ["segm"], "auto")
    encoded = []
    for detection in detections:
        rles = [rle_of((m[0] > 0.5).numpy().astype(np.uint8)) for m in detection["masks"]]
        text = [{**rle, "counts": rle["counts"].decode()} for rle in rles]
        encoded.append({**detection, "masks": text})
    assert measured((encoded, targets), ["segm"], "auto") == whole


def test_half_precision() -> None:
    metric = CocoMetric(["bbox"], ["", "cat"])
    found = one([[0, 0, 48, 48]], [0.5], [1])
    for kind in ("boxes", "scores"):
        found[kind] = found[kind].bfloat16()
    metric.update([found], [true(1, [[0, 0, 48, 48]], [1])])
    assert metric.compute()["box_map"] == pytest.approx(100)


# --- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_find(backend: str) -> None:
    metric = CocoMetric(ALL, ["", "cat"], backend=need(backend))
    assert len(metric.compute()) == 24
    assert all(math.isnan(value) for value in metric.compute().values()), "no images"
    detections, targets = make(0)
    metric.update(detections[:2], targets[:2])  # one without detections, one with; no objects
    assert all(math.isnan(value) for value in metric.compute().values())
    assert [row["objects"] for row in metric.per_class()] == [0]
    assert math.isnan(metric.per_class()[0]["box_map"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_found(backend: str) -> None:
    detections, targets = make(0)
    empty = [{k: v[:0] for k, v in detection.items()} for detection in detections]
    result = measured((empty, targets), ALL, need(backend))
    assert result["box_map"] == result["mask_map"] == result["kp_map"] == result["box_mar100"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_crowds_alone(backend: str) -> None:
    target = true(1, [[0, 0, 9, 9]], [1], iscrowd=torch.tensor([1]))
    metric = CocoMetric(["bbox"], ["", "cat"], backend=need(backend))
    metric.update([one([[0, 0, 9, 9]], [1.0], [1])], [target])
    assert math.isnan(metric.compute()["box_map"])
    assert metric.per_class()[0]["objects"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number(backend: str) -> None:
    """A network that diverged finds nothing; to pycocotools, NaN fits every object."""
    box = [0.0, 0, 9, 9]
    boxes = [[math.nan, 0, 9, 9], [0, 0, 9, math.inf], box, box]
    found = one(boxes, [0.9, 0.8, math.nan, 0.5], [1, 1, 1, 2])
    found["masks"] = torch.ones(4, 1, 10, 10)
    found["masks"][3, 0, 9], found["masks"][3, 0, :, 9] = 0, 0
    truth = torch.zeros(2, 10, 10)
    truth[:, :9, :9] = 1
    metric = CocoMetric(["bbox", "segm"], ["", "cat", "dog"], backend=need(backend))
    metric.update([found], [true(1, [box, box], [1, 2], masks=truth)])
    for row in metric.per_class():
        expected = {"cat": 0, "dog": 100}[row["name"]]
        assert row["box_map"] == row["mask_map"] == pytest.approx(expected)


def test_the_fast_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(1)
    expected = measured(made, ["bbox"], "pycocotools")
    metric = CocoMetric(["bbox"], [])
    metric.fast = True

    def broken(*arguments: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("lightning_zoo.metrics.coco._run_fast", broken)
    metric.update(*made)
    with pytest.warns(UserWarning, match="faster-coco-eval failed.*out of luck.*pycocotools"):
        assert metric.compute() == expected


def test_repeated_images_count_once() -> None:
    detections, targets = make(3)
    whole = measured((detections, targets), ALL, "auto")
    worse = [{k: v[:0] for k, v in detection.items()} for detection in detections]
    metric = CocoMetric(ALL, [])
    metric.update(detections[:8], targets[:8])
    metric.compute()
    metric.update([*worse[:8], *detections[8:]], targets)
    assert metric.compute() == whole
    metric.update(worse, targets)
    assert metric.compute() == whole
    metric.reset()
    assert math.isnan(metric.compute()["box_map"])


def test_lives_in_a_module() -> None:
    made = make(1)
    modules = nn.ModuleDict({"val": CocoMetric(ALL, ["", "cat"])})
    modules["val"].update(*made)
    assert not modules.state_dict()
    copied = copy.deepcopy(modules).to(torch.float64)
    result = modules["val"].compute()
    modules["val"].reset()
    assert copied["val"].compute() == result


def test_memory_is_bounded() -> None:
    """What is kept of an image is thousands of times smaller than its masks."""
    import pickle

    masks = torch.zeros(20, 1, 400, 400)
    masks[:, :, 50:300, 80:200] = 0.9
    found = {**one([[80, 50, 200, 300]] * 20, [0.5] * 20, [1] * 20), "masks": masks}
    metric = CocoMetric(["segm"], ["", "cat"])
    target = true(1, [[80, 50, 200, 300]], [1], masks=(masks[:1, 0] > 0.5).to(torch.uint8))
    metric.update([found], [target])
    assert metric.compute()["mask_map50"] == pytest.approx(100)
    assert len(pickle.dumps(metric.records)) < masks.numel() * 4 / 500


# --- the table of classes ------------------------------------------------------------------------


def test_table_of_classes() -> None:
    names = ["__background__", "cat", "N/A", "a name that is much longer than a column", "dog"]
    metric = CocoMetric(["bbox"], names)
    metric.update(
        [one([[0, 0, 9, 9], [0, 0, 5, 5]], [0.9, 0.8], [1, 4]), one([], [], [])],
        [true(1, [[0, 0, 9, 9], [20, 20, 29, 29]], [1, 1]), true(2, [[0, 0, 5, 5]], [4])],
    )
    rows = metric.per_class()
    assert [(r["label"], r["images"], r["objects"]) for r in rows] == [
        (1, 1, 2),
        (3, 0, 0),
        (4, 1, 1),
    ]
    # of two cats one is found: precision 1 up to recall one half, 51 of 101 points
    assert rows[0]["box_map50"] == pytest.approx(100 * 51 / 101)
    assert rows[2]["box_map50"] == 0
    mean = (rows[0]["box_map"] + rows[2]["box_map"]) / 2
    assert metric.compute()["box_map"] == pytest.approx(mean, abs=1e-12)
    lines = format_table(rows).splitlines()
    assert lines[0].split() == ["label", "name", "images", "objects", "box_map", "box_map50"]
    assert lines[1].split() == ["1", "cat", "1", "2", "50.5", "50.5"]
    assert lines[2].startswith("    3  a name that is much lon…")
    assert lines[2].endswith("-")
    assert len({len(line) for line in lines}) == 1
    assert format_table([]) == "no classes"


def test_names_as_a_mapping() -> None:
    metric = CocoMetric(["bbox"], {900: "cat"})
    metric.update([one([[0, 0, 9, 9]], [0.9], [900])], [true(1, [[0, 0, 9, 9]], [900])])
    assert [(r["label"], r["name"]) for r in metric.per_class()] == [(900, "cat")]
    assert metric.compute()["box_map"] == pytest.approx(100)


# --- errors --------------------------------------------------------------------------------------


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="unknown IoU type 'segmentation'; did you mean segm"):
        CocoMetric(["segmentation"], [])
    with pytest.raises(ZooError, match="unknown backend 'pycoco'; did you mean pycocotools"):
        CocoMetric(["bbox"], [], backend="pycoco")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ZooError, match=r"not installed; run pip install 'lightning_zoo\[fast\]'"):
        CocoMetric(["bbox"], [], backend="faster-coco-eval")
    assert not CocoMetric(["bbox"], []).fast


def test_records_that_do_not_fit() -> None:
    found, target = one([[0, 0, 9, 9]], [0.9], [1]), true(5, [[0, 0, 9, 9]], [1])
    metric = CocoMetric(["segm"], [])
    with pytest.raises(ZooError, match="the detection of image 5 has no 'masks'"):
        metric.update([found], [target])
    with_masks = {**found, "masks": torch.ones(1, 1, 10, 10)}
    with pytest.raises(ZooError, match="the target of image 5 has no 'masks'"):
        metric.update([with_masks], [target])
    with pytest.raises(ZooError, match="masks of image 5 are 10x10 and 10x12 pixels"):
        metric.update([with_masks], [{**target, "masks": torch.ones(1, 10, 12)}])
    with pytest.raises(ZooError, match="a mask is list; expected compressed run lengths"):
        metric.update([{**found, "masks": [[1, 2, 3]]}], [target])
    with pytest.raises(ZooError, match="image 5 has 2 masks and 1 labels"):
        metric.update([{**found, "masks": torch.ones(2, 1, 9, 9)}], [target])


# --- over processes ------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from pathlib import Path

import torch.distributed as dist

from lightning_zoo.metrics import CocoMetric

CocoMetric(["bbox"], [])
early = [name for name in ("pycocotools", "faster_coco_eval") if name in sys.modules]
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_coco_metric import ALL, make

rank, folder = int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
detections, targets = make(11)
picked = list(range(len(targets)))[rank::2]
if rank == 1:
    picked = [0, 2, *picked]  # which the first has too
metric = CocoMetric(ALL, ["", "cat"])
for i in picked:
    metric.update([detections[i]], [targets[i]])
result = {"figures": metric.compute(), "classes": metric.per_class()}
result |= {"own": len(metric.records), "early": early}
(folder / f"{rank}.json").write_text(json.dumps(result))
dist.destroy_process_group()
"""


def test_two_processes(tmp_path: Path) -> None:
    """Two processes with an image in common say, both, what one process says."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folders = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(2):
        command = [sys.executable, str(script), __file__, str(rank), str(tmp_path)]
        running.append(subprocess.Popen(command, env=environment, cwd=tmp_path))
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    whole = CocoMetric(ALL, ["", "cat"])
    whole.update(*make(11))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["own"] for rank in ranks] == [6, 8]
    for rank in ranks:
        assert json.dumps(rank["figures"]) == json.dumps(whole.compute())
        assert json.dumps(rank["classes"]) == json.dumps(whole.per_class())
        assert rank["early"] == [], "an evaluator is imported when it is needed, no sooner"


def test_default_sigmas_are_the_persons() -> None:
    assert CocoMetric(["keypoints"], []).sigmas == COCO_PERSON.sigmas
