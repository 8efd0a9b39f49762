"""What a person sees: plain lines off a terminal, a row an epoch, lengths of time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_zoo.callbacks import console
from lightning_zoo.callbacks.console import Console, clock, speed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"), (0.4, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (600, "10:00"),
        (3599.6, "1:00:00"), (3600, "1:00:00"), (3725, "1:02:05"), (90061, "25:01:01"),
    ],
)  # fmt: skip
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0123, "0.012"), (0.5, "0.5"), (2.0, "2"), (2.44, "2.4"), (9.94, "9.9"), (10.0, "10"),
     (123.4, "123"), (12345.6, "12346")],
)  # fmt: skip
def test_speed(rate: float, text: str) -> None:
    assert speed(rate) == text


class FakeTrainer:
    is_global_zero = True
    lightning_module: Any = None
    sanity_checking = False
    current_epoch = 0
    num_training_batches = 10
    accumulate_grad_batches = 2

    def __init__(self) -> None:
        self.callback_metrics: dict[str, Any] = {}
        self.loggers: list[Any] = []
        current = SimpleNamespace(ready=0)
        progress = SimpleNamespace(current=current)
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands until it is turned."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: now.seconds)
    return now


def train_epoch(
    callback: Console, trainer: Any, time: SimpleNamespace, metrics: dict[str, float]
) -> None:
    """Ten batches of ten seconds, then five seconds of validation."""
    task: Any = SimpleNamespace(current_lr=lambda: 0.01)
    callback.on_train_epoch_start(trainer, task)
    for i in range(10):
        time.seconds += 10
        callback.on_train_batch_end(trainer, task, {"loss": torch.tensor(0.5)}, None, i)
    callback.on_validation_start(trainer, task)
    time.seconds += 5
    callback.on_train_epoch_end(trainer, task)
    trainer.callback_metrics.update({k: torch.tensor(v) for k, v in metrics.items()})


def test_plain_lines(time: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Any = FakeTrainer()
    callback = Console(images_per_batch=20)
    first = {"val/acc@1": 12.345, "val/loss": 1.23456, "train/loss_epoch": 2.0, "train/loss": 9.0}
    train_epoch(callback, trainer, time, first)
    trainer.current_epoch = 1
    train_epoch(callback, trainer, time, {"val/acc@1": 50.0, "train/loss_epoch": 1.0})
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    # a line at 30, 60 and 90 s: 3 batches of 20 images in 30 s; the loss is that of a whole step
    assert lines[:3] == [
        "epoch 0: 3/10 batches, loss 1.0000, 2 images/s, 1:10 left in the epoch",
        "epoch 0: 6/10 batches, loss 1.0000, 2 images/s, 0:40 left in the epoch",
        "epoch 0: 9/10 batches, loss 1.0000, 2 images/s, 0:10 left in the epoch",
    ]
    assert lines[3].split() == [
        "epoch", "train/loss", "val/acc@1", "val/loss", "lr", "images/s", "time",
    ]  # fmt: skip
    assert lines[4].split() == ["0", "2.0000", "12.35", "1.2346", "0.01", "2", "1:45"]
    assert [line.split(":")[0] for line in lines[5:8]] == ["epoch 1"] * 3
    assert lines[8].split()[:3] == ["1", "1.0000", "50.00"]
    assert len(lines) == 9, "the heading stands once"
    assert len(lines[3]) == len(lines[4]) == len(lines[8])
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_an_epoch_that_was_not_measured_has_no_old_figures(
    time: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer: Any = FakeTrainer()
    callback = Console(20, quiet=True)
    train_epoch(callback, trainer, time, {"val/loss": 1.0, "train/loss_epoch": 2.0})
    trainer.current_epoch = 1
    callback.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    time.seconds += 1
    callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert rows == [["epoch", "train/loss", "val/loss"], ["0", "2.0000", "1.0000"],
                    ["1", "2.0000", "-"]]  # fmt: skip


def test_headline(time: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """A task with many figures shows those that it names, and the losses."""
    trainer: Any = FakeTrainer()
    trainer.lightning_module = SimpleNamespace(headline=("box_map", "box_map50"))
    figures = {
        "train/loss": 9.0, "train/loss_epoch": 2.0, "train/loss_mask": 3.0, "val/loss": 1.0,
        "val/loss_mask": 4.0, "val/box_map": 12.0, "val/box_map50": 34.0, "val/box_mar100": 5.0,
        "val/ema_box_map": 13.0, "val/ema_box_mar1": 6.0, "lr": 0.5,
    }  # fmt: skip
    callback = Console(20, quiet=True)
    train_epoch(callback, trainer, time, figures)
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    heading, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == [
        "epoch", "train/loss", "val/box_map", "val/box_map50", "val/ema_box_map", "val/loss", "lr",
        "images/s", "time",
    ]  # fmt: skip
    assert row[:6] == ["0", "2.0000", "12.00", "34.00", "13.00", "1.0000"]


def test_quiet_and_other_ranks(time: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Any = FakeTrainer()
    callback = Console(20, quiet=True)
    train_epoch(callback, trainer, time, {"val/loss": 1.0})
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert len(capsys.readouterr().out.splitlines()) == 2
    trainer.is_global_zero = False
    callback = Console(20)
    train_epoch(callback, trainer, time, {"val/loss": 1.0})
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""


def test_no_row_without_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    Console(20).on_train_end(FakeTrainer(), None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
