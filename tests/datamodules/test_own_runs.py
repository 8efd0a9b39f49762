"""Runs on one's own data: fit, validate and predict, without a word on how the data is laid out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import lightning_zoo as lz
from lightning_zoo import datamodules
from lightning_zoo.datamodules.video_fake import write_fake_folders

FRAMES = {"train_resize": [36, 48], "train_crop": 32, "eval_resize": [36, 48], "eval_crop": 32}
KINDS: dict[str, dict[str, Any]] = {
    "images": {
        "task": {"class_path": "ClassificationTask", "init_args": {"model": "squeezenet1_1"}},
        "data": {"train_crop": 32, "eval_resize": 36, "eval_crop": 32},
        "class": "OwnImagesDataModule",
        "file": "images/val_0001.jpg",
    },
    "several": {
        "task": {
            "class_path": "ClassificationTask",
            "init_args": {"model": "squeezenet1_1", "multilabel": True},
        },
        "data": {"train_crop": 32, "eval_resize": 36, "eval_crop": 32},
        "class": "OwnImagesDataModule",
        "file": "images/val_0001.jpg",
    },
    "masks": {
        "task": {
            "class_path": "SegmentationTask",
            "init_args": {
                "model": "fcn", "model_args": {"backbone": "resnet18", "output_stride": 8}
            },
        },
        "data": {"train_resize": [32, 48], "train_crop": 32, "eval_resize": None},
        "class": "OwnMasksDataModule",
        "file": "images/val/0001.jpg",
    },
    "videos": {
        "task": {"class_path": "VideoTask", "init_args": {"model": "mc3_18"}},
        "data": {**FRAMES, "clip_frames": 4, "train_clips": 2, "eval_clips": 2,
                 "index_workers": 0},
        "class": "OwnVideosDataModule",
        "file": "test/class_1/test_0001.mp4",
    },
}  # fmt: skip


def write_data(kind: str, root: Path) -> None:
    if kind == "masks":
        datamodules.OwnMasksDataModule.write_fake(root, classes=3, images=4, size=48)
        (root / "classes.txt").unlink()
    elif kind == "videos":
        write_fake_folders(root, classes=2, images=4, size=48)
        shutil.rmtree(root / "val")
    else:
        datamodules.OwnImagesDataModule.write_fake(root, classes=2, images=4, size=40)
        (root / "images").mkdir()
        rows = []
        for path in sorted(root.glob("*/*/*.jpg")):
            split, label = path.parts[-3:-1]
            more = ";large" if kind == "several" and "1" in path.stem else ""
            rows.append(f"{path.name}\t{label}{more}\t{split}")
            path.rename(root / "images" / path.name)
        (root / "labels.tsv").write_text("\n".join(["Image\tLabel\tSplit", *rows]))


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_then_measured_and_used(tmp_path: Path, kind: str) -> None:
    facts = KINDS[kind]
    root = tmp_path / "data"
    write_data(kind, root)
    task = facts["task"]
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.001}}
    recipe = {
        "seed_everything": 0,
        "model": {**task, "init_args": {**task["init_args"], "optimizer": optimizer}},
        "data": {
            "class_path": facts["class"],
            "init_args": {"root": str(root), "workers": 0, **facts["data"]},
        },
        "batch": {"size": 2, "per_device": 2},
        "trainer": {"max_epochs": 1, "max_steps": 2, "accelerator": "cpu"},
        "run": {"loggers": ["csv"], "pictures": 2},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = lz.fit(path, out=tmp_path / "runs")
    assert list((done.run / "checkpoints").glob("*.ckpt"))
    measured = lz.validate(done.run)
    assert measured.metrics.keys() & {"val/acc@1", "val/map", "val/miou"}
    file = shutil.copy(root / facts["file"], tmp_path)
    shutil.rmtree(root)  # using the network needs no data
    (found,) = lz.predict(done.run, file)
    assert found.summary()


@pytest.mark.parametrize("kind", ["several", "masks"])
def test_smoke(tmp_path: Path, kind: str) -> None:
    """What the recipe says of the data's form does not hold for the generated data."""
    facts = KINDS[kind]
    task = facts["task"]
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.001}}
    form = {"format": "csv", "annotations": "x.csv"} if kind == "several" else {"format": "masks"}
    recipe = {
        "model": {**task, "init_args": {**task["init_args"], "optimizer": optimizer}},
        "data": {"class_path": facts["class"], "init_args": {"root": "gone", **form}},
        "batch": {"size": 32, "per_device": 8},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert lz.fit(path, smoke=True, out=tmp_path / "runs").run.is_dir()
