"""Your own images with labels, in any format of them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
from lightning_zoo.datamodules.own_index import OwnData


class OwnImagesDataModule(OwnData, ImageFolderDataModule):
    """Your own images in class folders or with a table of labels, recognised by looking.

    Splits are taken as found; a validation split is made from the training images where there is
    none, and without a test split val serves. A table may give an image several labels: they are
    then float32 (N, C).

    Args:
        root: Folder of the data, or its table.
        format: ``folders`` or ``csv``; ``auto`` looks.
        val_share: Share of the training images for validation where there is no such split.
        split_seed: Seed of that split.
        annotations: The one table to read, relative to the root; null: those found.
        train_crop: Side of the training images in pixels.
        eval_resize: Length in pixels that the shorter side is resized to in evaluation.
        eval_crop: Side in pixels of the square cut from the middle in evaluation.
        auto_augment: AutoAugment's ImageNet policy, RandAugment, TrivialAugment-wide, or null.
        auto_augment_interpolation: Resampling of their geometric operations.
        random_erasing: Chance that a box of a training image is erased (by the task).
        scale: Range of the random crop's share of the image's area.
        flip: Chance that a training image is mirrored.
        repeated_augmentation: Draws of each training image in a row of the order.
        albumentations: albumentations transforms in place of crop, flip and auto-augment.
        train_views: What training images go through: ``random`` is all of the above, ``eval`` the
            transform of evaluation, as INT8 calibration wants it.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken file or row, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    TASK = "classification"
    LAYOUT: ClassVar[str] = """
ROOT/
  train/<class>/*.jpg val/<class>/*.jpg     class folders; val and test may be missing
  <class>/*.jpg                             or without splits
  labels.csv images/*.jpg                   or a table: columns file, label, split
"""
    SOURCE: ClassVar[str] = "python -m lightning_zoo data check ROOT says what a folder holds"

    def __init__(
        self,
        *,
        root: str = "data/images",
        format: Literal["auto", "folders", "csv"] = "auto",
        val_share: float = 0.2,
        split_seed: int = 0,
        annotations: str | None = None,
        train_crop: int = 224,
        eval_resize: int = 256,
        eval_crop: int = 224,
        auto_augment: Literal["imagenet", "rand", "trivial"] | None = None,
        auto_augment_interpolation: Literal["nearest", "bilinear"] = "nearest",
        random_erasing: float = 0.0,
        scale: tuple[float, float] = (0.08, 1.0),
        flip: float = 0.5,
        repeated_augmentation: int = 1,
        albumentations: list[Any] | None = None,
        train_views: Literal["random", "eval"] = "random",
        workers: int = 4,
        on_error: Literal["refuse", "skip"] = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = None,
    ) -> None:
        super().__init__(
            root=root,
            train_crop=train_crop,
            eval_resize=eval_resize,
            eval_crop=eval_crop,
            auto_augment=auto_augment,
            auto_augment_interpolation=auto_augment_interpolation,
            random_erasing=random_erasing,
            scale=scale,
            flip=flip,
            repeated_augmentation=repeated_augmentation,
            albumentations=albumentations,
            train_views=train_views,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )
        self.remember(
            root,
            format=format,
            val_share=val_share,
            split_seed=split_seed,
            annotations=annotations,
        )

    def find_images(self, split: Split) -> tuple[FileNames, NDArray[Any]] | None:
        """Return the files of a split and their labels; None where there is no such split."""
        items = self.index.of(split)
        if not items:
            return None
        names = FileNames(item.file for item in items)
        if not self.multilabel:
            return names, np.array([item.labels[0] for item in items], np.int64)
        labels = np.zeros((len(items), len(self.index.classes)), np.uint8)
        for row, item in zip(labels, items, strict=True):
            row[list(item.labels)] = 1
        return names, labels
