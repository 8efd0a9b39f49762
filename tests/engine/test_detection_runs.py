"""Detectors from the recipe to the pictures: fit, validate, predict, interrupt, two processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from small_detectors import HEADS, write_recipe

import lightning_zoo as lz
from lightning_zoo.cli import main
from lightning_zoo.datamodules.coco import CocoDataModule
from lightning_zoo.engine.scenes import KITE, write_scenes
from lightning_zoo.errors import ZooError
from lightning_zoo.tasks import DetectionTask


def read_rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def kites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kites")
    write_scenes(root, train=10, val=5, side=64, kites=True)
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, train=11, val=5, side=64)
    return root


@pytest.mark.parametrize("target", HEADS)
def test_fit_validate_predict(
    target: str, tmp_path: Path, scenes: Path, kites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kites if target == "keypoints" else scenes
    recipe = write_recipe(tmp_path, target, root=root)
    out = str(tmp_path / "runs")
    assert main(["fit", "--recipe", str(recipe), "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "1 class, 10 training images" in printed or "4 classes, 11 training images" in printed
    table = next(line for line in printed.splitlines() if "train/loss" in line).split()
    shown = {"boxes": [], "masks": ["val/mask_map"], "keypoints": ["val/kp_map"]}[target]
    assert {"val/box_map", "val/box_map50", "val/loss", *shown} <= set(table)
    assert "val/box_mar100" not in table

    (run,) = (tmp_path / "runs" / target).iterdir()
    rows = read_rows(run)
    last = [row for row in rows if row["val/box_map"]][-1]
    head = {"boxes": (), "masks": ("loss_mask",), "keypoints": ("loss_keypoint",)}[target]
    for name in ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", *head):
        assert float(last[f"val/{name}"]) >= 0
        assert any(row[f"train/{name}"] for row in rows)
    for path in sorted((run / "pictures").iterdir()):
        Image.open(path).verify()

    assert main(["validate", str(run), "--json", "--out", out]) == 0
    found = json.loads(capsys.readouterr().out)
    best = max(float(row["val/box_map"]) for row in rows if row["val/box_map"])
    assert found["metrics"]["val/box_map"] <= best + 1e-4
    assert [row["name"] for row in found["per_class"]] == (
        ["kite"] if target == "keypoints" else ["circle", "cross", "star", "triangle"]
    )
    assert main(["validate", str(run), "--per_class", "--out", out]) == 0
    answer = capsys.readouterr().out
    assert "val/box_map50" in answer
    assert ("kite" in answer) == (target == "keypoints")
    assert "no object in this data" not in answer

    photos = str(root / "val2017")
    predictions = tmp_path / "predictions"
    command = ["predict", str(run), photos, "--out", str(predictions), "--threshold", "0"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    content = json.loads((predictions / "predictions.json").read_text())
    assert len(content) == 5
    for image in content:
        assert (image["width"], image["height"]) == (64, 64)
        for one in image["objects"]:
            x1, y1, x2, y2 = one["box"]
            assert 0 <= x1 <= x2 <= 64
            assert 0 <= y1 <= y2 <= 64
            assert 0 <= one["score"] <= 1
            assert ("mask" in one) == (target == "masks")
            assert len(one.get("keypoints", KITE)) == 4
    assert any(image["objects"] for image in content)
    names = {path.name for path in predictions.iterdir()}
    assert names == {f"{i:012d}.png" for i in range(1, 6)} | {"grid.png", "predictions.json"}


def test_classes_without_an_object(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "boxes", root=scenes, trainer={"max_epochs": 1})
    run = lz.fit(recipe, out=tmp_path / "runs").run
    content = json.loads((scenes / "annotations" / "instances_val2017.json").read_text())
    gone = [c["id"] for c in content["categories"] if c["name"] in ("cross", "star")]
    kept = [a for a in content["annotations"] if a["category_id"] not in gone]
    file = tmp_path / "val2017.json"
    file.write_text(json.dumps({**content, "annotations": kept}))
    files = str(tmp_path / "{split}.json")
    capsys.readouterr()
    assert main(["validate", str(run), "--per_class", "--data.annotations", files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["label", "name", "images", "objects"]
    assert [line.split()[1] for line in lines[1:3]] == ["circle", "triangle"]
    assert lines[3] == "no object in this data: 2 classes"
    assert lines[4].startswith("val/")


def test_interrupted_in_mid_epoch(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grouped by shape, with masks, augmented: a run that breaks goes on to the same weights."""
    recipe = write_recipe(tmp_path, "masks", root=scenes, run={"pictures": 0, "loggers": ["csv"]})
    whole = lz.fit(recipe, out=tmp_path / "whole")
    step = DetectionTask.training_step
    calls = []

    def breaks(self: DetectionTask, batch: Any, batch_idx: int) -> Any:
        calls.append(batch["id"])
        if len(calls) == 9:  # of 12 batches; the second epoch's third, behind a whole step of it
            raise ZooError("the power went off")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DetectionTask, "training_step", breaks)
    with pytest.raises(ZooError, match="the power went off"):
        lz.fit(recipe, out=tmp_path / "broken")
    (folder,) = (tmp_path / "broken" / "masks").iterdir()
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 4
    monkeypatch.setattr(DetectionTask, "training_step", step)
    resumed = lz.fit(recipe, out=tmp_path / "broken", resume="auto")
    assert resumed.run == folder
    states = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
        for path in (whole.run, resumed.run)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name
    texts = [(path / "metrics.csv").read_text() for path in (whole.run, resumed.run)]
    assert texts[0] == texts[1]


def test_two_processes_do_the_same(tmp_path: Path, scenes: Path) -> None:
    """The same images a step, every validation image counted once, the same figures."""
    # frozen batch norm is out of reach without pretrained weights; a batch norm of its own on each
    # process would see other images, so this network takes none
    recipe = write_recipe(
        tmp_path, "boxes", root=scenes, run={"pictures": 0, "loggers": ["csv"]},
    )  # fmt: skip
    content = yaml.safe_load(recipe.read_text())
    content["model"]["init_args"]["model_args"] |= {"backbone": "squeezenet1_1"}
    content["model"]["init_args"]["model_args"].pop("returned_layers")
    content["model"]["init_args"]["model_args"]["anchor_sizes"] = [16, 32, 48, 64]
    recipe.write_text(yaml.safe_dump(content))
    runs = []
    for devices in (1, 2):
        out = tmp_path / f"on_{devices}"
        command = [sys.executable, "-m", "lightning_zoo", "fit", "--recipe", str(recipe)]
        command += ["--out", str(out), "--devices", str(devices)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert answer.returncode == 0, answer.stderr
        runs.append(next(out.glob("boxes/*/run.json")).parent)
    states = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in runs]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for name, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], tensor, rtol=1e-4, atol=1e-5)
    rows = [read_rows(run) for run in runs]
    last = [[row for row in table if row["val/box_map"]][-1] for table in rows]
    for name in ("val/loss", "val/box_map50", "val/box_mar100"):
        assert float(last[0][name]) == pytest.approx(float(last[1][name]), rel=1e-3, abs=1e-3)


MISTAKES = {
    "--data.target boxes": "data.target is 'boxes' and the model needs masks; use --data.target",
    "--model.num_classes 91": "model.num_classes is 91 and the data in",
    "--model.model resnet18": "resnet18 is a classification model; expected one for detection",
    "--model.model_args.min_sice 64": "no argument 'min_sice'; did you mean min_size?",
    "--data.root nowhere": "no data in 'nowhere' (data.root); expected this layout",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_mistakes(
    option: str, tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "masks", root=scenes)
    command = ["fit", "--recipe", str(recipe), "--out", str(tmp_path / "runs"), *option.split()]
    assert main(command) == 2
    assert MISTAKES[option] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "a run was begun"


def test_generated_data_has_the_real_layout(tmp_path: Path) -> None:
    write_scenes(tmp_path, train=6, val=3, side=64)
    data = CocoDataModule(root=str(tmp_path), target="masks", workers=0)
    data.setup("fit")
    assert data.class_names == ["__background__", "circle", "cross", "star", "triangle"]
    assert data.num_train_samples == 6
