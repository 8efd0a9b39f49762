"""Checkpoints are whole or not there, and the best is the best."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_zoo.callbacks import checkpoints
from lightning_zoo.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_zoo.errors import ZooError


class Unsaveable:
    """A value at which torch.save stops, after it has written the tensors before it."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no space left on device")


def test_saved_and_read_back(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    path = tmp_path / "new/folder/a.ckpt"
    io.save_checkpoint({"w": torch.arange(3)}, path)
    assert torch.load(path, weights_only=True)["w"].tolist() == [0, 1, 2]
    io.save_checkpoint({"w": torch.arange(4)}, str(path))
    assert torch.load(path, weights_only=True)["w"].tolist() == [0, 1, 2, 3]
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    broken = {"w": torch.zeros(1000), "x": Unsaveable()}
    with pytest.raises(ZooError) as caught:
        io.save_checkpoint(broken, path)
    assert str(caught.value) == f"cannot save the checkpoint {path}: no space left on device"
    assert list(tmp_path.iterdir()) == []

    io.save_checkpoint({"w": torch.arange(3)}, path)
    before = path.read_bytes()
    with pytest.raises(ZooError, match=r"; the last whole checkpoint is .*a\.ckpt$"):
        io.save_checkpoint(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_failure_in_mid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"w": torch.arange(3)}, path)
    before = path.read_bytes()

    def half(content: Any, file: Any) -> None:
        file.write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", half)
    with pytest.raises(ZooError, match="No space left on device"):
        io.save_checkpoint({"w": torch.arange(4)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, TypeError])
def test_any_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stop(content: Any, file: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(checkpoints.torch, "save", stop)
    with pytest.raises(error):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_file_and_folder_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(file: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        fsync(file)

    def note_replace(*names: Any) -> None:
        calls.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "a.ckpt")
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("only Linux tells files from folders here")
    assert calls == ["file", "rename", "folder"]


class FakeTrainer:
    """As much of a trainer as the callback asks for; a checkpoint is the step's number."""

    def __init__(self) -> None:
        self.global_step = self.current_epoch = 0
        self.max_epochs, self.check_val_every_n_epoch = 9, 4
        self.callback_metrics: dict[str, torch.Tensor] = {}
        self.sanity_checking = False
        self.is_global_zero = True
        self.state = SimpleNamespace(fn="fit")
        progress = SimpleNamespace(is_last_batch=True)
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))

    def save_checkpoint(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(str(self.global_step))


def run_epochs(folder: Path, mode: str, scores: list[float]) -> tuple[Checkpoints, str | None]:
    """Run one epoch of one step for each score; return the callback and which step is best."""
    trainer: Any = FakeTrainer()
    callback = Checkpoints(folder, monitor="val/x", mode=mode, every_steps=None)
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    for score in scores:
        trainer.global_step += 1
        trainer.callback_metrics["val/x"] = torch.tensor(score)
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
        callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        assert callback.last.read_text() == str(trainer.global_step)
    return callback, callback.best.read_text() if callback.best.is_file() else None


NAN = math.nan


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [1.0, 3.0, 2.0], "2"),
        ("min", [3.0, 1.0, 2.0], "2"),
        ("max", [-5.0, -6.0], "1"),
        ("min", [-5.0, -6.0], "2"),
        ("max", [2.0, 2.0, 2.0], "1"),  # a tie is no improvement
        ("max", [NAN, 1.0, NAN], "2"),
        ("min", [NAN, 1.0, NAN], "2"),
        ("max", [5.0, NAN, 4.0], "1"),
        ("max", [NAN, NAN], None),
        ("min", [math.inf, 2.0], "2"),
        ("max", [0.0], "1"),
    ],
)
def test_best(tmp_path: Path, mode: str, scores: list[float], best: str | None) -> None:
    callback, found = run_epochs(tmp_path / "kept", mode, scores)
    assert found == best
    if best is not None:
        assert callback.best_score == scores[int(best) - 1]
    assert {p.name for p in (tmp_path / "kept").iterdir()} <= {"last.ckpt", "best.ckpt"}


def test_best_score_survives_a_resume(tmp_path: Path) -> None:
    before, _ = run_epochs(tmp_path, "max", [4.0])
    after = Checkpoints(tmp_path, monitor="val/x", mode="max", every_steps=None)
    after.load_state_dict(before.state_dict())
    trainer: Any = FakeTrainer()
    trainer.global_step = 9
    trainer.callback_metrics["val/x"] = torch.tensor(3.0)
    after.on_validation_end(trainer, None)  # type: ignore[arg-type]
    after.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert after.best.read_text() == "1"
    assert after.last.read_text() == "9"


@pytest.mark.parametrize("links", [True, False])
def test_best_is_a_link_or_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    callback, best = run_epochs(tmp_path, "max", [1.0])
    assert best == "1"
    assert os.path.samefile(callback.best, callback.last) == links
    # the real writer renames over last.ckpt, so that the best keeps its bytes
    AtomicCheckpointIO().save_checkpoint({"step": 2}, callback.last)
    assert callback.best.read_text() == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_not_judged_outside_of_training(tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path, monitor="val/x", mode="max", every_steps=None)
    trainer: Any = FakeTrainer()
    trainer.callback_metrics["val/x"] = torch.tensor(1.0)
    trainer.sanity_checking = True
    callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    trainer.sanity_checking, trainer.state.fn = False, "validate"
    callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert callback.best_score is None
    assert list(tmp_path.iterdir()) == []


def run_batches(
    callback: Checkpoints, *, batches: int, accumulate: int, pause: int, every: int | None = 1
) -> list[int]:
    """Run one epoch of batches; return the steps after which was saved."""
    trainer: Any = FakeTrainer()
    progress = SimpleNamespace(current=SimpleNamespace(ready=0), is_last_batch=False)
    trainer.fit_loop.epoch_loop.batch_progress = progress
    trainer.accumulate_grad_batches, trainer.num_training_batches = accumulate, batches
    trainer.enable_validation, trainer.val_check_batch = True, pause
    trainer.check_val_every_n_epoch = every
    saved: list[int] = []
    trainer.save_checkpoint = lambda path: saved.append(trainer.global_step)
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    for batch in range(batches):
        progress.current.ready = batch + 1
        trainer.global_step = (batch + 1) // accumulate
        callback.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    return saved


@pytest.mark.parametrize(
    ("every_steps", "batches", "accumulate", "pause", "every", "saved"),
    [
        (2, 12, 2, 12, 2, [2, 4]),  # an epoch that is not validated: not at its end
        (None, 10, 2, 10, 1, [4]),  # one step before validation, which follows step 5
        (None, 10, 1, 5, 1, [4, 9]),  # and before each of two
        (5, 10, 1, 5, 1, [4, 6, 9]),  # at 5 validation follows: it has to wait
        (3, 10, 1, 10, 1, [3, 6, 9]),
        (None, 10, 1, 3, 1, [2, 5, 8]),  # validation after 3, 6 and 9
        (None, 4, 1, 6, None, []),  # counted over epochs: after 6, in the next one
        (None, 8, 1, 6, None, [5]),
        (None, 1, 1, 1, 1, []),  # the epoch before has saved its end
    ],
)
def test_saved_within_the_epoch(
    tmp_path: Path,
    every_steps: int | None,
    batches: int,
    accumulate: int,
    pause: int,
    every: int | None,
    saved: list[int],
) -> None:
    callback = Checkpoints(tmp_path, monitor="val/x", mode="max", every_steps=every_steps)
    assert (
        run_batches(callback, batches=batches, accumulate=accumulate, pause=pause, every=every)
        == saved
    )


def test_best_that_was_not_named_is_named_on_resume(tmp_path: Path) -> None:
    """The run was killed between the two renames: the last checkpoint says that it is the best."""
    before, _ = run_epochs(tmp_path, "max", [4.0])
    before._improved = True
    state = before.state_dict()
    before.last.write_text("killed here")
    after = Checkpoints(tmp_path, monitor="val/x", mode="max", every_steps=None)
    after.load_state_dict(state)
    trainer: Any = FakeTrainer()
    trainer.ckpt_path = str(after.last)
    after.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert after.best.read_text() == "killed here"
    after.load_state_dict(state)
    after.on_train_start(trainer, None)  # type: ignore[arg-type]  # once more: nothing to do
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_the_last_epoch_is_measured(tmp_path: Path) -> None:
    trainer: Any = FakeTrainer()
    callback = Checkpoints(tmp_path, monitor="val/x", mode="max", every_steps=None)
    for epoch, pause in ((0, 4), (7, 4), (8, 1)):
        trainer.current_epoch = epoch
        callback.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
        assert trainer.check_val_every_n_epoch == pause
