"""A batch size by trying larger ones: as many images a device as pay, and as memory holds."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_zoo.batch import BatchPlan, counted
from lightning_zoo.engine.finetune.find_lr import for_trial
from lightning_zoo.engine.session import (
    build_data,
    build_task,
    build_trainer,
    count_devices,
    hush,
    join,
)
from lightning_zoo.errors import ZooError
from lightning_zoo.optim import Length
from lightning_zoo.recipe import Recipe

STEPS = 2  # of each trial; the faster one counts
PATIENCE = 2  # sizes in a row without a gain: one may have been disturbed
GROWTH = 1.1  # throughput that a CPU has to gain from twice the images
SHARE = {"cuda": 0.8, "cpu": 0.5}  # of the memory that may be taken
STEPS_AN_EPOCH = 4  # at least


@dataclass(frozen=True)
class Trial:
    """What a number of images on one device came to.

    Attributes:
        per_device: Images of one forward pass.
        rate: Images a second; 0 where it did not run.
        memory: Share of the memory that was free before (of a GPU: of all) that it took.
        why: Why it did not run; empty where it did.
    """

    per_device: int
    rate: float = 0.0
    memory: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class BatchChoice:
    """A batch size that was found by trying.

    Attributes:
        per_device: Images of one forward pass on one device.
        devices: Devices that train.
        size: Images of one optimizer step: the recipe's, or more where the devices take more at
            once.
        tried: All trials.
        why: Why no larger one was taken.
        advice: What the linear rule says of the learning rate, which stays as it is; empty where
            the step keeps its size.
        unit: What is counted, ``image`` or ``clip``.
    """

    per_device: int
    devices: int
    size: int
    tried: tuple[Trial, ...]
    why: str
    advice: str
    unit: str = "image"

    def table(self) -> str:
        """Return a line for each trial, and the choice."""
        lines = [f"{self.unit + 's':>8} {self.unit + 's/s':>10} {'memory':>7}"]
        for trial in self.tried:
            told = trial.why or f"{trial.rate:10.1f} {trial.memory:7.0%}"
            lines.append(f"{trial.per_device:8d} {told}")
        step = BatchPlan(
            self.size, self.per_device, self.devices, self.size // self.per_device // self.devices
        )
        lines.append(f"{step.explain(unit=self.unit)} ({self.why})")
        return "\n".join([*lines, self.advice] if self.advice else lines)


def find_batch(recipe: Recipe, *, devices: int | str = "auto") -> BatchChoice:
    """Try 1, 2, 4, ... images on one device, two steps each on the recipe's training data.

    On a GPU as many are taken as leave a fifth of its memory free. A CPU takes twice the images
    only while more gain a tenth in throughput and half of the free memory is enough. An epoch
    keeps at least four steps. The task is a fresh one; nothing is left of it.

    Args:
        recipe: A checked recipe.
        devices: Devices that will train, as for ``fit``.

    Raises:
        ZooError: If not even one image fits, or the recipe cannot be run.
    """
    hush()
    accelerator, count = count_devices(devices, str(recipe.get("trainer.accelerator", "auto")))
    kind = "cuda" if accelerator in ("cuda", "gpu") else "cpu"
    trial = for_trial(recipe, max_steps=STEPS)
    with isolate_rng(), tempfile.TemporaryDirectory(prefix="lightning_zoo_") as folder:
        ledger = Path(folder, "ledger.jsonl")
        data = build_data(recipe, BatchPlan(1, 1, 1, 1), "fit", ledger=ledger)
        task, config = build_task(recipe, num_classes=data.num_classes)
        join(task, data)
        task.lr_schedule = None
        seed = config.get("seed_everything", 0)
        task.configure(Length(STEPS, 1), batch_size=1, lr_scale=1.0, seed=seed)
        if task.thaw is not None:
            task.thaw.steps = 0  # what does not learn takes less memory, and does so later

        free, before = free_memory(), peak_memory()  # a peak only rises, and so do the trials

        def run(images: int) -> Trial:
            plan = BatchPlan(images, images, 1, 1)
            data.configure(plan, seed=seed, ledger=ledger)
            gauge = _Gauge(on_gpu=kind == "cuda")
            trainer = build_trainer(
                trial, accelerator=accelerator, devices=1, plan=plan, callbacks=[gauge],
                folder=Path(folder),
            )  # fmt: skip
            trainer.fit(task, datamodule=data)
            if kind == "cpu":
                gauge.share = (peak_memory() - before) / free if free else 0.0
            return Trial(images, images / gauge.seconds, gauge.share)

        most = max(1, data.num_train_samples // (STEPS_AN_EPOCH * count))
        tried, why = try_sizes(run, most, kind, task.unit)
        unit = task.unit
    ran = [t for t in tried if not t.why and t.memory <= SHARE[kind]]
    if not ran:
        raise ZooError(
            f"{recipe.model} trains on no number of {unit}s that was tried: "
            f"{tried[-1].why or why}; lower the image size"
        )
    best = ran[-1]
    if kind == "cpu":  # the smallest that is about as fast as any
        fastest = max(t.rate for t in ran)
        best = next(t for t in ran if t.rate * GROWTH >= fastest)
    stated = int(recipe.config["batch"]["size"])
    at_once = best.per_device * count
    size = max(1, round(stated / at_once)) * at_once
    advice = _advice(stated, size, recipe.get("model.optimizer.lr"), unit)
    return BatchChoice(best.per_device, count, size, tuple(tried), why, advice, unit)


def try_sizes(
    run: Callable[[int], Trial], most: int, kind: str, unit: str = "image"
) -> tuple[list[Trial], str]:
    """Try 1, 2, 4, ... until it no longer pays or fits; return the trials and why they ended.

    Args:
        run: Trains on a number of images and says what that came to.
        most: Images at most.
        kind: ``"cuda"`` or ``"cpu"``.
        unit: What is counted.
    """
    tried: list[Trial] = []
    size = 1
    while True:
        try:
            tried.append(run(size))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            tried.append(Trial(size, why="out of memory"))
            return tried, f"{size} need more memory than there is"
        except ValueError as error:  # a batch norm over one value has nothing to normalise
            if "more than 1 value per channel" not in str(error):
                raise
            tried.append(Trial(size, why=f"batch norms need more than {counted(size, unit)}"))
        last = tried[-1]
        if last.memory > SHARE[kind]:
            return tried, f"{size} take more than {SHARE[kind]:.0%} of the memory"
        if 2 * size > most:
            return tried, f"an epoch keeps at least {STEPS_AN_EPOCH} steps"
        if kind == "cpu":
            if 2 * last.memory > SHARE[kind]:
                return tried, f"{2 * size} would take more than {SHARE[kind]:.0%} of free memory"
            before = [t for t in tried[:-PATIENCE] if not t.why]
            best = max(before, key=lambda t: t.rate, default=None)
            if best and max(t.rate for t in tried[-PATIENCE:]) < GROWTH * best.rate:
                return tried, f"more gain less than a tenth over {best.per_device}"
        size *= 2


def _advice(before: int, after: int, lr: Any, unit: str) -> str:
    if before == after:
        return ""
    text = f"a step takes {after} {unit}s instead of the recipe's {before}"
    if not isinstance(lr, int | float):
        return text
    scaled = lr * after / before
    return (
        f"{text}; its learning rate stays {lr:g}, the linear rule would make it {scaled:g} "
        f"(--model.optimizer.lr {scaled:g})"
    )


class _Gauge(Callback):
    """Measures the faster step's time and, of a GPU, the share of its memory that training took."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.seconds = math.inf
        self.share = 0.0
        self._start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._start = self._now()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.seconds = min(self.seconds, max(self._now() - self._start, 1e-9))
        if self.on_gpu:
            _, total = torch.cuda.mem_get_info()
            self.share = torch.cuda.max_memory_reserved() / total

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


def free_memory() -> int:
    """Return the bytes of memory that programs can still take, 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def peak_memory() -> int:
    """Return the most bytes of memory that this process has had, 0 where nobody counts."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
