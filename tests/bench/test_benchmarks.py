"""The benchmarks run and say what they promise; nothing here depends on how fast anything is."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_zoo.bench import startup
from lightning_zoo.bench.startup import startup_benchmark
from lightning_zoo.bench.step import step_benchmark
from lightning_zoo.cli import main


def test_startup(monkeypatch: pytest.MonkeyPatch) -> None:
    goals = {"import lightning_zoo": 0.05, "--help": 0.4, "fit --recipe resnet51": 1e-9}
    assert set(goals) <= set(startup.GOALS), "they are among those that are measured"
    monkeypatch.setattr(startup, "GOALS", goals)
    rows = list(startup_benchmark(repeats=1))
    assert [row["command"] for row in rows] == list(goals)
    for row in rows:
        assert list(row) == ["benchmark", "command", "seconds", "goal", "reached"]
        assert row["benchmark"] == "startup"
        assert math.isfinite(row["seconds"])
        assert row["reached"] == (row["seconds"] <= row["goal"])
        assert json.loads(json.dumps(row)) == row
    assert rows[1]["seconds"] > 0
    assert not rows[2]["reached"]


def test_step(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    (row,) = step_benchmark(steps=50, repeats=1)
    assert list(row) == ["benchmark", "bare_us", "ours_us", "layer_us", "goal_us", "reached"]
    assert row["bare_us"] > 0
    assert row["ours_us"] > 0
    assert row["layer_us"] == pytest.approx(row["ours_us"] - row["bare_us"], abs=0.2)
    assert row["reached"] == (row["layer_us"] <= row["goal_us"])
    assert json.loads(json.dumps(row)) == row
    assert torch.get_num_threads() == threads
    assert capsys.readouterr().out == "", "nothing stands between the JSON lines"


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(startup, "GOALS", {"--help": 0.4})
    assert main(["benchmark", "startup", "--repeats", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["command"] == "--help"
