"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, one row an epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_zoo.loggers import MetricsCsv

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_REDRAWS = 0.2


class Console(Callback):
    """Prints progress with throughput and time left, and one table row at each epoch's end.

    Args:
        images_per_batch: Images that all devices together take in one forward pass.
        quiet: Print the table only.
        unit: What the network takes, where that is not an image.
    """

    def __init__(self, images_per_batch: int, *, quiet: bool = False, unit: str = "image") -> None:
        self.images_per_batch, self.quiet = images_per_batch, quiet
        self._speed = f"{unit}s/s"
        self._bar: Any = None
        self._task: Any = None
        self._columns: list[str] = []
        self._epoch_start = self._drawn = 0.0
        self._train_seconds = 0.0
        self._first = self._seen = 0
        self._lr: float | None = None
        self._pending: int | None = None
        self._validated: int | None = None

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)  # noqa: T201  the console is this class's purpose

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock here too: a run resumed in mid-epoch has no start of the epoch."""
        self._start_epoch(
            trainer, pl_module, first=trainer.fit_loop.epoch_loop.batch_progress.current.ready
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the row of the epoch before, then start this one's clock and bar."""
        self._print_row(trainer)
        self._start_epoch(trainer, pl_module)

    def _start_epoch(self, trainer: Trainer, pl_module: LightningModule, *, first: int = 0) -> None:
        self._close_bar()
        self._epoch_start = self._drawn = time.monotonic()
        self._train_seconds = 0.0
        self._seen = 0
        self._first = first
        if lr := getattr(pl_module, "current_lr", None):
            self._lr = lr()
        if trainer.is_global_zero and not self.quiet and sys.stdout.isatty():
            self._open_bar(trainer)

    def _open_bar(self, trainer: Trainer) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            transient=True,
        )
        self._bar.start()
        total = int(trainer.num_training_batches)
        label = f"epoch {trainer.current_epoch}"
        self._task = self._bar.add_task(label, total=total, completed=self._first, note="")

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Redraw now and then; most calls return at once."""
        self._seen += 1
        now = time.monotonic()
        pause = SECONDS_BETWEEN_REDRAWS if self._bar is not None else SECONDS_BETWEEN_LINES
        if now - self._drawn < pause or self.quiet or not trainer.is_global_zero:
            return
        self._drawn = now
        rate = self._seen * self.images_per_batch / (now - self._epoch_start)
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        if self._bar is not None:
            note = f"loss {loss:.4f}  {speed(rate)} {self._speed}"
            self._bar.update(self._task, completed=batch_idx + 1, note=note)
            return
        total = int(trainer.num_training_batches)
        left = (total - batch_idx - 1) * (now - self._epoch_start) / self._seen
        self._print(
            f"epoch {trainer.current_epoch}: {batch_idx + 1}/{total} batches, loss {loss:.4f}, "
            f"{speed(rate)} {self._speed}, {clock(left)} left in the epoch"
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the training clock."""
        if not trainer.sanity_checking:
            self._train_seconds = time.monotonic() - self._epoch_start
            self._validated = trainer.current_epoch
        self._close_bar()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the row will say; the task's own figures of the epoch come after this hook."""
        self._close_bar()
        self._train_seconds = self._train_seconds or time.monotonic() - self._epoch_start
        self._pending = trainer.current_epoch
        rate = self._seen * self.images_per_batch / self._train_seconds
        for logger in trainer.loggers:  # but the CSV file is the same for every run of a recipe
            if not isinstance(logger, MetricsCsv):
                logger.log_metrics({self._speed: rate}, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last row."""
        self._print_row(trainer)

    def _print_row(self, trainer: Trainer) -> None:
        epoch, self._pending = self._pending, None
        if epoch is None or not trainer.is_global_zero:
            return
        cells: dict[str, str] = {"epoch": str(epoch)}
        for name, value in trainer.callback_metrics.items():
            if self._is_shown(name, trainer.lightning_module):
                digits = 4 if "loss" in name else 2
                old = name.startswith("val/") and self._validated != epoch
                cells[name.replace("_epoch", "")] = "-" if old else f"{float(value):.{digits}f}"
        if self._lr is not None:
            cells["lr"] = f"{self._lr:.3g}"
        cells[self._speed] = speed(self._seen * self.images_per_batch / self._train_seconds)
        cells["time"] = clock(time.monotonic() - self._epoch_start)
        order = ["epoch", "train/loss", *sorted(k for k in cells if k.startswith("val/"))]
        columns = [k for k in [*order, *(k for k in cells if k not in order)] if k in cells]
        if columns != self._columns:
            self._columns = columns
            self._print("  ".join(f"{c:>{max(len(c), 8)}}" for c in columns))
        self._print("  ".join(f"{cells[c]:>{max(len(c), 8)}}" for c in columns))

    @staticmethod
    def _is_shown(name: str, task: Any) -> bool:
        """Whether a figure stands in the table: all of them, or the task's headline and losses."""
        if name in ("train/loss", "lr"):
            return False
        headline = getattr(task, "headline", ())
        split, _, figure = name.partition("/")
        if not headline or split not in ("train", "val"):
            return not headline
        return figure.removeprefix("ema_") in (*headline, "loss", "loss_epoch")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self._close_bar()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the terminal back."""
        self._close_bar()


def speed(rate: float) -> str:
    """Return images a second: whole from 10 on, with a digit or two below."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def clock(seconds: float) -> str:
    """Return a length of time as ``1:02:03`` or ``2:03``."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
