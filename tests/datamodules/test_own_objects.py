"""One's own objects, from a folder of any format to batches and a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from object_files import CLASSES, WRITERS, scenes, write_image, write_voc, write_yolo

import lightning_zoo as lz
from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import CocoDataModule, OwnObjectsDataModule
from lightning_zoo.errors import ZooError

SMALL = {
    "backbone": "resnet18", "returned_layers": [2, 3], "fpn_channels": 16, "min_size": 64,
    "representation_size": 32, "max_size": 96, "anchor_sizes": [16, 32, 48],
    "aspect_ratios": [1.0], "rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 16,
    "box_batch_size_per_image": 32, "box_score_thresh": 0.0, "box_detections_per_img": 8,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "boxes": ("faster_rcnn", {}),
    "masks": ("mask_rcnn", {"mask_layers": [16], "mask_dim_reduced": 16}),
    "keypoints": ("keypoint_rcnn", {"keypoint_layers": [16]}),
}


def write_recipe(path: Path, target: str, data: dict[str, Any]) -> Path:
    model, more = MODELS[target]
    task: dict[str, Any] = {
        "model": model,
        "model_args": {**SMALL, **more},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
    }
    recipe = {
        "seed_everything": 0,
        "model": {"class_path": "KeypointTask" if target == "keypoints" else "DetectionTask",
                  "init_args": task},
        "data": {"class_path": "OwnObjectsDataModule", "init_args": {"workers": 0, **data}},
        "batch": {"size": 2, "per_device": 2},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 2},
        "run": {"loggers": ["csv"], "checkpoint_steps": None, "pictures": 0},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(recipe))
    return path


def configured(root: Path, **options: Any) -> OwnObjectsDataModule:
    data = OwnObjectsDataModule(root=str(root), workers=0, **options)
    data.configure(BatchPlan(4, 4, 1, 1), seed=3)
    data.setup("fit")
    return data


def equal(a: Any, b: Any) -> bool:
    """Tell whether two batches hold the same, but for the images' ids."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        keys = a.keys() - {"id", "image_id"}
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in keys)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def test_formats_give_the_same_first_batch(tmp_path: Path) -> None:
    data = scenes()
    batches = {}
    for name, write in WRITERS.items():
        module = configured(write(tmp_path / name, data))
        assert module.index.format == name
        assert module.class_names == ["__background__", *CLASSES]
        assert module.num_train_samples == 5  # one has no object
        assert len(module.datasets["val"]) == 3
        batches[name] = next(iter(module.train_dataloader()))
    yolo = batches["yolo"]["target"]
    for a, b in zip(yolo, batches["coco"]["target"], strict=True):
        torch.testing.assert_close(a["boxes"], b["boxes"], rtol=0, atol=1e-5)
    assert equal(batches["coco"]["image"], batches["yolo"]["image"])
    assert equal(batches["voc"], batches["coco"])
    labels = torch.cat([t["labels"] for t in yolo])
    assert set(labels.tolist()) <= {1, 2, 3}


def test_exactly_the_boxes_that_were_drawn(tmp_path: Path) -> None:
    data = scenes()
    module = configured(write_voc(tmp_path / "voc", data), augmentation=None)
    dataset = module.datasets["train"]
    by_name = {scene.stem: scene for scene in data}
    for i in range(len(dataset)):
        scene = by_name[Path(dataset.name(i)).stem]
        sample = dataset.load(i, np.random.default_rng(0))
        expected = [[x, y, x + w, y + h] for _, (x, y, w, h) in scene.objects]
        assert sample["target"]["boxes"].tolist() == expected
        assert sample["target"]["labels"].tolist() == [label + 1 for label, _ in scene.objects]
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), scene.pixels)


@pytest.mark.parametrize(
    "name", ["yolo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("coco", "voc"))]
)
def test_fit_two_steps(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path / "data", scenes())
    recipe = write_recipe(tmp_path / "own.yaml", "boxes", {"root": str(root), "target": "boxes"})
    result = lz.fit(recipe, out=tmp_path / "runs")
    assert 0 <= result.metrics["val/box_map"] <= 1
    checkpoint = torch.load(result.run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["lightning_zoo"]["class_names"] == ["__background__", *CLASSES]


@pytest.mark.parametrize("target", ["keypoints", pytest.param("masks", marks=pytest.mark.slow)])
def test_smoke_of_masks_and_keypoints(target: str, tmp_path: Path) -> None:
    root = tmp_path / "made"
    OwnObjectsDataModule.write_fake(root, classes=3, images=4, size=48, target=target)
    module = OwnObjectsDataModule(root=str(root))
    assert module.target == target
    assert module.num_keypoints == (17 if target == "keypoints" else 0)
    recipe = write_recipe(tmp_path / "own.yaml", target, {"root": "nowhere", "target": target})
    result = lz.fit(recipe, smoke=True, out=tmp_path / "runs")
    assert {"masks": "val/mask_map", "keypoints": "val/kp_map"}[target] in result.metrics


@pytest.mark.slow
def test_smoke_of_boxes(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "own.yaml", "boxes", {"root": "nowhere", "target": "boxes"})
    assert "val/box_map" in lz.fit(recipe, smoke=True, out=tmp_path / "runs").metrics


def test_a_skeleton_of_ones_own(tmp_path: Path) -> None:
    OwnObjectsDataModule.write_fake(tmp_path / "made", images=3, target="keypoints")
    path = tmp_path / "made" / "data.yaml"
    content = yaml.safe_load(path.read_text())
    content["kpt_names"] = {0: [f"point {i}" for i in range(17)]}
    path.write_text(yaml.safe_dump(content))
    module = OwnObjectsDataModule(root=str(tmp_path / "made"))
    assert module.skeleton is not None
    assert module.skeleton.names[3] == "point 3"
    assert module.skeleton.flip_pairs[0] == (1, 2)
    assert {*module.skeleton.sigmas} == {0.05}


def test_test_split_or_else_val(tmp_path: Path) -> None:
    data = scenes()
    module = configured(write_yolo(tmp_path / "a", data))
    assert module.splits("test") == module.splits("predict") == ("val",)
    more = [*data, *(s._replace(split="test", stem=f"t{s.stem}") for s in data[:2])]
    root = write_yolo(tmp_path / "b", more)
    assert configured(root).splits("test") == ("test",)


def test_a_val_split_is_made_and_the_same_each_time(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "a", scenes(12, 0))
    first = configured(root)
    assert len(first.datasets["val"]) == len(first.index.of("val")) > 0
    assert "no validation split" in first.index.decisions[-1]
    assert first.index.items == configured(root).index.items
    assert any(configured(root, split_seed=s).index.items != first.index.items for s in (1, 2, 3))
    nothing = configured(root, val_share=0.0)
    assert nothing.val_dataloader() == []
    with pytest.raises(ZooError, match="has no val images, and evaluation needs them"):
        nothing._dataset("val", needed_for="evaluation")


def spoiled(tmp_path: Path) -> Path:
    root = write_yolo(tmp_path / "data", scenes())
    with open(root / "labels" / "train" / "train_0.txt", "a") as file:
        file.write("\n7 0.5 0.5 0.1 0.1\n1 1.2 0.5 0.1 0.1\n")
    return root


def test_bad_annotations_are_left_out_and_named(tmp_path: Path) -> None:
    root = spoiled(tmp_path)
    data = OwnObjectsDataModule(root=str(root), workers=0)
    ledger = tmp_path / "ledger.jsonl"
    data.configure(BatchPlan(4, 4, 1, 1), seed=0, ledger=ledger)
    with pytest.warns(UserWarning, match="1 x unknown class, 1 x box without area"):
        data.setup("fit")
    named = [json.loads(line)["file"] for line in ledger.read_text().splitlines()]
    assert named == [f"labels/train/train_0.txt: line {n}" for n in (4, 5)]
    boxes = data.datasets["train"].load(0, np.random.default_rng(0))["target"]["boxes"]
    assert len(boxes) == 3


def test_bad_annotations_are_refused(tmp_path: Path) -> None:
    root = spoiled(tmp_path)
    for policy in ("reference", "refuse"):
        data = OwnObjectsDataModule(root=str(root), on_bad_annotation=policy)  # type: ignore[arg-type]
        with pytest.raises(ZooError, match=r"train_0.txt: line 4: the class is 7; expected 0 to 2"):
            data.setup("fit")


def test_coco_keeps_its_ids(tmp_path: Path) -> None:
    data = scenes()
    own = configured(WRITERS["coco"](tmp_path / "a", data))
    assert own.category_ids == [None, 10, 11, 12]
    assert own.categories == {10: "cat", 11: "dog", 12: "owl"}
    theirs = CocoDataModule(root=str(tmp_path / "a"), train="train", val="val", workers=0)
    theirs.configure(BatchPlan(4, 4, 1, 1), seed=3)
    theirs.setup("fit")
    mine, others = own.datasets["val"], theirs.datasets["val"]
    rng = np.random.default_rng(0)
    for i in range(3):
        a, b = mine.load(i, rng), others.load(i, rng)
        assert a["id"] == b["id"]
        drop = [{k: v for k, v in r.items() if k != "id"} for r in a["target"]["annotations"]]
        kept = [{k: v for k, v in r.items() if k != "id"} for r in b["target"]["annotations"]]
        assert drop == kept


def test_masks_that_some_objects_lack(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", scenes())
    data = OwnObjectsDataModule(root=str(root), target="masks")
    with pytest.raises(ZooError, match=r"no object of .* has one; use --data.target boxes"):
        data.setup("fit")
    for name in ("train/train_0", "val/val_0"):
        with open(root / "labels" / f"{name}.txt", "a") as file:
            file.write("\n0 0.1 0.1 0.4 0.1 0.4 0.4\n")
    assert OwnObjectsDataModule(root=str(root)).target == "boxes"
    data = OwnObjectsDataModule(root=str(root), target="masks", workers=0)
    data.configure(BatchPlan(4, 4, 1, 1), seed=0)
    with pytest.warns(UserWarning, match="objects .* have no mask: they are neither trained on"):
        data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    target = train.load(0, np.random.default_rng(0))["target"]
    assert target["masks"].shape[0] == len(target["boxes"]) == 1
    assert sum(val.load(0, np.random.default_rng(0))["target"]["iscrowd"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "keypoints"}, "target is keypoints and the objects of .* have boxes; use"),
        ({"target": "bones"}, "unknown target 'bones'; did you mean boxes"),
        ({"root": "nowhere", "target": "auto"}, "there is no 'nowhere'"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", scenes())
    with pytest.raises(ZooError, match=said):
        OwnObjectsDataModule(**{"root": str(root), **options})


def test_other_data_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for scene in scenes(3, 0):
            write_image(tmp_path / "train" / name / f"{scene.stem}.png", scene.pixels)
    with pytest.raises(ZooError, match="holds data for classification"):
        OwnObjectsDataModule(root=str(tmp_path), target="boxes").setup("fit")
