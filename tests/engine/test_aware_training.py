"""Quantization-aware training as a run: freezing, resuming, figures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_zoo
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe
from lightning_zoo.runs import Run
from lightning_zoo.tasks import QuantizationTask

pytest.importorskip("torchao", reason="quantizing needs torchao (the extra int8)")
SIDE = 32
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}


def recipe(root: Path, **model: Any) -> Recipe:
    args = {"model": "resnet18", "image_size": SIDE, **model}
    config = {
        "model": {"class_path": "QuantizationTask", "init_args": args},
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {
                "root": str(root), "train_crop": SIDE, "eval_resize": SIDE, "eval_crop": SIDE,
                "workers": 0,
            },
        },
        "batch": {"size": 8, "per_device": 8},
        "trainer": {"max_epochs": 3},
        "run": {"loggers": ["csv"], "pictures": 0, "checkpoint_steps": 4},
    }  # fmt: skip
    return Recipe("small_int8", None, config).check()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    ImageFolderDataModule.write_fake(folder, classes=3, images=24, size=40)
    return folder


class Trained(Run):
    """A finished run, with the task's state at the end of each epoch."""

    states: list[dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("runs")
    states = []

    def keep(task: QuantizationTask) -> None:
        original(task)
        states.append({name: value.clone() for name, value in task.state_dict().items()})

    original = QuantizationTask.on_train_epoch_end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuantizationTask, "on_train_epoch_end", keep)
        run = Trained(lightning_zoo.fit(aware(root), out=out).run)
    run.states = states
    return run


def aware(root: Path) -> Recipe:
    return recipe(root, method="qat", optimizer=SGD, observer_epochs=2, norm_epochs=1)


def rows(run: Run) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["val/acc@1"]]


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_figures_of_both(trained: Trained) -> None:
    found = rows(trained)
    assert len(found) == 3
    for row in found:
        assert 0 <= float(row["val/acc@1"]) <= 100
        # the simulation rounds as the integers do; a picture on the edge may fall either way
        assert abs(float(row["val/acc@1"]) - float(row["val/fake_acc@1"])) <= 100 * 3 / 24
    best = lightning_zoo.validate(trained.path).metrics
    assert best["val/acc@1"] == pytest.approx(max(float(row["val/acc@1"]) for row in found))


def test_interrupted_and_resumed(trained: Trained, root: Path, tmp_path: Path) -> None:
    """Broken off in the last epoch: norms and ranges are frozen again."""

    class StoppedError(Exception):
        pass

    seen = 0

    def step(task: QuantizationTask, batch: Any, batch_idx: int) -> Any:
        nonlocal seen
        seen += 1
        if seen > 8:  # of 9; saved after this one, in the middle of the last epoch
            raise StoppedError
        return original(task, batch, batch_idx)

    original = QuantizationTask.training_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuantizationTask, "training_step", step)
        with pytest.raises(StoppedError):
            lightning_zoo.fit(aware(root), out=tmp_path)
    again = Run(lightning_zoo.fit(aware(root), out=tmp_path, resume="auto").run)
    whole, resumed = state_of(trained.last), state_of(again.last)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert (trained.path / "metrics.csv").read_text() == (again.path / "metrics.csv").read_text()


def test_what_is_frozen_stays(trained: Trained) -> None:
    """Norms from the second epoch on, ranges from the third; weights never."""
    first, second, third = trained.states
    norms = [n for n in first if n.endswith("running_mean")]
    ranges = [n for n in first if n.endswith(("min_val", "max_val"))]
    assert norms
    assert ranges
    weights = [n for n in first if n.endswith("fc.weight")]
    for name in norms:
        assert torch.equal(first[name], third[name])
    assert any(not torch.equal(first[n], second[n]) for n in ranges)
    activations = [n for n in ranges if second[n].numel() == 1]
    for name in activations:
        assert torch.equal(second[name], third[name])
    for name in weights:
        assert not torch.equal(second[name], third[name])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"method": "qat"}, "model.method qat trains and needs model.optimizer"),
        ({"method": "ptq", "optimizer": SGD}, "model.method ptq trains nothing"),
        ({"method": "qat", "optimizer": SGD, "observer_epochs": 0}, "model.observer_epochs is 0"),
        ({"method": "qat", "optimizer": SGD, "norm_epochs": 0}, "model.norm_epochs is 0"),
        ({"model": "fcn_resnet50"}, "fcn_resnet50 is a segmentation model"),
        ({"model": "resnet18", "weights": "IMAGENET1K_FBGEMM_V1"}, "INT8"),
    ],
)  # fmt: skip
def test_mistakes(root: Path, tmp_path: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        lightning_zoo.fit(recipe(root, **args), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_calibration_leaves_weights_alone(root: Path, tmp_path: Path) -> None:
    run = Run(lightning_zoo.fit(recipe(root), out=tmp_path).run)
    task = QuantizationTask("resnet18", num_classes=3, image_size=SIDE)
    state = state_of(run.last)
    task.load_state_dict(state)
    with pytest.raises(ZooError, match="has not seen images yet"):
        QuantizationTask("resnet18", num_classes=3, image_size=SIDE).program()
    assert float(state["still"]) == 0.0
    assert not any(p.requires_grad for p in task.model.parameters())
