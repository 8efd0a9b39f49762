from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fakes import Fitted

from lightning_zoo.cli import main


def test_report(fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs" / "own" / "now"
    shutil.copytree(fitted.run, run)
    assert main(["report", "own", "--runs", str(tmp_path / "runs")]) == 0
    page = run / "report.html"
    assert capsys.readouterr().out == f"report: {page}\n"
    assert page.read_text().startswith("<!doctype html>")
    other = tmp_path / "other.html"
    assert main(["report", str(run), "--out", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(other)
    assert found["thresholds"] == {}
    assert main(["validate", str(run), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["metrics"]
    assert found["metrics"]["val/acc@1"] == pytest.approx(expected["val/acc@1"])


def test_thresholds_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_zoo import report

    (tmp_path / "run.json").write_text("{}")
    made = report.Report(tmp_path / "report.html", {"val/map": float("nan")}, {"a": 0.5, "bcd": 1})
    monkeypatch.setattr(report, "write_report", lambda *args, **options: made)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "threshold of each class, kept in the run's checkpoints:",
        "  a    0.500",
        "  bcd  1.000",
        f"report: {tmp_path / 'report.html'}",
    ]
    assert main(["report", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"val/map": None}


MISTAKES = {
    "": "the following arguments are required: RUN; see: python -m lightning_zoo report --help",
    "absent --runs {}": "no run 'absent'; expected a run folder, 'last' or a recipe's name; {}/",
    "x/checkpoints/best.ckpt": "name the run's folder: python -m lightning_zoo report x",
    "x/best.ckpt": "and 'x/best.ckpt' is a checkpoint; name the run's folder\n",
    "last --ouf page.html": "unknown option '--ouf'; did you mean --out?",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *command.format(tmp_path).split()]) == 2
    assert MISTAKES[command].format(tmp_path) in capsys.readouterr().err


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
