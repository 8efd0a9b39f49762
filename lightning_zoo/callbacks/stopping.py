"""SIGTERM, SIGUSR1 and Ctrl-C end a run at a whole optimizer step, with a whole checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_zoo.callbacks.checkpoints import Checkpoints
from lightning_zoo.errors import Stopped

# SLURM warns with SIGUSR1 where a job asks for it, and ends jobs with SIGTERM.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)


class StopOnSignal(Checkpoint):
    """Ends the run after the step in which a signal came, once the step is saved.

    Lightning calls it after all other callbacks, for it stands behind :class:`Checkpoints` among
    those that save.

    All ranks end after the same step, whichever of them had the signal. In validation the run ends
    at once: :class:`Checkpoints` has saved the step before. A second Ctrl-C ends at once anywhere.

    Args:
        checkpoints: What saves.
        say: Prints a line for people.
        tell: Lets the other ranks know of a signal; None where there are none.

    Raises:
        Stopped: Out of the trainer, when the run has been ended so.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        say: Callable[[str], None] = print,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.checkpoints, self.say, self.tell = checkpoints, say, tell
        self.signal = 0
        self._evaluating = False
        self._group: Any = None
        self._first = True
        self._global_step = 0

    def _listen(self, trainer: Trainer) -> None:
        """Take the signals; Lightning has just put handlers of its own in place."""
        self._first = trainer.is_global_zero
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal:
            return
        self.signal = number
        if self.tell is not None:
            self.tell(number)
        if self._evaluating:
            raise self._stopped()
        if self._first:
            again = " (Ctrl-C again: at once)" if number == signal.SIGINT else ""
            self.say(f"{signal.Signals(number).name}: stopping after this step{again}")

    def _stopped(self) -> Stopped:
        return Stopped(self.signal, self._global_step)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here on."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, and give the ranks a way to agree that no device has to wait for."""
        self._listen(trainer)
        self._global_step = trainer.global_step
        if trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")
        if self.signal and trainer.world_size == 1:  # it came during the check before the start
            raise self._stopped()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal ends the run at once."""
        if trainer.sanity_checking:
            return
        self._evaluating = True
        if self.signal:
            raise self._stopped()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the next save."""
        self._evaluating = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Where an optimizer step has just ended: stop, if any rank was asked to."""
        if trainer.global_step == self._global_step:
            return  # within an accumulated step
        self._global_step = trainer.global_step
        if not self._asked():
            return
        if self.checkpoints.is_resumable_here(trainer):
            self.checkpoints.save(trainer)
            raise self._stopped()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here too: the epoch's end has just been saved."""
        if self._asked():
            raise self._stopped()

    def _asked(self) -> bool:
        """Whether any rank has had a signal; all ranks get the same answer."""
        if self._group is not None:
            highest = torch.tensor(self.signal)
            torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX, group=self._group)
            self.signal = int(highest)
        return bool(self.signal)
