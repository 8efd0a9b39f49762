"""Runs that are killed at any step and at any moment of a save end as the unbroken run does."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_cases import (
    TASKS,
    Sweep,
    differences,
    finished_runs,
    load,
    unlike,
    write_data,
    write_recipe,
)
from kill_zygote import Kill, Zygote

# Settings of a run that move its validations and saves against each other.
SETTINGS: dict[str, dict[str, Any]] = {
    "validates twice an epoch": {"trainer": {"val_check_interval": 0.5}},
    "validates every second epoch": {"trainer": {"check_val_every_n_epoch": 2, "max_epochs": 3}},
    "saves at an epoch's length": {"run": {"checkpoint_steps": 3}},
    "saves at every step": {"run": {"checkpoint_steps": 1}},
    "does not save in an epoch": {"run": {"checkpoint_steps": None}},
    "logs rarely": {"trainer": {"log_every_n_steps": 2}, "run": {"checkpoint_steps": 3}},
    "accumulates more": {"batch": {"size": 8, "per_device": 2}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {}
    for task in TASKS:
        roots[task] = tmp_path_factory.mktemp(task)
        write_data(task, roots[task])
    return roots


def sweep(
    zygote: Zygote, folder: Path, root: Path, task: str, *, workers: int, ranks: int, **changes: Any
) -> Sweep:
    recipe = write_recipe(folder, task, root, workers=workers, **changes)
    seed = TASKS.index(task) * 10 + workers + ranks  # every sweep has moments of its own
    return Sweep(zygote, recipe, folder, ranks=ranks, seed=seed)


def report(one: Sweep) -> str:
    return "\n".join(one.tally.problems)


@pytest.mark.parametrize(
    ("task", "workers", "ranks"),
    [("classification", 0, 1), ("detection", 2, 1), ("segmentation", 0, 2), ("video", 0, 1)],
)
def test_killed(
    task: str, workers: int, ranks: int, zygote: Zygote, data: dict[str, Path], tmp_path: Path
) -> None:
    one = sweep(zygote, tmp_path, data[task], task, workers=workers, ranks=ranks)
    tally = one.run(steps=1, moments=3)
    assert not tally.problems, report(one)
    assert tally.kills == 4
    assert tally.chains >= 1


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", TASKS)
def test_killed_often(
    task: str, workers: int, ranks: int, zygote: Zygote, data: dict[str, Path], tmp_path: Path
) -> None:
    one = sweep(zygote, tmp_path, data[task], task, workers=workers, ranks=ranks)
    tally = one.run(steps=30, moments=100)
    print(tally.kills, tally.chains, dict(tally.deaths), tally.survivors)
    assert not tally.problems, report(one)
    assert tally.kills == 130


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("task", TASKS)
def test_killed_under_other_settings(
    task: str, setting: str, zygote: Zygote, data: dict[str, Path], tmp_path: Path
) -> None:
    one = sweep(zygote, tmp_path, data[task], task, workers=0, ranks=1, **SETTINGS[setting])
    tally = one.run(steps=4, moments=8)
    assert not tally.problems, report(one)


def test_killed_before_the_first_save(
    zygote: Zygote, data: dict[str, Path], tmp_path: Path
) -> None:
    """There is nothing to go on from: the next run starts anew and is not disturbed."""
    recipe = write_recipe(tmp_path, "segmentation", data["segmentation"], workers=0)
    args = ["--recipe", str(recipe), "--resume", "auto"]
    death = zygote.fit(tmp_path / "out", args, [Kill("on_train_batch_start", nth=2)])
    assert death.statuses == [-signal.SIGKILL]
    death = zygote.fit(tmp_path / "out", args, [None])
    assert death.statuses == [0]
    assert "nothing to resume" in death.log
    assert len(list((tmp_path / "out").glob("killed/*"))) == 2


def test_killed_right_after_the_best(zygote: Zygote, data: dict[str, Path], tmp_path: Path) -> None:
    """The last checkpoint and the best are one file then; going on leaves no third name of it."""
    recipe = write_recipe(tmp_path, "segmentation", data["segmentation"], workers=0)
    args = ["--recipe", str(recipe), "--resume", "auto"]
    out = tmp_path / "out"
    # the first batch of the second epoch: the first epoch's checkpoint is the best so far
    death = zygote.fit(out, args, [Kill("on_train_batch_start", nth=7)])
    assert death.statuses == [-signal.SIGKILL]
    (best,) = out.glob("killed/*/checkpoints/best.ckpt")
    assert best.samefile(best.with_name("last.ckpt"))
    assert zygote.fit(out, args, [None]).statuses == [0]
    assert {path.name for path in best.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_killed_within_a_step(zygote: Zygote, data: dict[str, Path], tmp_path: Path) -> None:
    """Validation, and its best checkpoint, come after the first of a step's two batches."""
    recipe = write_recipe(
        tmp_path,
        "classification",
        data["classification"],
        workers=0,
        trainer={"val_check_interval": 0.5, "max_epochs": 1},
    )
    args = ["--recipe", str(recipe), "--resume", "auto"]
    runs = {}
    for name, kills in {
        "whole": [None],
        "killed": [Kill("on_train_batch_start", nth=4), None],
    }.items():
        for kill in kills:
            death = zygote.fit(tmp_path / name, args, [kill])
        assert death.statuses == [0], death.log
        (runs[name],) = finished_runs(tmp_path / name)
    assert not unlike(runs["whole"], runs["killed"])


def test_harness_sees_differences(zygote: Zygote, data: dict[str, Path], tmp_path: Path) -> None:
    """What compares two runs finds one changed bit, file, figure and row."""
    tensors = {"a": torch.zeros(3), "b": [torch.tensor(float("nan")), 1.0]}
    assert not list(
        differences(tensors, {"a": torch.zeros(3), "b": [torch.tensor(torch.nan), 1.0]})
    )
    changed = {"a": torch.tensor([0.0, -0.0, 0.0]), "b": [torch.tensor(torch.nan), 1.5]}
    assert list(differences(tensors, changed, "x")) == ["x/a: not equal", "x/b/1: 1.0 != 1.5"]
    assert list(differences({"a": 1}, {"b": 1})) == [
        "/a is in one of the two only", "/b is in one of the two only"
    ]  # fmt: skip

    one = sweep(zygote, tmp_path, data["segmentation"], "segmentation", workers=0, ranks=1)
    out = tmp_path / "other"
    assert one.fit(out, [None]).statuses == [0]
    (other,) = finished_runs(out)
    assert not unlike(one.whole, other)
    last = other / "checkpoints" / "last.ckpt"
    content = load(last)
    content["optimizer_states"][0]["state"][0]["momentum_buffer"].view(-1)[0] += 1e-6
    last.unlink()  # best.ckpt may be the same file
    torch.save(content, last)
    with (other / "metrics.csv").open("a") as file:
        file.write("7\n")
    (other / "checkpoints" / ".last.ckpt.123").touch()
    record = json.loads((other / "run.json").read_text())
    record["results"]["val/loss"] += 1
    (other / "run.json").write_text(json.dumps(record))
    found = [text.split(":")[0] for text in unlike(one.whole, other)]
    momentum = "last.ckpt/optimizer_states/0/state/0/momentum_buffer"
    assert found == [momentum, "metrics.csv", "run.json/results/val/loss", "files"]
