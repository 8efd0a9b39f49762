"""Your own images and masks, however they are laid out and coded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.own_index import OwnData
from lightning_zoo.datamodules.segmentation_dataset import (
    MaskFiles,
    SegmentationDataModule,
    SegmentationDataset,
)
from lightning_zoo.datamodules.segmentation_fake import write_fake_masks
from lightning_zoo.formats import MaskCoding
from lightning_zoo.transforms.label_maps import MaskReader, check_values

WAY_OUT = (
    "name all classes in classes.txt, one a line in the order of the values, or draw VALUE away"
)


class OwnMasksDataModule(OwnData, SegmentationDataModule):
    """Your own images with a mask each, recognised by looking.

    Masks have a palette, grey values or colours; what their pixels mean stands in class_dict.csv,
    labelmap.txt, classes.txt or codes.txt, else the values themselves are taken. Splits are taken
    as found; a validation split is made from the training images where there is none, and without
    a test split val serves.

    Args:
        root: Folder of the data.
        format: ``masks``; ``auto`` looks.
        val_share: Share of the training images for validation where there is no such split.
        split_seed: Seed of that split.
        train_resize: Shortest and longest length of a training image's shorter side in pixels.
        train_crop: Side in pixels of the square that is cut out in training.
        flip: Chance that a training image is mirrored.
        eval_resize: Length in pixels that the shorter side is resized to in evaluation, mask and
            all; null keeps the size.
        albumentations: albumentations transforms in place of resize and flip.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken file, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    TASK = "segmentation"
    LAYOUT: ClassVar[str] = """
ROOT/
  images/train/*.jpg masks/train/*.png     or train/images train/masks; val and test may be missing
  images/*.jpg masks/*.png                 or without splits
  classes.txt                              names of the values; or class_dict.csv: name,r,g,b
"""
    SOURCE: ClassVar[str] = "python -m lightning_zoo data check ROOT says what a folder holds"

    def __init__(
        self,
        *,
        root: str = "data/masks",
        format: Literal["auto", "masks"] = "auto",
        val_share: float = 0.2,
        split_seed: int = 0,
        train_resize: tuple[int, int] = (260, 1040),
        train_crop: int = 480,
        flip: float = 0.5,
        eval_resize: int | None = 520,
        albumentations: list[Any] | None = None,
        workers: int = 4,
        on_error: Literal["refuse", "skip"] = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = 1,
    ) -> None:
        super().__init__(
            root=root,
            train="train",
            val="val",
            test=None,
            train_resize=train_resize,
            train_crop=train_crop,
            flip=flip,
            eval_resize=eval_resize,
            albumentations=albumentations,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )
        self.remember(root, format=format, val_share=val_share, split_seed=split_seed)

    def make_dataset(self, split: Split) -> SegmentationDataset | None:
        """Return the samples of a split; None where there is no such split.

        Raises:
            ZooError: If the classes make no sense.
        """
        items = self.index.of(split)
        if not items:
            return None
        names = FileNames(item.file for item in items)
        masks = MaskFiles(self.root, FileNames(str(item.mask) for item in items), self.reader())
        return SegmentationDataset(split, self.root, names, masks, self.transform(split))

    def reader(self) -> MaskReader:
        """Return what reads the masks as labels."""
        coding = self.index.masks or MaskCoding()
        check_values(self.class_names, coding.values, coding.colors, coding.ignore)
        return MaskReader(
            self.class_names,
            values=coding.values,
            colors=coding.colors,
            ignore_index=coding.ignore,
            way_out=WAY_OUT,
            colors_from="class_dict.csv",
        )

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of coloured shapes.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes, the background included.
            images: Images of each split.
            size: Longer side of an image in pixels.
            seed: Seed of the shapes.
        """
        write_fake_masks(root, classes=classes, images=images, size=size, seed=seed)
