"""What each recipe really does to the learning rate, the decay and the average, epoch by epoch.

``TABLE`` states the numbers of the reference a second time, typed from the published tables and not
from the recipes; torch's own schedulers are stepped the way the reference stepped them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)

from lightning_zoo import models
from lightning_zoo.batch import plan_batches
from lightning_zoo.engine.session import build_task
from lightning_zoo.optim import Length
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.tasks import base

FILES = sorted((Path(__file__).parents[2] / "recipes" / "classification").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
TRAIN_IMAGES = 1_281_167


@dataclass(frozen=True)
class Row:
    """One line of the reference: optimizer, schedule, batch, data."""

    lr: float
    weight_decay: float
    epochs: int
    images: int  # of one optimizer step
    decay: tuple[Any, ...]  # see `stepped`
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    group: dict[str, Any] = field(default_factory=dict)  # what else the parameter groups hold
    norm_weight_decay: float | None = None
    task: dict[str, Any] = field(default_factory=dict)
    crop: int = 224
    resize: int = 256
    eval_crop: int = 224
    data: dict[str, Any] = field(default_factory=dict)
    average: tuple[float, int, int] | None = None  # decay, every so many steps, epochs of warm-up


def sgd(lr: float, weight_decay: float, epochs: int, images: int, *decay: Any, **more: Any) -> Row:
    group = {"momentum": 0.9, "dampening": 0, "nesterov": more.pop("nesterov", False)}
    return Row(lr, weight_decay, epochs, images, decay, group=group, **more)


def standard(lr: float = 0.1, **more: Any) -> Row:
    return sgd(lr, 1e-4, 90, 8 * 32, "step", 30, 0.1, **more)


def rmsprop() -> Row:
    return Row(
        lr=0.064,
        weight_decay=1e-5,
        epochs=600,
        images=8 * 128,
        decay=("step", 2, 0.973),
        optimizer=torch.optim.RMSprop,
        group={"alpha": 0.9, "eps": 0.0316, "momentum": 0.9, "centered": False},
        data={
            "auto_augment": "imagenet",
            "auto_augment_interpolation": "nearest",
            "random_erasing": 0.2,
        },
    )


def later(resize: int = 232) -> Row:
    return sgd(
        0.5, 2e-5, 600, 8 * 128, "cosine", 5, 0.01,
        norm_weight_decay=0.0,
        task={"label_smoothing": 0.1, "mixup_alpha": 0.2, "cutmix_alpha": 1.0},
        crop=176,
        resize=resize,
        data={
            "auto_augment": "trivial",
            "auto_augment_interpolation": "bilinear",
            "random_erasing": 0.1,
            "repeated_augmentation": 4,
        },
        average=(0.99998, 32, 5),
    )  # fmt: skip


TABLE = {
    "alexnet": standard(lr=0.01),
    "vgg11": standard(lr=0.01),
    "vgg13": standard(lr=0.01),
    "vgg16": standard(lr=0.01),
    "vgg19": standard(lr=0.01),
    "vgg11_bn": standard(),
    "vgg13_bn": standard(),
    "vgg16_bn": standard(),
    "vgg19_bn": standard(),
    "resnet18": standard(),
    "resnet34": standard(),
    "resnet50": standard(),
    "resnet101": standard(),
    "resnet152": standard(),
    "squeezenet1_0": sgd(0.01, 2e-4, 100, 128, "step", 30, 0.1),
    "squeezenet1_1": sgd(0.01, 2e-4, 100, 128, "step", 30, 0.1),
    "densenet121": standard(),
    "densenet169": standard(),
    "densenet201": standard(),
    "densenet161": standard(),
    "inception_v3": standard(
        crop=299,
        resize=342,
        eval_crop=299,
        task={"aux_weight": 0.4, "model_args": {"aux_logits": True}},
    ),
    "googlenet": standard(task={"aux_weight": 0.3, "model_args": {"aux_logits": True}}),
    "shufflenet_v2_x0_5": later(resize=256),
    "shufflenet_v2_x1_0": later(resize=256),
    "shufflenet_v2_x1_5": later(),
    "shufflenet_v2_x2_0": later(),
    "mobilenet_v2": sgd(0.045, 4e-5, 300, 8 * 32, "each", 0.98),
    "mobilenet_v3_large": rmsprop(),
    "mobilenet_v3_small": rmsprop(),
    "resnext50_32x4d": sgd(0.4, 1e-4, 100, 64 * 16, "step", 30, 0.1),
    "resnext101_32x8d": sgd(0.4, 1e-4, 100, 64 * 16, "step", 30, 0.1),
    "wide_resnet50_2": sgd(0.1, 1e-4, 256, 8 * 32, "cosine", 0, 1.0),
    "wide_resnet101_2": sgd(0.1, 1e-4, 256, 8 * 32, "cosine", 0, 1.0),
    "mnasnet0_5": sgd(2.0, 0.0, 350, 1000, "cosine", 5, 0.1, nesterov=True),
    "mnasnet0_75": later(),
    "mnasnet1_0": sgd(0.7, 1e-5, 200, 740, "cosine", 5, 0.1, nesterov=True),
    "mnasnet1_3": later(),
}


class StandIn(nn.Module):
    """A network of a convolution with bias, a batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.bn = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 3)


def build(
    name: str, monkeypatch: pytest.MonkeyPatch, steps: int, network: nn.Module | None = None
) -> tuple[Recipe, Any]:
    """Build the recipe's task as the engine does, on a stand-in network where none is given."""
    chosen = StandIn() if network is None else network
    monkeypatch.setattr(base, "get_model", lambda *args, **kwargs: chosen)
    recipe = load_recipe(name).check()
    task, _ = build_task(recipe, num_classes=1000)
    batch = recipe.config["batch"]
    plan = plan_batches(batch["size"], batch["per_device"], 1)
    length = Length(steps, recipe.get("trainer.max_epochs"))
    task.configure(length, batch_size=plan.size, lr_scale=plan.lr_scale, seed=0)
    return recipe, task


def stepped(row: Row) -> Iterator[float]:
    """Yield the reference's learning rate of each epoch: torch's schedulers, stepped after it."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=row.lr)
    kind, *numbers = row.decay
    scheduler: LRScheduler
    if kind == "step":
        scheduler = StepLR(optimizer, step_size=numbers[0], gamma=numbers[1])
    elif kind == "each":
        scheduler = ExponentialLR(optimizer, gamma=numbers[0])
    else:
        warmup, factor = numbers
        scheduler = CosineAnnealingLR(optimizer, T_max=row.epochs - warmup, eta_min=0.0)
        if warmup:
            rise = LinearLR(optimizer, start_factor=factor, total_iters=warmup)
            scheduler = SequentialLR(optimizer, [rise, scheduler], milestones=[warmup])
    for _ in range(row.epochs):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def test_every_recipe_has_a_row() -> None:
    print(f"{len(NAMES)} classification recipes")
    assert len(NAMES) >= 37
    assert sorted(TABLE) == NAMES, "state the reference's numbers of a new recipe in TABLE"


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_at_every_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = TABLE[name]
    recipe, task = build(name, monkeypatch, steps=2)
    assert recipe.config["trainer"] == {"max_epochs": row.epochs}  # no clipping, float32
    assert recipe.config["batch"]["size"] == row.images
    made = task.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    expected = list(stepped(row))
    assert len(expected) == row.epochs
    for epoch, lr in enumerate(expected):
        for _ in range(2):
            found = {group["lr"] for group in optimizer.param_groups}
            assert len(found) == 1
            assert found.pop() == pytest.approx(lr, rel=1e-9, abs=1e-12), f"epoch {epoch}"
            optimizer.step()
            scheduler.step()

    # the run's real length: the first and the last step of every epoch
    _, task = build(name, monkeypatch, steps=math.ceil(TRAIN_IMAGES / row.images))
    made = task.configure_optimizers()
    (factor, *_) = made["lr_scheduler"]["scheduler"].lr_lambdas
    steps = task.length.steps_per_epoch
    for epoch, lr in enumerate(expected):
        for step in (epoch * steps, (epoch + 1) * steps - 1):
            assert row.lr * factor(step) == pytest.approx(lr, rel=1e-9, abs=1e-12)


def test_schedules_at_known_points() -> None:
    """The restatement itself, at points worked out by hand."""
    rates = {name: list(stepped(row)) for name, row in TABLE.items()}
    std = rates["resnet50"]
    assert [std[e] for e in (0, 29, 30, 59, 60, 89)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert rates["mobilenet_v2"][299] == pytest.approx(0.045 * 0.98**299)
    assert rates["mobilenet_v3_large"][599] == pytest.approx(0.064 * 0.973**299)
    warm = rates["mnasnet1_3"]
    assert warm[:6] == pytest.approx([0.005, 0.104, 0.203, 0.302, 0.401, 0.5])
    assert warm[599] == pytest.approx(0.25 * (1 + math.cos(math.pi * 594 / 595)))
    assert rates["mnasnet1_0"][:6] == pytest.approx([0.07, 0.196, 0.322, 0.448, 0.574, 0.7])
    assert rates["wide_resnet50_2"][128] == pytest.approx(0.05)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_groups(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = TABLE[name]
    _, task = build(name, monkeypatch, steps=2)
    optimizer = task.configure_optimizers()["optimizer"]
    assert type(optimizer) is row.optimizer
    decays: dict[int, float] = {}
    for group in optimizer.param_groups:
        assert {key: group[key] for key in row.group} == row.group
        assert group["maximize"] is False
        for parameter in group["params"]:
            assert id(parameter) not in decays
            decays[id(parameter)] = group["weight_decay"]
    norm = row.weight_decay if row.norm_weight_decay is None else row.norm_weight_decay
    network = task.model
    assert {n: decays[id(p)] for n, p in network.named_parameters()} == {
        "conv.weight": row.weight_decay,
        "conv.bias": row.weight_decay,
        "bn.weight": norm,
        "bn.bias": norm,
        "fc.weight": row.weight_decay,
        "fc.bias": row.weight_decay,
    }


@pytest.mark.parametrize("name", [n for n in NAMES if TABLE[n].norm_weight_decay is not None])
def test_norms_of_the_real_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        network = models.get_model(name)
    _, task = build(name, monkeypatch, steps=2, network=network)
    optimizer = task.configure_optimizers()["optimizer"]
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    norms = [n.removesuffix("running_mean") for n, _ in network.named_buffers() if "mean" in n]
    expected = {f"{norm}{kind}" for norm in norms for kind in ("weight", "bias")}
    assert expected
    assert {n for n, p in network.named_parameters() if id(p) in free} == expected


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_data(name: str) -> None:
    row, recipe = TABLE[name], load_recipe(name)
    args = dict(recipe.config["model"]["init_args"])
    given = {k: args.pop(k) for k in ("model", "num_classes")}
    assert given == {"model": name, "num_classes": 1000}
    del args["optimizer"], args["lr_schedule"]
    expected = dict(row.task)
    if row.norm_weight_decay is not None:
        expected["norm_weight_decay"] = row.norm_weight_decay
    if row.average is not None:
        names = ("ema_decay", "ema_every_steps", "ema_warmup_epochs")
        expected |= dict(zip(names, row.average, strict=True))
    assert args == expected  # nothing else: no smoothing, no mixing, no average
    assert recipe.config["data"]["class_path"] == "ImageNetDataModule"
    assert recipe.config["data"]["init_args"] == {
        "root": "data/imagenet",
        "train_crop": row.crop,
        "eval_resize": row.resize,
        "eval_crop": row.eval_crop,
        "workers": 16,
        **row.data,
    }


AVERAGED = [n for n in NAMES if TABLE[n].average is not None]


@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The average after every step of seven epochs, against the reference's own loop."""
    row = TABLE[name]
    assert row.average is not None
    decay, every, warmup = row.average
    steps = 70
    _, task = build(name, monkeypatch, steps=steps)
    monkeypatch.setattr(LightningModule, "optimizer_step", lambda *args, **kwargs: None)
    task.trainer = SimpleNamespace(global_step=0)
    # the reference: decay made independent of batch, interval and epochs
    keep = 1 - min(1.0, (1 - decay) * row.images * every / row.epochs)
    assert keep == pytest.approx(1 - 0.00109226667, abs=1e-9)
    average, updates = 0.0, 0
    seen: list[int] = []
    generator = torch.Generator().manual_seed(0)
    for epoch in range(7):
        for i in range(steps):
            weight = float(torch.randn((), generator=generator))
            with torch.no_grad():
                task.model.bn.weight.fill_(weight)
                task.model.bn.running_mean.fill_(weight)
            task.optimizer_step(epoch, i, None)
            task.trainer.global_step += 1  # Lightning counts the step after the hook
            if i % every == 0:
                seen.append(i)
                average = weight if updates == 0 else keep * average + (1 - keep) * weight
                updates = 0 if epoch < warmup else updates + 1
            bn = task.ema.module.bn
            held: Tensor
            for held in (bn.weight, bn.running_mean):
                assert held.tolist() == pytest.approx([average] * 2, abs=1e-5)
            assert int(task.ema.n_averaged) == updates
    assert seen == [0, 32, 64] * 7


@pytest.mark.parametrize("name", [n for n in NAMES if n not in AVERAGED])
def test_no_average(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, task = build(name, monkeypatch, steps=2)
    assert task.ema is None
    assert list(task.networks()) == [""]
