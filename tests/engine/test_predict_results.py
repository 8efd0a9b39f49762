"""Results: pictures, files, thresholds, COCO's entries and what COCO's own tool makes of them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from predictors import KITE, NAMES, bar_detector, bar_segmenter, brightness_classifier
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from videos import moving

from lightning_zoo.engine.predict import Detections, Prediction, Result, Segmentation
from lightning_zoo.engine.predict.detection import Detector
from lightning_zoo.engine.predict.job import Job
from lightning_zoo.engine.predict.thresholds import Thresholds, choose_thresholds
from lightning_zoo.errors import ZooError
from lightning_zoo.metrics.coco import CocoMetric
from lightning_zoo.transforms.decode import read_image

PREDICTORS = {
    "boxes": bar_detector,
    "masks": lambda: bar_detector(masks=True),
    "keypoints": lambda: bar_detector(keypoints=True),
    "classes": brightness_classifier,
    "several": lambda: brightness_classifier(Thresholds(0.3)),
    "segmentation": bar_segmenter,
}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "12.png"
    Image.fromarray(moving(10, 96, 129)[6]).save(path)
    return path


def predicted(kind: str, photo: Path) -> Any:
    (result,) = PREDICTORS[kind]()([(photo, read_image(photo))])
    return result


@pytest.mark.parametrize("kind", PREDICTORS)
def test_every_result(kind: str, photo: Path, tmp_path: Path) -> None:
    result = predicted(kind, photo)
    assert isinstance(result, Result)
    assert (result.file, result.width, result.height) == (str(photo), 129, 96)
    picture = result.plot()
    assert picture.size == (129, 96), "in the image's own size"
    assert (np.asarray(picture) != read_image(photo)).any()
    with Image.open(result.save(tmp_path / "new/a.png")) as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(picture))
    with Image.open(result.save(tmp_path / "a.JPG")) as saved:
        assert saved.format == "JPEG"
    plain = json.loads(result.save(tmp_path / "a.json").read_text())
    assert plain == json.loads(json.dumps(result.as_json()))
    assert plain["file"] == str(photo)
    assert "frame" not in plain
    with pytest.raises(ZooError, match=r"a\.xyz'; expected a picture \(\.png, \.jpg, \.webp"):
        result.save(tmp_path / "a.xyz")
    for entry in result.to_coco(image_id=7):
        assert entry["image_id"] == 7
        assert isinstance(entry["category_id"], int)
        assert 0 <= entry["score"] <= 1


@pytest.mark.parametrize("kind", PREDICTORS)
def test_records(kind: str, photo: Path) -> None:
    """What the frames of a film are kept as: nothing is lost but the network's tensors."""
    result = predicted(kind, photo)
    again = result.restored(json.loads(json.dumps(result.record())))
    assert again == result
    assert again.as_json() == result.as_json()
    assert again.to_coco() == result.to_coco()
    np.testing.assert_array_equal(np.asarray(again.plot()), np.asarray(result.plot()))


def test_the_json_of_before(photo: Path) -> None:
    """The keys that people's scripts read."""
    keys = {
        "boxes": ["file", "width", "height", "objects"],
        "classes": ["file", "label", "score", "top", "labels"],
        "segmentation": ["file", "width", "height", "classes"],
    }
    assert {kind: list(predicted(kind, photo).as_json()) for kind in keys} == keys
    bar = 129 * 7 // 10 - 4  # what `moving` makes of frame 6
    found = predicted("keypoints", photo).as_json()["objects"]
    assert list(found[0]) == ["label", "score", "box", "keypoints"]
    assert found[1]["box"] == [64.5, 48.0, 126.9, 93.8], "in pixels to one decimal"
    assert found[0]["box"][2] == pytest.approx(bar, abs=2)
    assert found[0]["keypoints"] == [(1.0, 2.0, 2.0), (3.0, 4.0, 1.0), (5.0, 6.0, -1.0)]


def test_coco_entries(photo: Path) -> None:
    first, second = predicted("masks", photo).to_coco(3)
    assert list(first) == ["image_id", "category_id", "score", "bbox", "area", "segmentation"]
    assert (first["category_id"], second["category_id"]) == (2, 1)
    assert second["bbox"] == [64.5, 48.0, 129 - 2.125 - 64.5, 96 - 2.25 - 48.0]
    assert second["area"] == (129 - 2 - 64) * (96 - 2 - 48)
    assert second["segmentation"]["size"] == [96, 129]

    points = predicted("keypoints", photo).to_coco()[0]["keypoints"]
    assert points == [1, 2, 2, 3, 4, 2, 5, 6, 0], "sure, sure, unsure"
    numbered = predicted("boxes", photo).to_coco(1, {"cell": 40, "bar": 50})
    assert [entry["category_id"] for entry in numbered] == [50, 40]
    with pytest.raises(ZooError, match=r"unknown class \(category_ids\) 'bar'"):
        predicted("boxes", photo).to_coco(1, {"cell": 40})

    one = predicted("classes", photo)
    assert one.to_coco(5) == [
        {"image_id": 5, "category_id": ["red", "green", "blue"].index(one.label),
         "score": one.score}
    ]  # fmt: skip
    several = predicted("several", photo)
    assert len(several.to_coco()) == len(several.labels) > 1

    parts = predicted("segmentation", photo)
    (entry,) = parts.to_coco()
    bar = parts.labels == 2
    assert entry["category_id"] == 2
    assert entry["area"] == bar.sum()
    ys, xs = np.nonzero(bar)
    assert entry["bbox"] == [
        xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1,
    ]  # fmt: skip


def test_one_of_two_classes_of_the_same_name(photo: Path) -> None:
    """ImageNet has two cranes: the network's label tells them apart, the name does not."""
    classifier = brightness_classifier()
    classifier.class_names = ["crane", "ox", "crane"]
    (found,) = classifier([(photo, np.full((40, 40, 3), (1, 2, 200), np.uint8))])
    assert found.label == "crane"
    assert found.to_coco()[0]["category_id"] == 2


# thresholds


def test_thresholds_by_class(photo: Path) -> None:
    image = [(photo, read_image(photo))]

    def labels(common: float, by_class: dict[str, float]) -> list[str]:
        detector = bar_detector(thresholds=Thresholds(common, by_class))
        return [one.label for one in detector(image)[0].objects]

    assert labels(0.5, {}) == ["bar", "cell"]
    assert labels(0.5, {"cell": 0.6}) == ["bar"]
    assert labels(0.6, {"cell": 0.55, "bar": 0.95}) == ["cell"]
    assert labels(0.0, {"bar": 1.0, "cell": 1.0}) == []
    assert labels(0.9, {}) == ["bar"], "a score that reaches it counts"

    grey = [(photo, np.full((40, 40, 3), (102, 51, 255), np.uint8))]  # 0.4, 0.2, 1
    (found,) = brightness_classifier(Thresholds(0.5, {"green": 0.1}))(grey)
    assert found.labels == ("green", "blue")
    assert found.summary() == "blue 100.0 %, green 20.0 %   (red 40.0 %)"
    assert [row["label"] for row in found.rows()] == ["blue", "green"]
    (nothing,) = brightness_classifier(Thresholds(0.5))([(photo, grey[0][1] // 4)])
    assert nothing.labels == ()
    assert nothing.summary() == "nothing   (blue 24.7 %, red 9.8 %)"
    assert nothing.to_coco() == []
    (best,) = brightness_classifier()(grey)
    assert best.labels is None
    assert best.summary() == "blue 100.0 %   (red 40.0 %, green 20.0 %)"


def test_which_thresholds_are_used(tmp_path: Path) -> None:
    own = {"RBC": 0.62, "WBC": 0.48}
    for name, ours in (("a", {"recipe": {}, "thresholds": own}), ("b", {"recipe": {}})):
        torch.save({"state_dict": {}, "lightning_zoo": ours}, tmp_path / f"{name}.ckpt")
    found = choose_thresholds(None, tmp_path / "a.ckpt")
    assert found.of(["__background__", "RBC", "WBC"]) == [0.5, 0.62, 0.48]
    assert str(found) == (
        "thresholds of the run: RBC 0.62, WBC 0.48; --threshold S sets one for all"
    )
    assert choose_thresholds(0.3, tmp_path / "a.ckpt").of(["RBC", "WBC"]) == [0.3, 0.3]
    assert choose_thresholds(None, tmp_path / "b.ckpt").of(["RBC"]) == [0.5]
    assert choose_thresholds(None).of(["RBC"]) == [0.5]
    assert str(choose_thresholds(0.3)) == ""
    many = Thresholds(by_class={str(i): 0.5 for i in range(80)})
    assert "5 0.50 and 74 more; " in str(many)
    for number in (-0.1, 1.5, float("nan")):
        with pytest.raises(ZooError, match=r"^--threshold is .*; expected a score from 0 to 1$"):
            choose_thresholds(number)


# COCO's own tool


def random_detections(
    rng: np.random.Generator, size: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return true objects, and as detections half of them nearly in place, and some others."""
    corner = rng.uniform(0, 0.6 * size, (6, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(4, 0.4 * size, (6, 2))], axis=1)
    labels = rng.integers(1, 3, 6)
    moved = boxes + rng.normal(0, 1.5, boxes.shape)
    found = np.clip(np.concatenate([moved[:4], rng.permutation(boxes) * 0.9]), 0, size)
    target = {"boxes": boxes, "labels": labels}
    detection = {
        "boxes": found, "labels": np.concatenate([labels[:4], rng.integers(1, 3, 6)]),
        "scores": rng.uniform(0, 1, 10),
    }  # fmt: skip
    for one in (target, detection):
        one["boxes"] = np.concatenate(  # type: ignore[assignment]
            [one["boxes"][:, :2], np.maximum(one["boxes"][:, 2:], one["boxes"][:, :2] + 2)], axis=1
        )
        y, x = np.mgrid[:size, :size] + 0.5
        one["masks"] = np.stack([
            (x > b[0]) & (x < b[2]) & (y > b[1]) & (y < b[3]) for b in one["boxes"]
        ])  # fmt: skip

    def tensors(one: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
        floats = {k: torch.tensor(v, dtype=torch.float32) for k, v in one.items()}
        return {**floats, "labels": torch.tensor(one["labels"])}

    return tensors(target), tensors(detection)


def official(kind: str, truth: dict[str, Any], entries: Sequence[dict[str, Any]]) -> list[float]:
    """Return COCO's twelve figures in per cent."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = truth
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(list(entries)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * float(value) for value in evaluation.stats]


def test_average_precision_of_the_entries(tmp_path: Path) -> None:
    """pycocotools on `to_coco` and on the written file gives what our metric counts."""
    rng = np.random.default_rng(0)
    size, names = 100, [f"{i}.png" for i in (139, 285, 632, 724, 9, 25)]
    metric = CocoMetric(("bbox", "segm"), NAMES, backend="pycocotools")
    annotations: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    detections = []
    for name in names:
        number = int(name.removesuffix(".png"))
        target, detection = random_detections(rng, size)
        detections.append(detection)
        Image.new("RGB", (size, size)).save(tmp_path / name)
        metric.update([detection], [{**target, "id": number}])
        for box, label, mask in zip(
            *(target[k] for k in ("boxes", "labels", "masks")), strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            rle = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": int(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(mask.sum()), "iscrowd": 0,
                "segmentation": rle,
            })  # fmt: skip
    given = iter(detections)
    detector = Detector(lambda images: [next(given)], NAMES, Thresholds(0.0))
    files = [tmp_path / name for name in names]
    out = tmp_path / "out"
    job = Job(detector, files, "detection", Thresholds(0.0), out=out, save=("coco",))
    for file, result in zip(files, job.run(), strict=True):
        entries += result.to_coco(int(file.stem))
    truth = {
        "images": [{"id": int(file.stem), "width": size, "height": size} for file in files],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "bar"}],
        "annotations": annotations,
    }
    ours = metric.compute()
    assert 10 < ours["box_map"] < 90
    written = json.loads((out / "predictions_coco.json").read_text())
    for found in (entries, written["annotations"]):
        boxes = official("bbox", truth, found)
        assert boxes[:3] == pytest.approx([ours[f"box_map{k}"] for k in ("", "50", "75")], abs=1e-9)
        assert boxes[6:9] == pytest.approx([ours[f"box_mar{k}"] for k in (1, 10, 100)], abs=1e-9)
        masks = official("segm", truth, found)
        assert masks[:3] == pytest.approx(
            [ours[f"mask_map{k}"] for k in ("", "50", "75")], abs=1e-9
        )
    assert [image["id"] for image in written["images"]] == [int(file.stem) for file in files]


# tables


# its arrays know nothing of numpy 2's copy argument (pycocotools 2.0.11)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", PREDICTORS)
def test_tables(kind: str, tmp_path: Path) -> None:
    """CSV and JSON say the same, and pycocotools loads the COCO file."""
    files = []
    for i in range(5):
        files.append(tmp_path / f"a, {i}.png")
        Image.fromarray(moving(10, 96, 128)[i]).save(files[-1])
    task = {"segmentation": "segmentation", "classes": "classification"}.get(kind, "detection")
    out = tmp_path / "out"
    job = Job(PREDICTORS[kind](), files, task, Thresholds(), out=out, save=("csv", "coco", "json"))
    results = list(job.run())
    plain = json.loads((out / "predictions.json").read_text())
    assert plain == json.loads(json.dumps([one.as_json() for one in results]))
    assert (out / "predictions.json").read_text() == json.dumps(plain, indent=1) + "\n"
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = []
    for entry in plain:
        if "objects" in entry:
            for one in entry["objects"]:
                x1, y1, x2, y2 = one["box"]
                box = [x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)]
                expected.append([entry["file"], one["label"], one["score"], *box])
        elif "classes" in entry:
            expected += [[entry["file"], one["label"], one["share"]] for one in entry["classes"]]
        elif entry["labels"] is None:
            expected.append([entry["file"], entry["label"], entry["score"]])
        else:
            on = [(label, score) for label, score in entry["top"] if label in entry["labels"]]
            expected += [[entry["file"], *one] for one in on]
    found = [[v for v in row.values() if v] for row in rows]
    assert found == [[str(v) for v in row] for row in expected]
    assert len(found) >= 5

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "predictions_coco.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [(i["id"], i["file_name"]) for i in images] == [
        (i, str(file)) for i, file in enumerate(files, start=1)
    ]
    names = {number: entry["name"] for number, entry in coco.cats.items()}
    for image, result in zip(images, results, strict=True):
        stored = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(stored) == len(result.to_coco())
        assert sorted(names[one["category_id"]] for one in stored) == sorted(
            row["label"] for row in result.rows()
        )
        if kind == "masks":
            assert coco.annToMask(stored[0]).sum() == stored[0]["area"]
    if kind == "keypoints":
        assert coco.cats[1]["keypoints"] == list(KITE.names)
        assert coco.cats[1]["skeleton"] == [[1, 2], [1, 3]]
        assert {one["num_keypoints"] for one in coco.anns.values()} == {2}


def test_what_stands_in_memory(photo: Path) -> None:
    """Masks are run lengths; the pictures are not kept."""
    result = predicted("masks", photo)
    assert result.raw["masks"][0]["counts"] == result.objects[0].mask["counts"]
    assert not any(
        isinstance(value, np.ndarray) and value.ndim > 1 for value in vars(result).values()
    )


def test_the_classes_of_results() -> None:
    for kind in (Prediction, Detections, Segmentation):
        assert issubclass(kind, Result)
    with pytest.raises(TypeError, match="abstract"):
        Result("a.png")  # type: ignore[abstract]
