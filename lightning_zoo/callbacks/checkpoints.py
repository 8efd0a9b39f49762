"""Checkpoints that are whole or not there: written beside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_zoo.errors import ZooError
from lightning_zoo.runs import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes file and folder, and renames it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` at ``path``; an older file there stays whole until the end.

        Raises:
            ZooError: If the disk is full or the folder cannot be written to.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            replace(temporary, path)
        except (OSError, RuntimeError) as error:
            kept = f"; the last whole checkpoint is {path}" if path.is_file() else ""
            reason = _reason(error)
            raise ZooError(f"cannot save the checkpoint {path}: {reason}{kept}") from error
        finally:  # it is there only if something went wrong, Ctrl-C included
            with contextlib.suppress(OSError):
                temporary.unlink()


def _reason(error: BaseException) -> str:
    """Return why a file could not be written; torch hides a full disk behind its zip writer."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error)


def replace(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path`` and flush the folder, so that the name survives a crash."""
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # some file systems cannot flush folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def add_to_checkpoints(paths: Sequence[Path], **facts: Any) -> None:
    """Put facts into ``checkpoint["lightning_zoo"]`` of some checkpoints; all else stays.

    Each is whole at every moment. Those that are one file under two names stay one. Where a run
    goes on meanwhile and has written a newer checkpoint, that one stays as it is.

    Args:
        paths: Checkpoints of ours; the same one may be named twice.
        facts: Plain data, so that loading runs no code.
    """
    done: dict[tuple[int, int], Path] = {}  # new files by what the old ones were
    for path in dict.fromkeys(paths):
        before = path.stat()
        file = before.st_dev, before.st_ino
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if file in done:
                _link(done[file], temporary)
            else:
                content = read_checkpoint(path)
                content["lightning_zoo"] = {**content["lightning_zoo"], **facts}
                AtomicCheckpointIO().save_checkpoint(content, temporary)
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                replace(temporary, path)
                done[file] = path
        finally:
            temporary.unlink(missing_ok=True)


def _measure_the_last(trainer: Trainer) -> None:
    """Without this, a run of another length than its recipe's might never be judged."""
    if trainer.check_val_every_n_epoch and trainer.current_epoch + 1 == trainer.max_epochs:
        trainer.check_val_every_n_epoch = 1


def _link(file: Path, path: Path) -> None:
    """Give a file a second name; a copy, where the file system has no links."""
    path.unlink(missing_ok=True)
    try:
        os.link(file, path)
    except OSError:
        shutil.copyfile(file, path)
        with path.open("rb") as copy:
            os.fsync(copy.fileno())


class Checkpoints(Checkpoint):
    """Keeps ``last.ckpt`` and ``best.ckpt``.

    The last is written at every epoch's end, every ``every_steps`` optimizer steps, and one step
    before each validation, so that nothing is lost while that takes its time; the best is the last
    one after which the monitored metric was better than ever.

    Args:
        folder: Where they stand.
        monitor: Metric that says which is best.
        mode: ``"max"`` if high is good, ``"min"`` if low is.
        every_steps: Optimizer steps between two saves within an epoch; None for no such saves.
    """

    def __init__(self, folder: Path, *, monitor: str, mode: str, every_steps: int | None) -> None:
        self.folder, self.monitor, self.mode, self.every_steps = folder, monitor, mode, every_steps
        self.best_score: float | None = None
        self._improved = False
        self._was_best = False
        self._saved_step = 0

    @property
    def last(self) -> Path:
        """The newest checkpoint's path."""
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        """The best checkpoint's path."""
        return self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far, and whether it is that of the checkpoint being saved."""
        return {"best_score": self.best_score, "is_best": self._improved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score up again."""
        self.best_score = state_dict["best_score"]
        self._was_best = state_dict.get("is_best", False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step that the run starts or goes on from."""
        self._saved_step = trainer.global_step
        _measure_the_last(trainer)  # a run that goes on in mid-epoch has no start of the epoch
        if self._was_best and trainer.is_global_zero and trainer.ckpt_path is not None:
            # a run that was killed between the two renames goes on from here
            self._name_best(Path(trainer.ckpt_path))
        self._was_best = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the last epoch be measured, whatever the pause between two validations."""
        _measure_the_last(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Save within the epoch, where it is due and a step has just ended."""
        step = trainer.global_step
        if step == self._saved_step or not self.is_resumable_here(trainer):
            return
        due = self.every_steps and step // self.every_steps > self._saved_step // self.every_steps
        if due or self._is_followed_by_validation(trainer, steps=1):
            self.save(trainer)

    def is_resumable_here(self, trainer: Trainer) -> bool:
        """Whether a checkpoint that is saved at the end of this batch can be gone on from.

        Lightning leaves out what stands between this batch and the next one: validation, or the
        epoch's end. There a checkpoint has to wait until that is over.
        """
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return (
            batches % trainer.accumulate_grad_batches == 0
            and batches < trainer.num_training_batches
            and not self._is_followed_by_validation(trainer, steps=0)
        )

    def _is_followed_by_validation(self, trainer: Trainer, *, steps: int) -> bool:
        """Whether validation comes after so many more optimizer steps of this epoch."""
        every, pause = trainer.check_val_every_n_epoch, trainer.val_check_batch
        if not trainer.enable_validation or (every and (trainer.current_epoch + 1) % every):
            return False
        if pause is None or math.isinf(pause):  # counted in seconds: nobody knows beforehand
            return False
        ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        last = int(trainer.num_training_batches)
        before = 0 if every else trainer.current_epoch * last  # or counted over epochs
        end = before + min(ready + steps * trainer.accumulate_grad_batches, last)
        start = before + ready - (steps == 0)
        return end // int(pause) > start // int(pause)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the epoch; save at once where validation ran in mid-epoch."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        sign = 1 if self.mode == "max" else -1
        if not math.isnan(score) and (
            self.best_score is None or sign * score > sign * self.best_score
        ):
            self.best_score, self._improved = score, True
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if not self._improved or progress.is_last_batch:
            return
        if progress.current.ready % trainer.accumulate_grad_batches == 0:
            self.save(trainer)
        else:  # gradients of half a step are in no checkpoint: this one is not to be gone on from
            trainer.save_checkpoint(self.best)
            self._improved = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the epoch's end."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the last checkpoint, and name it the best if it is."""
        trainer.save_checkpoint(self.last)
        self._saved_step = trainer.global_step
        if self._improved and trainer.is_global_zero:
            self._name_best(self.last)
        self._improved = False

    def _name_best(self, file: Path) -> None:
        if self.best.is_file() and self.best.samefile(file):
            return  # renaming one name of a file to another does nothing, and leaves both
        temporary = self.best.with_name(f".{self.best.name}.{os.getpid()}")
        try:
            _link(file, temporary)
            replace(temporary, self.best)
        except OSError as error:
            raise ZooError(
                f"cannot name {file} the best, {self.best}: {error.strerror}; "
                f"the last whole checkpoint is {file}"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
