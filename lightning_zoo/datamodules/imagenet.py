"""ImageNet-1k as scripts/prepare_imagenet.py lays it out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.image_folder import ImageFolderDataModule, write_fake_image
from lightning_zoo.models.registry import class_names

_WNID = re.compile(r"n\d{8}")


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet: 1,281,167 images to train, 50,000 to validate, folders named by WordNet id.

    The classes are the folders in sorted order, which is the order of published weights; where all
    1000 are there, they get their English names. The labels of ImageNet's own test images are not
    public, so ``test`` and ``predict`` read val.

    Args:
        root: Folder of the data.
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
        on_error: At a broken file, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    LAYOUT: ClassVar[str] = """
ROOT/
  train/n01440764/*.JPEG    1000 folders, 1,281,167 images
  val/n01440764/*.JPEG      1000 folders, 50,000 images
"""
    SOURCE: ClassVar[str] = (
        "python scripts/prepare_imagenet.py makes it from the archives of https://image-net.org"
    )

    def __init__(
        self,
        *,
        root: str = "data/imagenet",
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

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: English where all 1000 folders are there, else the folders'."""
        folders = self._label_names()
        if len(folders) == 1000 and all(_WNID.fullmatch(name) for name in folders):
            return list(class_names("imagenet1k"))
        return list(folders)

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; there is no public test split."""
        return ("train", "val") if stage == "fit" else ("val",)

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of coloured noise under made-up WordNet ids.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes.
            images: Images of each split, at least one a class.
            size: About the side of an image in pixels.
            seed: Seed of the pixels.
        """
        rng = np.random.default_rng(seed)
        for split in ("train", "val"):
            for i in range(max(images, classes)):
                wnid = f"n{i % classes + 1:08d}"
                name = f"{wnid}_{i}" if split == "train" else f"ILSVRC2012_val_{i + 1:08d}"
                write_fake_image(root / split / wnid / f"{name}.JPEG", i % classes, size, rng)
