"""Every recipe runs, from its file to its pictures, in two steps on generated data."""

from __future__ import annotations

import csv
import inspect
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

import lightning_zoo
from lightning_zoo.models.registry import get_entry, real_classes
from lightning_zoo.recipe import load_recipe
from lightning_zoo.runs import Run

FILES = sorted((Path(__file__).parents[2] / "recipes").glob("*/*.yaml"))
NAMES = [path.stem for path in FILES]
HEAVY = 80_000_000  # parameters: a gigabyte a checkpoint
# Figures that a run of each task must have, beside the losses
FIGURES = {
    "ClassificationTask": {"val/acc@1"},
    "DetectionTask": {"val/box_map", "val/box_map50", "val/box_mar100"},
    "QuantizationTask": {"val/acc@1"},
    "KeypointTask": {"val/box_map", "val/kp_map", "val/kp_map50"},
    "SegmentationTask": {"val/miou", "val/pixel_acc"},
    "VideoTask": {"val/acc@1", "val/clip_acc@1"},
}
NOT_FOUND = ("_small", "_medium", "_large")


def signature(name: str) -> inspect.Signature:
    return inspect.signature(get_entry(load_recipe(name).model).load_builder())


def family(name: str) -> str:
    """Return the name of the network's class, and whether it becomes INT8."""
    form = " INT8" if load_recipe(name).is_int8 else ""
    return signature(name).return_annotation.__name__ + form


def num_params(name: str) -> int:
    return get_entry(load_recipe(name).model).num_params


LIGHTEST = {family(n): n for n in sorted(NAMES, key=num_params, reverse=True)}


def marked(name: str) -> object:
    """Mark the heaviest networks slow, but for one of each family."""
    detects = get_entry(load_recipe(name).model).task == "detection"
    own_size = detects and "min_size" not in signature(name).parameters  # SSD: no small images
    traced = load_recipe(name).is_int8  # which takes seconds
    slow = (num_params(name) > HEAVY or own_size or traced) and LIGHTEST[family(name)] != name
    return pytest.param(name, marks=pytest.mark.slow) if slow else name


def test_every_family_runs_by_default() -> None:
    kept = [n for n in NAMES if isinstance(marked(n), str)]
    print(f"{len(NAMES)} recipes, {len(kept)} of them in the default run")
    assert len(NAMES) >= 39
    assert {family(n) for n in kept} == {family(n) for n in NAMES}


@pytest.mark.parametrize("name", [marked(name) for name in NAMES])
def test_smoke(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # no machine crashes here, and flushing gigabytes to the disk takes most of the time
    monkeypatch.setattr(os, "fsync", lambda file: None)
    result = lightning_zoo.fit(name, smoke=True, out=tmp_path)
    run = Run(result.run)
    assert result.run.parent == tmp_path / name

    recipe = load_recipe(name)
    figures = FIGURES[recipe.config["model"]["class_path"]]
    assert {"train/loss", "train/loss_epoch", "val/loss", *figures} <= set(result.metrics)
    for figure, value in result.metrics.items():
        # of some sizes there is no object among so few
        assert math.isfinite(value) or figure.endswith(NOT_FOUND), result.metrics
    averaged = recipe.get("model.ema_decay") is not None
    assert ("val/ema_acc@1" in result.metrics) == averaged
    state = run.state()
    assert state.status == "finished"
    assert str(state.results) == str(result.metrics)  # nan is not equal to itself

    for path in (run.best, run.last):
        kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        assert kept["global_step"] == 2
        names = kept["lightning_zoo"]["class_names"]
        voc = recipe.config["data"]["class_path"] == "CocoVocDataModule"  # it knows its classes
        assert len(real_classes(names)) == (1 if "val/kp_map" in figures else 20 if voc else 4)
    assert result.best == run.best
    with (run.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} <= {"0", "1", "2"}
    for figure in figures:
        assert [row[figure] for row in rows if row[figure]] != []
    assert [path.name for path in run.pictures.iterdir()] == ["epoch_0000.png"]

    again = load_recipe(run.recipe_file)
    assert again.problems() == []
    assert again.model == load_recipe(name).model
    assert again.get("model.num_classes") == len(names)
    shutil.rmtree(run.checkpoints)  # pytest would keep those of three sessions
