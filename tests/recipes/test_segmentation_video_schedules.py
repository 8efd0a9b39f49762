"""What the segmentation and video recipes really do to the learning rate, at every step.

``SEGMENTATION`` and ``VIDEO`` state the numbers of the reference a second time, typed from the
published tables and not from the recipes; torch's own schedulers are stepped the way the reference
scripts stepped them: once after every iteration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, PolynomialLR, SequentialLR

from lightning_zoo import optim
from lightning_zoo.engine.session import build_task, plan_for, unfit_for_cpu
from lightning_zoo.optim import Length
from lightning_zoo.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[2] / "recipes"
# base rate, weight decay, whether a second head learns
SEGMENTATION = {
    "fcn_r50": (0.02, 1e-4, True),
    "fcn_r101": (0.02, 1e-4, True),
    "deeplabv3_r50": (0.02, 1e-4, True),
    "deeplabv3_r101": (0.02, 1e-4, True),
    "deeplabv3_mobilenet_v3_large": (0.01, 1e-6, True),
    "lraspp_mobilenet_v3_large": (0.01, 1e-6, False),
}
VIDEO = ("mc3_18", "r2plus1d_18", "r3d_18")


def schedule_of(recipe: Recipe, steps: int) -> Any:
    node = recipe.config["model"]["init_args"]["lr_schedule"]
    length = Length(steps, recipe.config["trainer"]["max_epochs"])
    return getattr(optim, node["class_path"])(length, **node["init_args"])


def sgd(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def test_every_recipe_is_stated() -> None:
    for folder, stated in (("segmentation", SEGMENTATION), ("video", VIDEO)):
        names = sorted(path.stem for path in (ROOT / folder).glob("*.yaml"))
        print(f"{len(names)} {folder} recipes")
        assert names == sorted(stated)


@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation_rates(name: str) -> None:
    lr, _, _ = SEGMENTATION[name]
    recipe, images = load_recipe(name), 515  # 16 steps of 32, the rest dropped
    assert recipe.get("data.drop_last") is True
    steps = plan_for(recipe, 8).steps_per_epoch(images, drop_last=True)
    assert steps == 16
    schedule, optimizer = schedule_of(recipe, steps), sgd(lr)
    theirs = PolynomialLR(optimizer, total_iters=30 * steps, power=0.9)
    for step in range(30 * steps):
        expected = optimizer.param_groups[0]["lr"]
        assert recipe.get("model.optimizer.lr") * schedule.factor(step) == pytest.approx(
            expected, rel=1e-9, abs=1e-12
        )
        assert expected == pytest.approx(lr * (1 - step / (30 * steps)) ** 0.9)
        optimizer.step()
        theirs.step()
    assert schedule.factor(30 * steps) == 0.0


@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation_groups(name: str) -> None:
    lr, weight_decay, aux = SEGMENTATION[name]
    recipe = load_recipe(name)
    task, _ = build_task(recipe, num_classes=21, structure_only=True)
    task.configure(Length(10, 30), batch_size=32, lr_scale=1.0, seed=0)
    optimizer = task.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.SGD
    rates: dict[int, float] = {}
    for group in optimizer.param_groups:
        assert (group["momentum"], group["weight_decay"]) == (0.9, weight_decay)
        assert not group["nesterov"]
        rates |= {id(p): group["initial_lr"] for p in group["params"]}
    found = {n: rates[id(p)] for n, p in task.model.named_parameters()}  # all of them train
    heads = {n for n in found if n.startswith("aux_classifier.")}
    assert bool(heads) == aux
    for n, rate in found.items():
        assert rate == pytest.approx(10 * lr if n in heads else lr), n


@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation_batch_and_data(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.config["batch"] == {"size": 8 * 4, "per_device": 4}
    assert recipe.config["trainer"] == {"max_epochs": 30, "sync_batchnorm": True}
    data = recipe.config["data"]["init_args"]
    assert (data["train_resize"], data["train_crop"], data["eval_resize"]) == (
        [260, 1040],
        480,
        520,
    )
    assert data["eval_batch"] == 1
    model = recipe.config["model"]["init_args"]
    assert model["pretrained_backbone"] is True
    aux = SEGMENTATION[name][2]
    assert (model.get("aux_loss", False), model.get("aux_weight", 0.5)) == (aux, 0.5)


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_video_rates(name: str, steps: int) -> None:
    recipe, lr = load_recipe(name), 64 * 0.01
    assert recipe.get("model.optimizer.lr") == pytest.approx(lr)
    schedule, optimizer = schedule_of(recipe, steps), sgd(lr)
    rise = LinearLR(optimizer, start_factor=1e-5, total_iters=10 * steps)
    fall = MultiStepLR(optimizer, milestones=[e * steps - 10 * steps for e in (20, 30, 40)])
    theirs = SequentialLR(optimizer, [rise, fall], milestones=[10 * steps])
    for step in range(45 * steps):
        expected = optimizer.param_groups[0]["lr"]
        assert lr * schedule.factor(step) == pytest.approx(expected, rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()


def test_video_rates_worked_by_hand() -> None:
    schedule = schedule_of(load_recipe("r3d_18"), 100)
    known = {0: 1e-5, 500: 1e-5 + 0.5 * (1 - 1e-5), 999: 1e-5 + 0.999 * (1 - 1e-5), 1000: 1.0,
             1999: 1.0, 2000: 0.1, 2999: 0.1, 3000: 0.01, 4000: 0.001, 4499: 0.001}  # fmt: skip
    for step, factor in known.items():
        assert schedule.factor(step) == pytest.approx(factor, rel=1e-12), step


@pytest.mark.parametrize("name", VIDEO)
def test_video_batch_and_data(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.config["batch"] == {"size": 64 * 24, "per_device": 24}
    trainer = {"max_epochs": 45, "sync_batchnorm": True, "precision": "16-mixed"}
    assert recipe.config["trainer"] == trainer
    data = dict(recipe.config["data"]["init_args"])
    assert data.pop("workers") > 0
    assert data == {
        "root": "data/kinetics400",
        "clip_frames": 16,
        "frame_rate": 15,
        "train_clips": 5,
        "eval_clips": 5,
        "train_resize": [128, 171],
        "train_crop": 112,
        "eval_resize": [128, 171],
        "eval_crop": 112,
    }
    task, _ = build_task(recipe, num_classes=400)
    task.configure(Length(10, 45), batch_size=1536, lr_scale=1.0, seed=0)
    (group,) = task.configure_optimizers()["optimizer"].param_groups
    assert (group["initial_lr"], group["momentum"]) == (pytest.approx(0.64), 0.9)
    assert group["weight_decay"] == 1e-4
    assert len(group["params"]) == len(list(task.model.parameters()))
    assert task.label_smoothing == 0.0


def test_what_a_cpu_cannot_heed_is_said() -> None:
    recipe = load_recipe("r3d_18")
    assert unfit_for_cpu(recipe, "cuda", 8) == {}
    alone, two = unfit_for_cpu(recipe, "cpu", 1), unfit_for_cpu(recipe, "cpu", 2)
    assert alone["precision"] == "trainer.precision 16-mixed is for GPUs: float32 here"
    assert "nothing to join" in alone["sync_batchnorm"]
    assert "each process" in two["sync_batchnorm"]
    assert unfit_for_cpu(load_recipe("resnet18"), "cpu", 2) == {}
