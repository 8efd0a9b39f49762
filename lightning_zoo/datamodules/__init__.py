"""Data sets: files in, batches of uint8 tensors out. Names are imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_zoo.datamodules.base import ZooDataModule, ZooDataset
    from lightning_zoo.datamodules.coco import CocoDataModule
    from lightning_zoo.datamodules.coco_dataset import CocoDataset
    from lightning_zoo.datamodules.coco_voc import CocoVocDataModule
    from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
    from lightning_zoo.datamodules.imagenet import ImageNetDataModule
    from lightning_zoo.datamodules.kinetics import KineticsDataModule
    from lightning_zoo.datamodules.loader import EvalLoader, ResumableLoader
    from lightning_zoo.datamodules.mask_folder import MaskFolderDataModule
    from lightning_zoo.datamodules.own_images import OwnImagesDataModule
    from lightning_zoo.datamodules.own_masks import OwnMasksDataModule
    from lightning_zoo.datamodules.own_objects import OwnObjectsDataModule
    from lightning_zoo.datamodules.own_videos import OwnVideosDataModule
    from lightning_zoo.datamodules.samplers import (
        EvalSampler,
        GroupedTrainSampler,
        SampleKey,
        TrainSampler,
    )
    from lightning_zoo.datamodules.video_dataset import VideoDataset
    from lightning_zoo.datamodules.video_folder import VideoFolderDataModule
    from lightning_zoo.datamodules.voc import VocDataModule

_HOMES = {
    "CocoDataModule": "coco",
    "CocoDataset": "coco_dataset",
    "CocoVocDataModule": "coco_voc",
    "EvalLoader": "loader",
    "EvalSampler": "samplers",
    "GroupedTrainSampler": "samplers",
    "ImageFolderDataModule": "image_folder",
    "ImageNetDataModule": "imagenet",
    "KineticsDataModule": "kinetics",
    "MaskFolderDataModule": "mask_folder",
    "OwnImagesDataModule": "own_images",
    "OwnMasksDataModule": "own_masks",
    "OwnObjectsDataModule": "own_objects",
    "OwnVideosDataModule": "own_videos",
    "ResumableLoader": "loader",
    "SampleKey": "samplers",
    "TrainSampler": "samplers",
    "VideoDataset": "video_dataset",
    "VideoFolderDataModule": "video_folder",
    "VocDataModule": "voc",
    "ZooDataModule": "base",
    "ZooDataset": "base",
}

__all__ = [
    "CocoDataModule",
    "CocoDataset",
    "CocoVocDataModule",
    "EvalLoader",
    "EvalSampler",
    "GroupedTrainSampler",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "KineticsDataModule",
    "MaskFolderDataModule",
    "OwnImagesDataModule",
    "OwnMasksDataModule",
    "OwnObjectsDataModule",
    "OwnVideosDataModule",
    "ResumableLoader",
    "SampleKey",
    "TrainSampler",
    "VideoDataset",
    "VideoFolderDataModule",
    "VocDataModule",
    "ZooDataModule",
    "ZooDataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
