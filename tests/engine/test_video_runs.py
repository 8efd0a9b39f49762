"""Video from the recipe to the pictures: fit, validate, predict, interrupt, two processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import lightning_zoo as lz
from lightning_zoo.cli import main
from lightning_zoo.engine.moving import MOTIONS, write_moving
from lightning_zoo.errors import ZooError
from lightning_zoo.tasks import VideoTask


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_moving(root, train=2, val=1, side=32, frames=12)
    return root


def write_recipe(folder: Path, root: Path, **changes: Any) -> Path:
    task: dict[str, Any] = {
        "model": "video_resnet",
        "model_args": {"conv": "2plus1d", "layers": [1, 1], "widths": [4, 8]},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}},
        "lr_schedule": {
            "class_path": "MultiStepDecay",
            "init_args": {"milestones": [1], "by": "step", "warmup_epochs": 0.5},
        },
    }
    data = {"root": str(root), "clip_frames": 4, "frame_rate": 7.5, "train_clips": 2,
            "eval_clips": 3, "train_resize": [30, 34], "train_crop": 24, "eval_resize": [30, 34],
            "eval_crop": 24, "workers": 0, "index_workers": 0}  # fmt: skip
    recipe = {
        "seed_everything": 0,
        "model": {"class_path": "VideoTask", "init_args": task},
        "data": {"class_path": "VideoFolderDataModule", "init_args": data},
        "batch": {"size": 8, "per_device": 4},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "run": {"loggers": ["csv"], "checkpoint_steps": 1, "pictures": 3},
    }
    for section, keys in changes.items():
        recipe[section] = {**recipe[section], **keys}  # type: ignore[dict-item]
    path = folder / "moving.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def read_rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_validate_predict(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, videos)
    out = str(tmp_path / "runs")
    assert main(["fit", "--recipe", str(recipe), "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "6 classes, 24 training clips" in printed
    assert "8 clips a step = 1 device x 4 clips x 2 batches" in printed
    table = next(line for line in printed.splitlines() if "train/loss" in line).split()
    assert {"val/acc@1", "val/acc@5", "val/clip_acc@1", "val/loss", "clips/s"} <= set(table)
    assert "predict" in printed
    assert "VIDEOS" in printed
    (run,) = (tmp_path / "runs" / "moving").iterdir()
    rows = read_rows(run)
    for path in sorted((run / "pictures").iterdir()):
        Image.open(path).verify()

    assert main(["validate", str(run), "--json", "--out", out]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    best = max(float(row["val/acc@1"]) for row in rows if row["val/acc@1"])
    assert found["val/acc@1"] == pytest.approx(best, abs=1e-3)

    predictions = tmp_path / "predictions"
    assert main(["predict", str(run), str(videos / "val"), "--out", str(predictions)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    content = json.loads((predictions / "predictions.json").read_text())
    # the same clips, the same mean: what is predicted is what validation measured
    right = sum(Path(one["file"]).parent.name == one["top"][0][0] for one in content)
    assert 100 * right / len(MOTIONS) == pytest.approx(found["val/acc@1"], abs=1e-3)


def test_interrupted_in_mid_epoch(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, videos, run={"pictures": 0, "loggers": ["csv"]})
    whole = lz.fit(recipe, out=tmp_path / "whole")
    step = VideoTask.training_step
    calls = []

    def breaks(self: VideoTask, batch: Any, batch_idx: int) -> Any:
        calls.append(batch["id"])
        if len(calls) == 10:  # of 12 batches; the second epoch's fourth, within its second step
            raise ZooError("the power went off")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VideoTask, "training_step", breaks)
    with pytest.raises(ZooError, match="the power went off"):
        lz.fit(recipe, out=tmp_path / "broken")
    monkeypatch.setattr(VideoTask, "training_step", step)
    resumed = lz.fit(recipe, out=tmp_path / "broken", resume="auto")
    states = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
        for path in (whole.run, resumed.run)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name
    texts = [(path / "metrics.csv").read_text() for path in (whole.run, resumed.run)]
    assert texts[0] == texts[1]


@pytest.mark.slow  # of every task, tests/engine/test_exact_over_ranks.py has more
def test_two_processes_do_the_same(tmp_path: Path, videos: Path) -> None:
    """The same steps; and of one checkpoint, the same figures, though clips are torn apart."""
    recipe = write_recipe(tmp_path, videos, run={"pictures": 0, "loggers": ["csv"]})
    whole = lz.fit(recipe, out=tmp_path / "on_1", devices=1)

    def on_two(*arguments: str) -> str:
        command = [sys.executable, "-m", "lightning_zoo", *arguments]
        command += ["--out", str(tmp_path / "on_2"), "--devices", "2"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    on_two("fit", "--recipe", str(recipe))
    (other,) = (tmp_path / "on_2" / "moving").iterdir()
    measured = json.loads(on_two("validate", str(whole.run), "--json"))
    alone = lz.validate(whole.run, devices=1)
    assert alone.metrics == pytest.approx(measured["metrics"], rel=1e-6)
    states = [
        torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (whole.run, other)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for name, tensor in states[0]["state_dict"].items():
        if "running_" in name or "num_batches" in name:
            continue  # each process follows the batches that it sees
        torch.testing.assert_close(states[1]["state_dict"][name], tensor, rtol=1e-3, atol=1e-4)


MISTAKES = {
    "--model.num_classes 400": "model.num_classes is 400 and the data in",
    "--model.model resnet18": "resnet18 is a classification model; expected one for video",
    "--data.root nowhere": "no data in 'nowhere' (data.root); expected this layout",
    "--data.clip_frames 0": "clip_frames is 0; expected a whole number of at least 1",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_mistakes(
    option: str, tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, videos)
    command = ["fit", "--recipe", str(recipe), "--out", str(tmp_path / "runs"), *option.split()]
    assert main(command) == 2
    assert MISTAKES[option] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "a run was begun"
