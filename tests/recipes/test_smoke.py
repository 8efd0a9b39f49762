"""Every recipe runs, from its file to its pictures, in two steps on generated data."""

from __future__ import annotations

import csv
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

import lightning_zoo
from lightning_zoo.models.registry import get_entry
from lightning_zoo.recipe import load_recipe
from lightning_zoo.runs import Run

FILES = sorted((Path(__file__).parents[2] / "recipes").glob("*/*.yaml"))
NAMES = [path.stem for path in FILES]
HEAVY = 80_000_000  # parameters: a gigabyte a checkpoint


def family(name: str) -> str:
    return get_entry(load_recipe(name).model).builder.split(":")[0]


def num_params(name: str) -> int:
    return get_entry(load_recipe(name).model).num_params


LIGHTEST = {family(n): n for n in sorted(NAMES, key=num_params, reverse=True)}


def marked(name: str) -> object:
    """Mark the heaviest networks slow, but for one of each family."""
    slow = num_params(name) > HEAVY and LIGHTEST[family(name)] != name
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

    assert {"train/loss", "train/loss_epoch", "val/loss", "val/acc@1"} <= set(result.metrics)
    assert all(math.isfinite(value) for value in result.metrics.values()), result.metrics
    averaged = load_recipe(name).get("model.ema_decay") is not None
    assert ("val/ema_acc@1" in result.metrics) == averaged
    state = run.state()
    assert state.status == "finished"
    assert state.results == result.metrics

    for path in (run.best, run.last):
        kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        assert kept["global_step"] == 2
        assert len(kept["lightning_zoo"]["class_names"]) == 4
    assert result.best == run.best
    with (run.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} <= {"0", "1", "2"}
    assert [row["val/acc@1"] for row in rows if row["val/acc@1"]] != []
    assert [path.name for path in run.pictures.iterdir()] == ["epoch_0000.png"]

    again = load_recipe(run.recipe_file)
    assert again.problems() == []
    assert again.model == load_recipe(name).model
    assert again.get("model.num_classes") == 4
    shutil.rmtree(run.checkpoints)  # pytest would keep those of three sessions
