"""Pascal VOC 2012, its augmented set, and your own data in its layout."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.segmentation_dataset import (
    MaskFiles,
    SegmentationDataModule,
    SegmentationDataset,
)
from lightning_zoo.datamodules.segmentation_fake import write_fake_voc
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import class_names
from lightning_zoo.transforms.label_maps import VOID, MaskReader, check_values


class VocDataModule(SegmentationDataModule):
    """Pascal VOC 2012: 1,464 images to train and 1,449 to validate, 21 classes, 255 for void.

    A line of a list is a name, or an image and its mask relative to the root. The augmented set
    (10,582 images) is ``--data.train train_aug --data.train_masks SegmentationClassAug``, with that
    list and folder put beside the others.

    Args:
        root: Folder of the data, VOCdevkit/VOC2012 of the archive.
        train: List of the training images, a name in ``ImageSets/Segmentation``.
        val: List of the validation images; null for none.
        test: List for the verb test; null takes val.
        masks: Folder of the masks.
        train_masks: Folder of the masks for training; null takes ``masks``.
        classes: Names of the classes of your own data in this layout; null takes VOC's.
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

    LAYOUT: ClassVar[str] = """
ROOT/                                              VOCdevkit/VOC2012 of the archive
  JPEGImages/*.jpg
  SegmentationClass/*.png                          masks with a palette, 255 is void
  ImageSets/Segmentation/{train,val,trainval}.txt  names without extension, one a line
"""
    SOURCE: ClassVar[str] = (
        "unpack VOCtrainval_11-May-2012.tar of http://host.robots.ox.ac.uk/pascal/VOC/voc2012"
    )

    def __init__(
        self,
        *,
        root: str = "data/voc2012",
        train: str = "train",
        val: str | None = "val",
        test: str | None = None,
        masks: str = "SegmentationClass",
        train_masks: str | None = None,
        classes: list[str] | None = None,
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
            train=train,
            val=val,
            test=test,
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
        self.masks = masks
        self.train_masks = train_masks
        self.classes = check_values(classes, None, None, None)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the masks' values."""
        return list(self.classes or class_names("voc"))

    def make_dataset(self, split: Split) -> SegmentationDataset | None:
        """Return the samples of a split; None where the split was switched off.

        Raises:
            ZooError: If files are missing or the list makes no sense.
        """
        chosen = self.folders[split]
        if chosen is None:
            return None
        path = self.root / "ImageSets" / "Segmentation" / f"{chosen}.txt"
        if not path.is_file():
            way_out = "" if split == "train" else "; null goes without it"
            raise self.missing(f"no list {str(path)!r} (data.{split}{way_out})")
        folder = self.masks
        if split == "train" and self.train_masks is not None:
            folder = self.train_masks
        images, masks = read_list(path, folder)
        for names, what in ((images, "images"), (masks, "masks")):
            self.check_files(split, self.root, names, what=what)
        way_out = "name the classes of your own data by --data.classes '[NAME, ...]'"
        reader = MaskReader(self.class_names, ignore_index=VOID, way_out=way_out)
        return SegmentationDataset(
            split, self.root, images, MaskFiles(self.root, masks, reader), self.transform(split)
        )

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of coloured shapes with void around them.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes that are drawn, from 2 to 21, the background included.
            images: Images of each split.
            size: Longer side of an image in pixels.
            seed: Seed of the shapes.
        """
        write_fake_voc(root, classes=classes, images=images, size=size, seed=seed)


def read_list(path: Path, masks: str) -> tuple[FileNames, FileNames]:
    """Return the images and masks that a list names, relative to the root.

    Args:
        path: The list.
        masks: Folder of the masks, for lines that are a name alone.

    Raises:
        ZooError: If a line makes no sense, a name stands there twice, or there is none.
    """
    pairs: dict[str, str] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        words = [word.lstrip("/") for word in text.split()]
        if len(words) == 1:
            words = [f"JPEGImages/{words[0]}.jpg", f"{masks}/{words[0]}.png"]
        elif not words:
            continue
        where = f"{str(path)!r}, line {line}"
        if len(words) != 2 or any(".." in PurePosixPath(word).parts for word in words):
            raise ZooError(
                f"{where}: {text.strip()!r}; expected a name, or an image and its mask relative to "
                "the root"
            )
        if words[0] in pairs:
            raise ZooError(f"{where}: {words[0]!r} stands in a line before")
        pairs[words[0]] = words[1]
    if not pairs:
        raise ZooError(f"{str(path)!r} names no image; expected one name a line")
    return FileNames(pairs), FileNames(pairs.values())
