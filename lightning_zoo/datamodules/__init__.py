"""Data sets: files in, batches of uint8 tensors out. Names are imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_zoo.datamodules.base import ZooDataModule, ZooDataset
    from lightning_zoo.datamodules.coco import CocoDataModule
    from lightning_zoo.datamodules.coco_dataset import CocoDataset
    from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
    from lightning_zoo.datamodules.imagenet import ImageNetDataModule
    from lightning_zoo.datamodules.loader import EvalLoader, ResumableLoader
    from lightning_zoo.datamodules.samplers import (
        EvalSampler,
        GroupedTrainSampler,
        SampleKey,
        TrainSampler,
    )

_HOMES = {
    "CocoDataModule": "coco",
    "CocoDataset": "coco_dataset",
    "EvalLoader": "loader",
    "EvalSampler": "samplers",
    "GroupedTrainSampler": "samplers",
    "ImageFolderDataModule": "image_folder",
    "ImageNetDataModule": "imagenet",
    "ResumableLoader": "loader",
    "SampleKey": "samplers",
    "TrainSampler": "samplers",
    "ZooDataModule": "base",
    "ZooDataset": "base",
}

__all__ = [
    "CocoDataModule",
    "CocoDataset",
    "EvalLoader",
    "EvalSampler",
    "GroupedTrainSampler",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "ResumableLoader",
    "SampleKey",
    "TrainSampler",
    "ZooDataModule",
    "ZooDataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
