"""What our layer costs a training step, over Lightning with the same network, loss and loader."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_zoo.batch import BatchPlan
from lightning_zoo.callbacks import Checkpoints, Console, RunRecord
from lightning_zoo.datamodules.loader import ResumableLoader
from lightning_zoo.datamodules.samplers import SampleKey, TrainSampler
from lightning_zoo.engine.session import hush
from lightning_zoo.loggers import MetricsCsv
from lightning_zoo.optim import Length, StepDecay
from lightning_zoo.runs import create_run
from lightning_zoo.tasks import ClassificationTask

GOAL = 100.0  # microseconds a step
SIDE, CLASSES, BATCH = 8, 4, 4
LOG_EVERY = 50


class _Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """Constant images in memory, for both sides."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        return {"image": self.image, "label": 1, "id": "x"}


def _network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))


class _Bare(LightningModule):
    """What a person would write by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _network()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x = (batch["image"].float() - self.mean) * self.scale  # type: ignore[operator]
        loss = F.cross_entropy(self.model(x), batch["label"])
        # as we do: only at the steps that loggers write, since log() costs more than all the rest
        if (self.trainer.global_step + 1) % LOG_EVERY == 0:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class _Clock(Callback):
    """Takes the time of every step, from one batch's end to the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())

    def median_us(self) -> float:
        pairs = zip(self.ends[10:], self.ends[9:], strict=False)
        return 1e6 * statistics.median(b - a for b, a in pairs)


def _trainer(folder: Path, callbacks: list[Callback], logger: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=callbacks,
        logger=logger,
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(c, Checkpoints) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=LOG_EVERY,
    )


def _bare_us(folder: Path, steps: int) -> float:
    clock = _Clock()
    loader = DataLoader(_Samples(steps * BATCH), batch_size=BATCH)
    _trainer(folder, [clock], MetricsCsv(folder / "bare.csv")).fit(_Bare(), loader)
    return clock.median_us()


def _ours_us(folder: Path, steps: int) -> float:
    clock = _Clock()
    plan = BatchPlan(BATCH, BATCH, 1, 1)
    samples = _Samples(steps * BATCH)
    loader = ResumableLoader(samples, TrainSampler(len(samples), plan), workers=0)
    task = ClassificationTask(
        "squeezenet1_1",
        num_classes=CLASSES,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        lr_schedule=lambda length: StepDecay(length, every_epochs=30),
    )
    task.model = _network()
    task.configure(Length(steps, 1), batch_size=BATCH, lr_scale=1.0, seed=0)
    run = create_run(folder, "bench", {}, ())
    callbacks = [
        Console(BATCH, quiet=True),
        RunRecord(run, {}, []),
        Checkpoints(run.checkpoints, monitor="val/acc@1", mode="max", every_steps=None),
        clock,
    ]
    _trainer(folder, callbacks, MetricsCsv(folder / "ours.csv")).fit(task, loader)
    return clock.median_us()


def step_benchmark(steps: int = 400, repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Yield one row: microseconds a step of bare Lightning and of ours, which take turns.

    Args:
        steps: Steps of one measurement.
        repeats: Measurements of each, medians over their steps; the least disturbed counts.
    """
    hush()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    bare, ours = [], []
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            # the table of the runs would stand between the JSON lines
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
            for _ in range(repeats):
                bare.append(_bare_us(Path(folder), steps))
                ours.append(_ours_us(Path(folder), steps))
    finally:
        torch.set_num_threads(threads)
    b, o = min(bare), min(ours)  # what disturbs a measurement only ever adds to it
    row = {"benchmark": "step", "bare_us": round(b, 1), "ours_us": round(o, 1)}
    yield row | {"layer_us": round(o - b, 1), "goal_us": GOAL, "reached": o - b <= GOAL}
