"""Fine-tuning within runs: what moves when, rates, resuming exactly, and several processes."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lightning_zoo import models
from lightning_zoo.callbacks import AtomicCheckpointIO
from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
from lightning_zoo.engine import fit
from lightning_zoo.engine.session import build_data, build_task, join, plan_for
from lightning_zoo.optim import Length
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.tasks.base import Task

SOURCE = ["c2", "other", "c0"]  # two of them are the data's


def write(folder: Path, model: str, **changes: Any) -> Path:
    """Write data of three classes, a file of weights that knows two of them, and a recipe."""
    data = folder / "data"
    if not data.is_dir():
        ImageFolderDataModule.write_fake(data, classes=3, images=24, size=40)
        for split in data.iterdir():
            for i, path in enumerate(sorted(p for p in split.iterdir() if p.is_dir())):
                path.rename(split / f"c{i}")
        torch.manual_seed(1)
        state = models.get_model(model, num_classes=3).state_dict()
        state = {f"model.{name}": value for name, value in state.items()}
        ours = {"class_names": SOURCE}
        torch.save({"state_dict": state, "lightning_zoo": ours}, folder / "start.ckpt")
    task = {
        "model": model,
        "weights": str(folder / "start.ckpt"),
        "mixup_alpha": 0.2,
        "ema_decay": 0.9,
        "finetuning": {
            "class_path": "FineTuning",
            "init_args": {"freeze_epochs": 0.5, "backbone_lr_factor": 0.5, "stage_factor": 0.8},
        },
        "optimizer": {
            "class_path": "torch.optim.SGD",
            "init_args": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
        },
        "norm_weight_decay": 0.0,
        "lr_schedule": {"class_path": "CosineDecay", "init_args": {"by": "step"}},
    }
    recipe = {
        "seed_everything": 0,
        "model": {"class_path": "ClassificationTask", "init_args": {**task, **changes}},
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {"root": str(data), "train_crop": 32, "eval_resize": 36,
                          "eval_crop": 32, "workers": 0},
        },
        "batch": {"size": 4, "per_device": 2},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "gradient_clip_val": 0.5},
        "run": {"loggers": ["csv"], "checkpoint_steps": 1, "pictures": 0},
    }  # fmt: skip
    path = folder / "tuned.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def started(path: Path) -> Task:
    """Return the task as ``fit`` hands it to the trainer."""
    recipe: Recipe = load_recipe(path).check()
    data = build_data(recipe, plan_for(recipe, 1), "fit")
    task, _ = build_task(recipe, num_classes=3)
    join(task, data)
    task.configure(Length(6, 2), batch_size=4, lr_scale=1.0, seed=0)
    return task


def weights_of(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the checkpoint of every step."""
    folder = tmp_path / "steps"
    folder.mkdir()
    save = AtomicCheckpointIO.save_checkpoint

    def keep(self: Any, checkpoint: dict[str, Any], path: str | Path, **kwargs: Any) -> None:
        save(self, checkpoint, path, **kwargs)
        copy = folder / f"{checkpoint['global_step']}.ckpt"
        if not copy.is_file():
            shutil.copy(path, copy)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", keep)
    return folder


def test_a_run_and_its_resumption(tmp_path: Path, every_step: Path) -> None:
    """24 images, 6 steps an epoch: three steps of the head alone, then all of the network."""
    recipe = write(tmp_path, "shufflenet_v2_x0_5")
    whole = fit(recipe, out=tmp_path / "whole")
    start = weights_of(tmp_path / "start.ckpt")
    moved = {}
    for step in range(1, 13):
        now = weights_of(every_step / f"{step}.ckpt")
        moved[step] = {n for n, v in now.items() if not torch.equal(v, start[n])}
    head = {"fc.weight", "fc.bias"}
    assert [step for step, names in moved.items() if names == head] == [1, 2, 3]
    for step in range(4, 13):  # norms follow too; some gradients are too small to tell
        assert {n for n in start if "running" in n or "tracked" in n} < moved[step]
        assert {"conv1.0.weight", "stage3.0.branch1.0.weight", "conv5.0.weight"} < moved[step]
    with (whole.run / "metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    # the head's, at the sixth of twelve steps
    assert rates[0] == pytest.approx(0.05 * (1 + math.cos(math.pi * 5 / 12)) / 2)

    for step in (2, 8):  # killed while they stand still, and later
        out = tmp_path / f"from_{step}"
        (tmp_path / "start.ckpt").rename(tmp_path / "gone.ckpt")  # nobody reads it again
        again = fit(recipe, resume=every_step / f"{step}.ckpt", out=out)
        (tmp_path / "gone.ckpt").rename(tmp_path / "start.ckpt")
        states = [
            torch.load(result.run / "checkpoints" / "last.ckpt", weights_only=True)
            for result in (whole, again)
        ]
        assert states[0]["global_step"] == states[1]["global_step"] == 12
        for name, value in states[0]["state_dict"].items():
            assert torch.equal(value, states[1]["state_dict"][name]), f"{step}: {name}"


def test_known_classes_keep_their_rows(tmp_path: Path) -> None:
    task = started(write(tmp_path, "shufflenet_v2_x0_5"))
    start = weights_of(tmp_path / "start.ckpt")
    head = task.model.fc.weight
    assert torch.equal(head[0], start["fc.weight"][2])  # c0
    assert torch.equal(head[2], start["fc.weight"][0])  # c2
    assert not torch.isclose(head[1], start["fc.weight"]).all(1).any()
    assert torch.equal(task.ema.module.fc.weight, head)
    lines = task.explain_finetuning()
    assert lines[0] == "shufflenet_v2_x0_5 from start.ckpt"
    assert lines[-3:] == [
        "head: 2 of 3 classes keep their rows (c0, c2), 1 starts anew (c1)",
        "the rest stands still for 3 steps, then learns at 0.5 of the head's rate",
        "(times 0.8 for each stage towards the input)",
    ]
    task = started(write(tmp_path, "shufflenet_v2_x0_5", finetuning=None))
    assert torch.equal(task.model.fc.weight, start["fc.weight"])
    assert task.explain_finetuning() == []


def test_rates_of_the_groups(tmp_path: Path) -> None:
    task = started(write(tmp_path, "shufflenet_v2_x0_5"))
    optimizer = task.configure_optimizers()["optimizer"]
    rates = {id(p): g["initial_lr"] for g in optimizer.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    named = dict(task.model.named_parameters())
    assert len(rates) == len(named)
    assert optimizer.param_groups[0]["initial_lr"] == 0.05
    assert rates[id(named["fc.bias"])] == 0.05
    for name, power in (("conv5.0.weight", 0), ("stage3.0.branch1.0.weight", 1),
                        ("stage2.0.branch1.0.weight", 2), ("conv1.0.weight", 3)):  # fmt: skip
        assert rates[id(named[name])] == pytest.approx(0.05 * 0.5 * 0.8**power)
    assert decay[id(named["conv1.1.weight"])] == 0.0  # a norm
    assert decay[id(named["conv1.0.weight"])] == 0.01


def test_without_weights_it_has_no_effect(tmp_path: Path) -> None:
    task = started(write(tmp_path, "shufflenet_v2_x0_5", weights=None))
    assert task.explain_finetuning() == [
        "finetuning has no effect: the network starts from random weights"
    ]
    assert task.thaw is None
    assert {g["initial_lr"] for g in task.configure_optimizers()["optimizer"].param_groups} == {
        0.05
    }


def test_the_head_learns_where_the_file_brought_all(tmp_path: Path) -> None:
    """As many classes: nothing is new by its shape, and the head is what learns first."""
    names = started(write(tmp_path, "shufflenet_v2_x0_5")).head
    assert names == ("fc.weight", "fc.bias")


def test_a_detectors_backbone_was_loaded(tmp_path: Path) -> None:
    """What stands still is the backbone alone; pyramid, proposals and heads are new."""
    from functools import partial

    from lightning_zoo.optim import FineTuning
    from lightning_zoo.tasks import DetectionTask

    path = tmp_path / "backbone.pth"
    torch.save(models.get_model("resnet18").state_dict(), path)
    task = DetectionTask(
        "faster_rcnn", num_classes=3, optimizer=partial(torch.optim.SGD, lr=0.1),
        finetuning=FineTuning(freeze_norms=True),
        model_args={"backbone": "resnet18", "weights_backbone": path, "fpn_channels": 16,
                    "representation_size": 16, "norm_layer": torch.nn.BatchNorm2d},
        trainable_backbone_layers=2,
    )  # fmt: skip
    task.class_names = ["__background__", "a", "b"]
    task.configure(Length(4, 2), batch_size=2, lr_scale=1.0, seed=0)
    assert task.head is not None
    assert task.thaw is not None
    assert not any(n.startswith("backbone.body") for n in task.head)
    assert {n.split(".")[0] for n in task.head} == {"backbone", "rpn", "roi_heads"}
    named = {id(p): n for n, p in task.model.named_parameters()}
    still = {named[id(p)] for p in task.thaw.parameters}
    # three of five stages stand still for good, and so do all norms
    assert {n.split(".")[2] for n in still} == {"layer3", "layer4"}
    assert not any("bn" in n for n in still)
    groups = task.configure_optimizers().param_groups
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.01])
    assert {named[id(p)] for p in groups[1]["params"]} == still
    assert task.explain_finetuning() == [
        "the rest stands still for 4 steps, then learns at 0.1 of the head's rate",
        "(its batch norms stay as they are)",
    ]


@pytest.mark.slow
def test_two_processes_take_the_same_steps(tmp_path: Path) -> None:
    """Gradients are dropped there and never computed here, with clipping by their norm."""
    recipe = write(tmp_path, "squeezenet1_1")  # has no norms
    runs = []
    for devices in (1, 2):
        out = tmp_path / f"on_{devices}"
        command = [sys.executable, "-m", "lightning_zoo", "fit", "--recipe", str(recipe)]
        command += ["--out", str(out), "--devices", str(devices)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert answer.returncode == 0, answer.stderr
        runs.append(next(out.glob("tuned/*/checkpoints/last.ckpt")))
    one, two = (torch.load(path, weights_only=True) for path in runs)
    assert one["global_step"] == two["global_step"] == 12
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert one["finetuning"] == two["finetuning"]
