"""Your own images and masks in folders."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import FileNames, images_below
from lightning_zoo.datamodules.segmentation_dataset import (
    MaskFiles,
    SegmentationDataModule,
    SegmentationDataset,
)
from lightning_zoo.datamodules.segmentation_fake import write_fake_masks
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.label_maps import (
    MaskFileError,
    MaskReader,
    check_values,
    read_label_map,
)

CLASSES_FILE = "classes.txt"
# Folders of images and of masks, the layout that is looked for first before the other.
LAYOUTS = (("images/{split}", "masks/{split}"), ("{split}/images", "{split}/masks"))


class MaskFolderDataModule(SegmentationDataModule):
    """Images, and for each a mask of the same name: PNG with a palette, in grey or in colour.

    Without more, a mask's values are the labels: 0 is the first class, often the background. The
    classes are named by ``classes``, by ``label_values`` or ``colors``, or in ``classes.txt``, one
    a line. A name ``void`` in ``label_values`` or ``colors`` that is no class is ignored.

    Args:
        root: Folder of the data.
        train: Folder of the training split.
        val: Folder of the validation split; null for none.
        test: Folder for the verb test; null takes val.
        images: Folder of a split's images, with ``{split}`` for the split's folder; null:
            ``images/{split}`` or ``{split}/images``, as the root has it.
        masks: The same for masks.
        mask_suffix: What a mask's name has in place of the image's extension.
        classes: Names of the classes, in the order of the labels.
        ignore_index: Value of the masks that is not learned; 255 where many tools write it.
        label_values: Value of each name in the masks, ``{background: 0, cell: 255}``, or a list
            of values.
        colors: Colour of each name, ``{background: [0, 0, 0], cell: [255, 0, 0]}``.
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
ROOT/
  images/train/*.jpg    or train/images/*.jpg
  masks/train/*.png     or train/masks/*.png, a class at each pixel, named as the image
  images/val/*.jpg
  masks/val/*.png
  classes.txt           names of the classes, one a line, or --data.classes
"""
    SOURCE: ClassVar[str] = "put your own images there, or name their folder by --data.root"

    def __init__(
        self,
        *,
        root: str = "data/masks",
        train: str = "train",
        val: str | None = "val",
        test: str | None = None,
        images: str | None = None,
        masks: str | None = None,
        mask_suffix: str = ".png",
        classes: list[str] | None = None,
        ignore_index: int | None = None,
        label_values: dict[str, int | list[int]] | None = None,
        colors: dict[str, list[int]] | None = None,
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
        if (images is None) != (masks is None):
            raise ZooError("data.images and data.masks name the two folders together; set both")
        for name, value in (("images", images), ("masks", masks)):
            if value is not None and "{split}" not in value:
                raise ZooError(
                    f"{name} is {value!r}; expected {{split}} in it, which the split's folder "
                    "replaces"
                )
        self.patterns = None if images is None or masks is None else (images, masks)
        self.mask_suffix = mask_suffix
        self.ignore_index = ignore_index
        self.label_values = label_values
        self.colors = colors
        self.named = check_values(classes, label_values, colors, ignore_index)

    @cached_property
    def _class_names(self) -> list[str]:
        if self.named is not None:
            return self.named
        self.check_root()
        path = self.root / CLASSES_FILE
        if not path.is_file():
            raise ZooError(
                f"the classes have no names: write {str(path)!r}, one name a line, or use "
                "--data.classes '[background, NAME, ...]', or --data.label_values or --data.colors "
                f"where the masks' values are not 0, 1, 2, ...{self._values_seen()}"
            )
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        names = check_values([s.strip() for s in lines if s.strip()], None, None, None)
        assert names is not None
        return names

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return list(self._class_names)

    def make_dataset(self, split: Split) -> SegmentationDataset | None:
        """Return the samples of a split; None where the split was switched off.

        Raises:
            ZooError: If files are missing.
        """
        if self.folders[split] is None:
            return None
        images, masks = self._folders(split)
        path = self.root / images
        if not path.is_dir():
            way_out = "" if split == "train" else "; null goes without it"
            raise self.missing(f"no folder {str(path)!r} (data.{split}{way_out})")
        names = images_below(path)
        if images == masks:
            names = [name for name in names if not name.endswith(self.mask_suffix)]
        if not names:
            raise self.missing(f"no image in {str(path)!r} (data.{split})")
        mask_names = [name.rpartition(".")[0] + self.mask_suffix for name in names]
        self.check_files(split, self.root / masks, mask_names, what="masks")
        reader = MaskReader(
            self.class_names,
            values=self.label_values,
            colors=self.colors,
            ignore_index=self.ignore_index,
            way_out="name all classes (--data.classes), say what is to be ignored "
            "(--data.ignore_index VALUE), or what the values mean (--data.label_values "
            "'{background: 0, NAME: VALUE}')",
        )
        files = MaskFiles(self.root, FileNames(f"{masks}/{name}" for name in mask_names), reader)
        found = FileNames(f"{images}/{name}" for name in names)
        return SegmentationDataset(split, self.root, found, files, self.transform(split))

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

    def _folders(self, split: Split) -> tuple[str, str]:
        """Return the folders of a split's images and masks within the root."""
        name = str(self.folders[split])
        patterns = [self.patterns] if self.patterns is not None else list(LAYOUTS)
        pairs = [
            (images.replace("{split}", name), masks.replace("{split}", name))
            for images, masks in patterns
        ]
        return next((pair for pair in pairs if (self.root / pair[0]).is_dir()), pairs[0])

    def _values_seen(self) -> str:
        """Return a sentence on the values of the first masks, as far as they can be read."""
        folder = self.root / self._folders("train")[1]
        seen: set[int] = set()
        for name in images_below(folder)[:20] if folder.is_dir() else []:
            try:
                found = read_label_map(folder / name)
            except MaskFileError:
                continue
            if found.ndim == 3:
                return f"; the masks of {str(folder)!r} are in colour"
            seen |= {*np.unique(found).tolist()}
        listed = sorted(seen)
        if not listed:
            return ""
        shown = ", ".join(map(str, listed[:20])) + (" ..." if len(listed) > 20 else "")
        return f"; the first masks of {str(folder)!r} hold the values {shown}"
