"""What a loader's workers are set to."""

from __future__ import annotations

import gc
from typing import Any

import cv2
import torch
from torch.utils.data import Dataset

from lightning_zoo.datamodules.loader import EvalLoader
from lightning_zoo.datamodules.samplers import EvalSampler, SampleKey


class Settings(Dataset[Any]):
    """Tells what holds in the process that reads a sample."""

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        return {
            "threads": [torch.get_num_threads(), cv2.getNumThreads()],
            "frozen": gc.get_freeze_count(),
            "index": key.index,
        }


def test_a_worker_has_one_thread_and_leaves_shared_pages_alone() -> None:
    frozen_here = gc.get_freeze_count()
    loader = EvalLoader(Settings(), EvalSampler(4, 2), workers=1)
    batches = list(loader)
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2, 3]]
    for batch in batches:
        assert batch["threads"] == [[1, 1]] * 2
        # what the main process holds, many thousands of objects
        assert (batch["frozen"] > 10_000).all()
    assert gc.get_freeze_count() == frozen_here
