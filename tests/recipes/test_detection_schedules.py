"""What each detection recipe really does to the learning rate, against torch's own schedulers.

``TABLE`` states the numbers of the reference a second time, typed from the published tables and not
from the recipes; torch's schedulers are stepped the way the reference script stepped them: the
warm-up after every iteration of the first epoch, the decay after every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from lightning_zoo.engine.session import build_task, plan_for
from lightning_zoo.optim import Length
from lightning_zoo.recipe import load_recipe

FILES = sorted((Path(__file__).parents[2] / "recipes" / "detection").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
TRAIN_IMAGES = 117_266  # that hold an object


@dataclass(frozen=True)
class Row:
    """One line of the reference."""

    images: int  # of one optimizer step
    epochs: int
    lr: float
    weight_decay: float
    milestones: tuple[int, ...] | None  # None: half a cosine over all epochs
    augmentation: str = "hflip"
    backbone: tuple[bool, int | None] = (True, 3)  # pretrained, stages that train


def standard(lr: float = 0.02) -> Row:
    return Row(8 * 2, 26, lr, 1e-4, (16, 22))


TABLE = {
    "fasterrcnn_r50_fpn": standard(),
    "fasterrcnn_mobilenet_v3_large_fpn": standard(),
    "fasterrcnn_mobilenet_v3_large_320_fpn": standard(),
    "retinanet_r50_fpn": standard(lr=0.01),
    "ssd300_vgg16": Row(8 * 4, 120, 0.002, 5e-4, (80, 110), "ssd", (True, 4)),
    "ssdlite320_mobilenet_v3_large": Row(
        8 * 24, 660, 0.15, 4e-5, None, "ssdlite", (False, None)
    ),
    "maskrcnn_r50_fpn": standard(),
    "keypointrcnn_r50_fpn": Row(8 * 2, 46, 0.02, 1e-4, (36, 43)),
}  # fmt: skip


def reference_rates(row: Row, steps: int) -> dict[int, float]:
    """Return the rate at all steps of the first epoch and at the first of every later one."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=row.lr)
    decay: LRScheduler
    if row.milestones is None:
        decay = CosineAnnealingLR(optimizer, T_max=row.epochs)
    else:
        decay = MultiStepLR(optimizer, milestones=list(row.milestones), gamma=0.1)
    rates: dict[int, float] = {}
    warmup = LinearLR(optimizer, start_factor=1 / 1000, total_iters=min(1000, steps - 1))
    for step in range(steps):
        rates[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        warmup.step()
    for epoch in range(1, row.epochs):
        decay.step()
        rates[epoch * steps] = optimizer.param_groups[0]["lr"]
    return rates


def test_the_table_is_whole() -> None:
    print(f"{len(NAMES)} recipes")
    assert sorted(TABLE) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [TRAIN_IMAGES, 16_000, 300])
def test_learning_rate(name: str, images: int) -> None:
    row, recipe = TABLE[name], load_recipe(name)
    node = recipe.config["model"]["init_args"]["lr_schedule"]
    from lightning_zoo import optim

    plan = plan_for(recipe, 8)
    steps = plan.steps_per_epoch(images)
    length = Length(steps, recipe.config["trainer"]["max_epochs"])
    schedule = getattr(optim, node["class_path"])(length, **node["init_args"])
    lr = recipe.get("model.optimizer.lr")
    for step, rate in reference_rates(row, steps).items():
        assert lr * schedule.factor(step) == pytest.approx(rate, rel=1e-9, abs=1e-12), step


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_batch_and_data(name: str) -> None:
    row, recipe = TABLE[name], load_recipe(name)
    assert recipe.config["batch"]["size"] == row.images
    assert recipe.config["trainer"] == {"max_epochs": row.epochs}
    data: dict[str, Any] = recipe.config["data"]["init_args"]
    assert data["augmentation"] == row.augmentation
    assert data["aspect_ratio_groups"] == 3
    model = recipe.config["model"]["init_args"]
    assert (model["pretrained_backbone"], model.get("trainable_backbone_layers")) == row.backbone


@pytest.mark.parametrize("name", NAMES)
def test_what_trains(name: str) -> None:
    row, recipe = TABLE[name], load_recipe(name)
    task, _ = build_task(recipe, num_classes=recipe.get("model.num_classes"), structure_only=True)
    task.configure(Length(10, 1), batch_size=row.images, lr_scale=1.0, seed=0)
    found = task.configure_optimizers()["optimizer"]
    assert type(found) is torch.optim.SGD
    (group,) = found.param_groups
    assert group["initial_lr"] == row.lr
    assert (group["momentum"], group["weight_decay"]) == (0.9, row.weight_decay)
    assert not group["nesterov"]
    trained = {id(p) for p in group["params"]}
    frozen = [n for n, p in task.model.named_parameters() if id(p) not in trained]
    assert all(not p.requires_grad for n, p in task.model.named_parameters() if n in frozen)
    assert bool(frozen) == row.backbone[0]
    assert all(n.startswith("backbone.") for n in frozen)
