"""metrics.csv: a row a step, columns as they come, resumed without what was lost."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

import lightning_zoo
from lightning_zoo.loggers import MetricsCsv, build_loggers
from lightning_zoo.runs import create_run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def logger_at(path: Path, *rows: tuple[int, dict[str, Any]]) -> MetricsCsv:
    logger = MetricsCsv(path)
    for step, metrics in rows:
        logger.log_metrics(metrics, step)
    logger.save()
    return logger


def test_one_row_a_step(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    logger_at(path, (0, {"a": 1}), (0, {"b": 2.5}), (3, {"a": 0.1}))
    assert path.read_text() == "step,a,b\n0,1.0,2.5\n3,0.1,\n"


def test_new_columns_and_a_row_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    logger = logger_at(path, (0, {"a": 1.0}), (1, {"a": 2.0}))
    logger.log_metrics({"a": 3.0}, 2)
    logger.save()
    assert path.read_text() == "step,a\n0,1.0\n1,2.0\n2,3.0\n"
    logger.log_metrics({"val/acc@1": 50.0}, 2)  # the row is on the disk already
    logger.save()
    assert path.read_text() == "step,a,val/acc@1\n0,1.0,\n1,2.0,\n2,3.0,50.0\n"
    logger.log_metrics({"a": 4.0}, 3)
    logger.log_metrics({"a": 5.0}, 4)
    logger.finalize("success")
    assert [row["a"] for row in read(path)] == ["1.0", "2.0", "3.0", "4.0", "5.0"]
    logger.finalize("success")
    assert len(read(path)) == 5


def test_appends_in_one_line_ending(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    logger = logger_at(path, (0, {"a": 1.0, "b": 2.0}))
    inode = path.stat().st_ino
    logger.log_metrics({"b": 3.0}, 1)
    logger.save()
    assert path.stat().st_ino == inode, "the file is appended to, not rewritten"
    assert path.read_bytes() == b"step,a,b\n0,1.0,2.0\n1,,3.0\n"


def test_round_trip(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1e-300, 1e300, -0.0, 33.33333206176758, math.nan, math.inf, 2]
    names = ["a", "val/acc@1", "with, comma", 'with "quotes"', "ä", "e", "f", "g"]
    path = tmp_path / "m.csv"
    logger = logger_at(path, (7, dict(zip(names, values, strict=True))))
    (row,) = read(path)
    assert row["step"] == "7"
    for name, value in zip(names, values, strict=True):
        assert repr(float(row[name])) == repr(float(value)), name
    again = MetricsCsv(path)
    again.forget_after(8)
    again.log_metrics({"a": 1.0}, 8)
    again.save()
    assert read(path)[0] == row
    logger.log_metrics({"a": 2.0}, 8)
    logger.save()
    assert read(path)[0] == row


@pytest.mark.parametrize(("step", "kept"), [(0, []), (2, ["0", "1"]), (3, ["0", "1", "2"]),
                                            (99, ["0", "1", "2", "5"])])  # fmt: skip
def test_forget_after(tmp_path: Path, step: int, kept: list[str]) -> None:
    """A checkpoint of step 3 was saved after rows 0, 1 and 2."""
    path = tmp_path / "m.csv"
    logger_at(path, (0, {"a": 1}), (1, {"a": 2}), (2, {"b": 3}), (5, {"c": 4}))
    logger = MetricsCsv(path)
    logger.forget_after(step)
    logger.log_metrics({"a": 7.0, "d": 8.0}, 100)
    logger.save()
    rows = read(path)
    assert [row["step"] for row in rows] == [*kept, "100"]
    assert (rows[-1]["a"], rows[-1]["d"]) == ("7.0", "8.0")
    if "2" in kept:
        assert rows[2]["b"] == "3.0"
    logger.log_metrics({"a": 9.0}, 101)
    logger.save()
    assert len(read(path)) == len(kept) + 2


def test_forgotten_rows_are_gone_though_nothing_new_came(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    logger_at(path, (0, {"a": 1}), (5, {"a": 2}))
    logger = MetricsCsv(path)
    logger.forget_after(3)
    logger.save()
    assert [row["step"] for row in read(path)] == ["0"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path / "m.csv")
    logger.forget_after(3)
    logger.save()
    assert list(tmp_path.iterdir()) == []


def test_build_loggers(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mine", {}, ())
    for names in ([], ["csv"]):
        (logger,) = build_loggers(names, run, title="mine", config={})
        assert isinstance(logger, MetricsCsv)
        assert logger.path == run.path / "metrics.csv"
    both = build_loggers(["tensorboard"], run, title="mine", config={})
    assert [type(logger).__name__ for logger in both] == ["MetricsCsv", "TensorBoardLogger"]


def test_tensorboard_is_asked_for_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else real(name)
    )
    with pytest.raises(lightning_zoo.ZooError, match="install it with: pip install tensorboard"):
        lightning_zoo.fit("squeezenet1_1", smoke=True, loggers=["tensorboard"], out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
