"""The benchmarks run and say what they promise; nothing here depends on how fast anything is."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lightning_zoo.bench import startup
from lightning_zoo.bench.startup import startup_benchmark
from lightning_zoo.bench.step import step_benchmark
from lightning_zoo.cli import benchmark, main


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


@pytest.fixture
def subjects(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Note what would be measured, with which arguments, and measure nothing."""
    calls: list[tuple[Any, ...]] = []
    for name in benchmark.SUBJECTS:
        module = importlib.import_module(f"lightning_zoo.bench.{name}")

        def measure(*args: Any, _name: str = name, **kwargs: Any) -> Iterator[dict[str, str]]:
            calls.append((_name, args, kwargs))
            yield {"benchmark": _name}

        monkeypatch.setattr(module, f"{name}_benchmark", measure)
    return calls


def test_subjects(subjects: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark"]) == 0
    rows = [json.loads(line)["benchmark"] for line in capsys.readouterr().out.splitlines()]
    quick = [name for name in benchmark.SUBJECTS if name not in benchmark.BY_NAME_ALONE]
    assert rows == quick == [call[0] for call in subjects]
    assert tuple(benchmark.SUBJECTS)[len(quick) :] == benchmark.BY_NAME_ALONE, "as the help says"
    for name in benchmark.SUBJECTS:
        assert main(["benchmark", name]) == 0
        assert json.loads(capsys.readouterr().out) == {"benchmark": name}


def test_options(subjects: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "detection", "ops", "--models", "a,b", "--repeats", "3"]
    assert main(command) == 0
    assert subjects == [("detection", (3,), {"names": ["a", "b"]}), ("ops", (3,), {})]
    capsys.readouterr()
    assert main(["benchmark", "ops", "detector"]) == 2
    assert "unknown benchmark 'detector'; did you mean detection?" in capsys.readouterr().err
    assert len(subjects) == 2, "nothing was measured"


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(startup, "GOALS", {"--help": 0.4})
    assert main(["benchmark", "startup", "--repeats", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["command"] == "--help"
