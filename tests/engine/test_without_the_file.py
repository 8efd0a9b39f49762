"""A run that began from published weights needs their file no more: a checkpoint has it all."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_detectors import SMALL, write_recipe
from torch import nn

from lightning_zoo import models
from lightning_zoo.cli import main
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.engine.evaluate import recipe_of
from lightning_zoo.engine.scenes import write_scenes
from lightning_zoo.engine.session import build_task
from lightning_zoo.layers import FrozenBatchNorm2d
from lightning_zoo.models import hub
from lightning_zoo.models.registry import Weights, get_weights
from lightning_zoo.recipe import Recipe


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hub, "download", lambda *a, **k: pytest.fail("asked for a file"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def write_file(cache: Path, weights: Weights, network: nn.Module) -> Path:
    """Write what stands for the published file: small variances, so that an eps of 1e-5 counts."""
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.fill_(1e-4)
        elif name.endswith("running_mean"):
            value.normal_(0, 1e-3)
        elif f"{name.removesuffix('weight')}running_var" in state:
            value.fill_(4e-3)
    torch.save(state, cache / weights.file_name)
    return cache / weights.file_name


def last_row(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    return {k: float(v) for k, v in rows[-1].items() if k.startswith("val/")}


def state_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def check(recipe: Path, file: Path, photos: Path, out: Path, capsys: Any) -> Path:
    """Train with the file; validate, predict and go on without it. Return the run."""

    def fit(folder: str, epochs: int, *more: str) -> Path:
        command = ["fit", "--recipe", str(recipe), "--out", str(out / folder), *more]
        assert main([*command, "--trainer.max_epochs", str(epochs)]) == 0
        return next((out / folder).glob(f"{recipe.stem}/*/run.json")).parent

    whole = fit("whole", 2)
    run = fit("half", 1)
    file.unlink()
    expected = last_row(run)
    capsys.readouterr()
    assert main(["validate", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert "val/loss" in expected
    for name, value in expected.items():
        both_nan = math.isnan(value) and metrics[name] is None  # JSON knows no NaN
        assert both_nan or metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert main(["predict", str(run), str(photos), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(list(photos.iterdir()))
    assert fit("half", 2, "--resume", str(run)) == run
    resumed = state_of(run)
    for name, value in state_of(whole).items():
        assert torch.equal(resumed[name], value), name
    assert not file.exists()
    return run


def frozen(run: Path) -> list[float]:
    """Return the eps of each frozen norm of a run's network, as it is built without the file."""
    recipe: Recipe = recipe_of(run / "checkpoints" / "last.ckpt")
    classes = recipe.config["model"]["init_args"]["num_classes"]
    task, _ = build_task(recipe, num_classes=classes, structure_only=True)
    return [m.eps for m in task.modules() if isinstance(m, FrozenBatchNorm2d)]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, train=8, val=3, side=64)
    return root


def test_pretrained_backbone(
    tmp_path: Path, scenes: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "boxes", root=scenes)
    content = yaml.safe_load(recipe.read_text())
    content["model"]["init_args"] |= {"pretrained_backbone": True, "trainable_backbone_layers": 2}
    recipe.write_text(yaml.safe_dump(content))
    torch.manual_seed(1)
    file = write_file(cache, get_weights("resnet18"), models.resnet18())
    stem = torch.load(file, weights_only=True)["conv1.weight"]
    run = check(recipe, file, scenes / "val2017", tmp_path, capsys)
    assert torch.equal(state_of(run)["model.backbone.body.conv1.weight"], stem), "it was loaded"
    assert set(frozen(run)) == {1e-5}


@pytest.mark.slow
def test_published_detector(
    tmp_path: Path, scenes: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frozen norms of a published detector have no eps; those of its run have none either."""
    recipe = write_recipe(tmp_path, "boxes", root=scenes)
    sizes = {k: v for k, v in SMALL.items() if k.startswith(("rpn_", "box_", "min_", "max_"))}
    name = "fasterrcnn_resnet50_fpn"
    content = yaml.safe_load(recipe.read_text())
    content["model"]["init_args"] |= {"model": name, "weights": "COCO_V1", "model_args": sizes}
    content["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e-4
    recipe.write_text(yaml.safe_dump(content))
    torch.manual_seed(1)
    network = models.get_model(name, pretrained_backbone=False)
    file = write_file(cache, get_weights(name), network)
    run = check(recipe, file, scenes / "val2017", tmp_path, capsys)
    assert set(frozen(run)) == {0.0}


def test_classifier(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=12, size=40)
    recipe = tmp_path / "classifier.yaml"
    recipe.write_text(
        "model:\n  class_path: ClassificationTask\n  init_args:\n    model: squeezenet1_1\n"
        "    weights: DEFAULT\n"
        "    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01}}\n"
        "data:\n  class_path: ImageFolderDataModule\n  init_args:\n"
        f"    {{root: {tmp_path}/data, train_crop: 32, eval_resize: 36, eval_crop: 32,\n"
        "    workers: 0}\n"
        "batch: {size: 6, per_device: 6}\ntrainer: {max_epochs: 2}\n"
    )
    torch.manual_seed(1)
    file = write_file(cache, get_weights("squeezenet1_1"), models.squeezenet1_1())
    check(recipe, file, tmp_path / "data" / "val" / "class_0", tmp_path, capsys)
