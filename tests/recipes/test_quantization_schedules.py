"""What the INT8 recipes do, against the reference's numbers, typed a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from lightning_zoo import int8
from lightning_zoo.engine.session import build_task
from lightning_zoo.optim import Length
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.tasks import base

FILES = sorted((Path(__file__).parents[2] / "recipes" / "quantization").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
# learning rate and weight decay of those that are trained
QAT = {"mobilenet_v2_int8": (1e-4, 1e-4), "mobilenet_v3_large_int8": (1e-3, 1e-5)}
PTQ = [name for name in NAMES if name not in QAT]
STEPS = 5


@pytest.fixture
def built(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, Any]:
    """Build a recipe's task on a stand-in network."""
    monkeypatch.setattr(base, "get_model", lambda *args, **kwargs: nn.Linear(3, 1000))
    monkeypatch.setattr(int8, "prepare", lambda network, example, *, qat: network)
    recipe = load_recipe(request.param).check()
    task, _ = build_task(recipe, num_classes=1000)
    length = Length(STEPS, recipe.get("trainer.max_epochs"))
    task.configure(length, batch_size=recipe.get("batch.size"), lr_scale=1.0, seed=0)
    return recipe, task


def test_the_methods_are_the_references() -> None:
    assert len(NAMES) >= 11
    methods = {name: load_recipe(name).get("model.method") for name in NAMES}
    assert {name for name, method in methods.items() if method == "qat"} == set(QAT)
    assert set(methods.values()) == {"ptq", "qat"}


@pytest.mark.parametrize("built", sorted(QAT), indirect=True)
def test_aware_training(built: tuple[Recipe, Any]) -> None:
    recipe, task = built
    lr, decay = QAT[recipe.name]
    assert recipe.get("trainer.max_epochs") == 90
    assert recipe.get("batch.size") == 8 * 32
    assert (task.observer_epochs, task.norm_epochs) == (5, 4)
    configured = task.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, decay)
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    steps = StepLR(reference, step_size=30, gamma=0.1)
    for _ in range(90):
        assert group["lr"] == pytest.approx(reference.param_groups[0]["lr"], rel=1e-9)
        for _ in range(STEPS):
            optimizer.step()
            schedule.step()
        reference.step()
        steps.step()
    for key in ("auto_augment", "random_erasing", "train_views", "albumentations"):
        assert recipe.get(f"data.{key}") is None, "crop and flip alone"


@pytest.mark.parametrize("built", PTQ, indirect=True)
def test_after_training(built: tuple[Recipe, Any]) -> None:
    recipe, task = built
    trainer = recipe.config["trainer"]
    assert trainer["max_epochs"] == 1
    assert trainer["limit_train_batches"] * recipe.get("batch.per_device") == 1024
    assert trainer["accelerator"] == "cpu"
    assert recipe.get("batch.size") == recipe.get("batch.per_device") == 32
    assert recipe.get("data.train_views") == "eval"
    assert not any(p.requires_grad for p in task.model.parameters())
    assert [group["lr"] for group in task.configure_optimizers().param_groups] == [0.0]
