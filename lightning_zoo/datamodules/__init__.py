"""Data sets: files in, batches of uint8 tensors out. Names are imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_zoo.datamodules.base import ZooDataModule, ZooDataset
    from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
    from lightning_zoo.datamodules.imagenet import ImageNetDataModule
    from lightning_zoo.datamodules.loader import EvalLoader, ResumableLoader
    from lightning_zoo.datamodules.samplers import EvalSampler, SampleKey, TrainSampler

_HOMES = {
    "EvalLoader": "loader",
    "EvalSampler": "samplers",
    "ImageFolderDataModule": "image_folder",
    "ImageNetDataModule": "imagenet",
    "ResumableLoader": "loader",
    "SampleKey": "samplers",
    "TrainSampler": "samplers",
    "ZooDataModule": "base",
    "ZooDataset": "base",
}

__all__ = [
    "EvalLoader",
    "EvalSampler",
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
