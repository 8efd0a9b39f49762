"""The small run that many tests share; conftest.py makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fitted:
    """A run that the command line made, once for all tests; nobody may change it.

    Attributes:
        data: Photos of three classes: ``train``, ``val`` and ``test``, 36 each.
        out: Folder of run folders.
        run: The run's folder.
        command: What followed ``python -m lightning_zoo``.
        printed: What it printed.
    """

    data: Path
    out: Path
    run: Path
    command: list[str]
    printed: str


SIDE = 48  # pixels
OVERRIDES = {
    "model.model": "squeezenet1_1",
    "model.optimizer.lr": "0.005",
    "data.albumentations": "null",
    "data.train_crop": str(SIDE),
    "data.eval_resize": str(SIDE),
    "data.eval_crop": str(SIDE),
    "data.workers": "0",
    "batch.size": "12",
    "batch.per_device": "6",
    "trainer.max_epochs": "2",
    "run.pictures": "5",
}
