"""One pass of a run's best checkpoint through its validation split."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.loader import Unmanaged
from lightning_zoo.engine.evaluate import LEDGER_VARIABLE, load_task, resolve
from lightning_zoo.engine.session import (
    build_data,
    build_task,
    build_trainer,
    count_devices,
    hush,
    join,
    plan_for,
    shared_folder,
)
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe
from lightning_zoo.report.findings import Collector, Findings
from lightning_zoo.report.labels import LabelCollector, VideoCollector
from lightning_zoo.report.objects import ObjectCollector
from lightning_zoo.report.pixels import PixelCollector
from lightning_zoo.runs import Run, read_checkpoint
from lightning_zoo.tasks import ClassificationTask, DetectionTask, SegmentationTask, VideoTask

# What a task leaves behind; the first that fits.
COLLECTORS: tuple[tuple[type[Any], type[Any]], ...] = (
    (DetectionTask, ObjectCollector),
    (SegmentationTask, PixelCollector),
    (VideoTask, VideoCollector),
    (ClassificationTask, LabelCollector),
)


@dataclass(frozen=True)
class Measured:
    """A pass and what it was made with.

    Attributes:
        recipe: The run's recipe.
        task: The task, with the best checkpoint's weights.
        data: The data module, set up for validation.
        findings: What was found.
        skipped: The ledger's entries, those of training included: ``file``, ``error``, ``split``.
        epoch: The epoch, counted from 1, at whose end the checkpoint was saved.
    """

    recipe: Recipe
    task: Any
    data: Any
    findings: Findings
    skipped: list[dict[str, Any]]
    epoch: int


def measure(run: Run, *, debug: bool = False) -> Measured:
    """Look at every validation image once, as ``validate`` does.

    Raises:
        ZooError: If the run has no checkpoint, its data is gone or it has no validation split.
    """
    hush(debug)
    recipe, checkpoint = resolve(run.path, None, None, Path())
    assert checkpoint is not None
    recipe = recipe.check()
    accelerator, _ = count_devices(1, str(recipe.get("trainer.accelerator", "auto")))
    own = [("batch.size", recipe.get("batch.per_device"))]
    if (limit := recipe.get("trainer.limit_val_batches")) is not None:
        own.append(("trainer.limit_predict_batches", limit))
    chosen = recipe.with_overrides(own)
    plan = plan_for(chosen, 1)
    with shared_folder(LEDGER_VARIABLE) as folder:
        data = build_data(chosen, plan, "validate", ledger=folder / "ledger.jsonl")
        if "val" not in data.datasets:
            raise ZooError(
                f"a report needs validation images, and data.val is null in {run.recipe_file}; "
                "train with a validation split: fit --data.val FOLDER"
            )
        task, _ = build_task(chosen, num_classes=data.num_classes, structure_only=True)
        join(task, data)
        load_task(task, checkpoint)
        collector = _collector(task)
        trainer = build_trainer(chosen, accelerator=accelerator, devices=1, plan=plan)
        trainer.callbacks.append(_Collect(collector))  # type: ignore[attr-defined]
        loader = data.val_dataloader()
        trainer.predict(task, dataloaders=Unmanaged(loader), return_predictions=False)
        entries = [*ledgers.read(run.ledger), *data.read_ledger()]
    skipped = {(entry.get("file"), entry.get("split")): entry for entry in entries}
    epoch = int(read_checkpoint(checkpoint).get("epoch", 0)) + 1
    return Measured(recipe, task, data, collector.finish(), list(skipped.values()), epoch)


def _collector(task: Any) -> Collector:
    for kind, collector in COLLECTORS:
        if isinstance(task, kind):
            return collector(task)
    raise ZooError(f"there is no report of a {type(task).__name__}; use: validate")


class _Collect(Callback):
    """Hands each batch to a collector, and shows how far it is where a terminal looks on."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.bar: Any = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the line."""
        if not sys.stdout.isatty():
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("report", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, transient=True)
        self.bar.start()
        self.bar.add_task("report", total=int(sum(trainer.num_predict_batches)))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count one batch."""
        self.collector.add(batch, outputs)
        if self.bar is not None:
            self.bar.advance(self.bar.task_ids[0])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the line."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the line."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
