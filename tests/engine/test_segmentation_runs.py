"""Segmentation from recipe to pictures: fit, validate, predict, interrupt, two processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lightning_zoo as lz
from lightning_zoo.cli import main
from lightning_zoo.engine.scenes import CLASSES, draw_scene, write_masks
from lightning_zoo.errors import ZooError
from lightning_zoo.tasks import SegmentationTask

SIDE = 64
NAMES = ["background", *CLASSES]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_masks(root, train=11, val=5, side=SIDE)
    return root


def write_recipe(folder: Path, root: Path, **changes: Any) -> Path:
    task: dict[str, Any] = {
        "model": "fcn",
        "model_args": {"backbone": "resnet18", "output_stride": 8},
        "aux_loss": True,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}},
        "lr_schedule": {"class_path": "PolynomialDecay", "init_args": {}},
    }
    data = {"root": str(root), "train_resize": [48, 96], "train_crop": 48, "eval_resize": None,
            "workers": 0, "drop_last": True, "eval_batch": 2}  # fmt: skip
    recipe = {
        "seed_everything": 0,
        "model": {"class_path": "SegmentationTask", "init_args": task},
        "data": {"class_path": "MaskFolderDataModule", "init_args": data},
        "batch": {"size": 4, "per_device": 2},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "run": {"loggers": ["csv"], "checkpoint_steps": 1, "pictures": 2},
    }
    for section, keys in changes.items():
        recipe[section] = {**recipe[section], **keys}  # type: ignore[dict-item]
    path = folder / "shapes.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def read_rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_masks_of_scenes(scenes: Path) -> None:
    """Written masks are the objects of the very picture, in the classes' order."""
    assert (scenes / "classes.txt").read_text().split() == NAMES
    rng = np.random.default_rng(0)
    for i in range(1, 12):
        picture, objects, masks = draw_scene(rng, SIDE, kites=False)
        kept = np.asarray(Image.open(scenes / "images" / "train" / f"{i:06d}.png"))
        assert (kept == np.asarray(picture)).all()
        labels = np.asarray(Image.open(scenes / "masks" / "train" / f"{i:06d}.png"))
        for one, mask in zip(objects, masks, strict=True):
            assert set(labels[mask > 0].tolist()) <= {NAMES.index(one.label)}
        assert (labels[sum(masks) == 0] == 0).all()


def test_fit_validate_predict(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, scenes)
    out = str(tmp_path / "runs")
    assert main(["fit", "--recipe", str(recipe), "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "5 classes, 11 training images" in printed
    assert "2 epochs x 2 steps" in printed  # the last three images are dropped
    table = next(line for line in printed.splitlines() if "train/loss" in line).split()
    assert {"val/miou", "val/pixel_acc", "val/loss"} <= set(table)
    (run,) = (tmp_path / "runs" / "shapes").iterdir()
    rows = read_rows(run)
    assert any(row["train/loss_aux"] for row in rows)
    for path in sorted((run / "pictures").iterdir()):
        Image.open(path).verify()

    assert main(["validate", str(run), "--json", "--out", out]) == 0
    found = json.loads(capsys.readouterr().out)
    best = max(float(row["val/miou"]) for row in rows if row["val/miou"])
    assert found["metrics"]["val/miou"] == pytest.approx(best, abs=1e-3)
    assert [row["name"] for row in found["per_class"]] == NAMES
    assert sum(row["pixels"] for row in found["per_class"]) == 5 * SIDE * SIDE
    assert main(["validate", str(run), "--per_class", "--out", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["label", "name", "pixels", "iou", "acc"]
    assert lines[1].split()[1] == "background"

    predictions = tmp_path / "predictions"
    photos = str(scenes / "images" / "val")
    assert main(["predict", str(run), photos, "--out", str(predictions)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    for i in range(1, 6):
        mask = Image.open(predictions / f"{i:06d}_mask.png")
        assert (mask.mode, mask.size) == ("P", (SIDE, SIDE))
        assert np.asarray(mask).max() < 5
    # what is predicted is what validation measured
    right = sum(
        (np.asarray(Image.open(predictions / f"{i:06d}_mask.png"))
         == np.asarray(Image.open(scenes / "masks" / "val" / f"{i:06d}.png"))).sum()
        for i in range(1, 6)
    )  # fmt: skip
    measured = found["metrics"]["val/pixel_acc"]
    assert 100 * right / (5 * SIDE * SIDE) == pytest.approx(measured, abs=1e-2)


def test_interrupted_in_mid_epoch(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, scenes, run={"pictures": 0, "loggers": ["csv"]})
    whole = lz.fit(recipe, out=tmp_path / "whole")
    step = SegmentationTask.training_step
    calls = []

    def breaks(self: SegmentationTask, batch: Any, batch_idx: int) -> Any:
        calls.append(batch["id"])
        if len(calls) == 7:  # of 8 batches; the second epoch's third, behind a whole step of it
            raise ZooError("the power went off")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", breaks)
    with pytest.raises(ZooError, match="the power went off"):
        lz.fit(recipe, out=tmp_path / "broken")
    monkeypatch.setattr(SegmentationTask, "training_step", step)
    resumed = lz.fit(recipe, out=tmp_path / "broken", resume="auto")
    states = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
        for path in (whole.run, resumed.run)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 4
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name
    texts = [(path / "metrics.csv").read_text() for path in (whole.run, resumed.run)]
    assert texts[0] == texts[1]


@pytest.mark.slow  # of every task, tests/engine/test_exact_over_ranks.py has more
def test_two_processes_do_the_same(tmp_path: Path, scenes: Path) -> None:
    """The same steps; and of one checkpoint, exactly the same figures."""
    recipe = write_recipe(tmp_path, scenes, run={"pictures": 0, "loggers": ["csv"]})
    whole = lz.fit(recipe, out=tmp_path / "on_1", devices=1)

    def on_two(*arguments: str) -> str:
        command = [sys.executable, "-m", "lightning_zoo", *arguments]
        command += ["--out", str(tmp_path / "on_2"), "--devices", "2"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    on_two("fit", "--recipe", str(recipe))
    (other,) = (tmp_path / "on_2" / "shapes").iterdir()
    measured = json.loads(on_two("validate", str(whole.run), "--json"))
    alone = lz.validate(whole.run, devices=1)
    assert json.loads(json.dumps(list(alone.per_class))) == measured["per_class"]
    assert alone.metrics == pytest.approx(measured["metrics"], rel=1e-6)
    states = [
        torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (whole.run, other)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 4
    for name, tensor in states[0]["state_dict"].items():
        if "running_" in name or "num_batches" in name:
            continue  # each process follows the batches that it sees
        torch.testing.assert_close(states[1]["state_dict"][name], tensor, rtol=1e-3, atol=1e-4)


MISTAKES = {
    "--model.num_classes 21": "model.num_classes is 21 and the data in",
    "--model.model resnet18": "resnet18 is a classification model; expected one for segmentation",
    "--model.aux_weigth 1": "aux_weigth",
    "--data.root nowhere": "no data in 'nowhere' (data.root); expected this layout",
    "--data.train_resize 128": "data.train_resize is 128; expected 2 whole numbers, [A, B]",
    "--data.class_path CocoIndex": "unknown class 'CocoIndex'",
    "--data.class_path VideoFolderDataModule": "data.eval_resize",
    "--model.aux_weight -1": "aux_weight is -1; expected 0 or more",
    "--batch.size 12": "fewer than one step of 12 images and drop_last leaves none",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_mistakes(
    option: str, tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, scenes)
    command = ["fit", "--recipe", str(recipe), "--out", str(tmp_path / "runs"), *option.split()]
    assert main(command) == 2
    assert MISTAKES[option] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "a run was begun"


def test_a_step_of_more_images_than_there_are(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, scenes, run={"pictures": 0}, trainer={"max_epochs": 1})
    options = ["--batch.size", "22", "--data.drop_last", "false", "--out", str(tmp_path / "runs")]
    assert main(["fit", "--recipe", str(recipe), *options]) == 0
    printed = capsys.readouterr().out
    assert "a step takes every image 2.0 times; --batch.size 2 makes more steps" in printed


def test_a_reference_is_not_held_against_other_data(tmp_path: Path, scenes: Path) -> None:
    small = {"data.root": str(scenes), "data.eval_resize": None, "trainer.max_epochs": 1}
    same = lz.fit("demo_segmentation", small, out=tmp_path)
    options = [f"--{key}={'null' if value is None else value}" for key, value in small.items()]
    command = ["fit", "--recipe", "demo_segmentation", *options, "--out", str(tmp_path / "other")]
    assert main([*command, "--model.model", "fcn", "--run.pictures", "0"]) == 0
    (other,) = (tmp_path / "other" / "demo_segmentation").iterdir()
    assert lz.validate(same.run).expected == {"val/miou": 86.0}
    assert lz.validate(other).expected == {}


def test_one_file_may_be_named_alone(tmp_path: Path, scenes: Path) -> None:
    recipe = write_recipe(tmp_path, scenes, run={"pictures": 0}, trainer={"max_epochs": 1})
    run = lz.fit(recipe, out=tmp_path / "runs").run
    photo = scenes / "images" / "val" / "000001.png"
    for name in (photo, str(photo)):
        (found,) = lz.predict(run, name)
        assert found.file == str(photo)


def test_a_task_and_data_that_do_not_fit(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, scenes)
    content = yaml.safe_load(recipe.read_text())
    content["model"]["class_path"] = "DetectionTask"
    content["model"]["init_args"] = {"model": "faster_rcnn", "optimizer": {
        "class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}}  # fmt: skip
    recipe.write_text(yaml.safe_dump(content))
    assert main(["fit", "--recipe", str(recipe), "--out", str(tmp_path / "runs")]) == 2
    text = "DetectionTask cannot learn from MaskFolderDataModule"
    assert text in capsys.readouterr().err
