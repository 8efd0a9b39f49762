"""The 20 classes of VOC in COCO's images, as the published segmentation networks learned them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.base import Split, ZooDataset
from lightning_zoo.datamodules.coco_index import CocoIndex, read_categories, read_index, summary
from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.segmentation_dataset import (
    Mask,
    SegmentationDataModule,
    SegmentationDataset,
)
from lightning_zoo.datamodules.segmentation_fake import write_fake_coco_voc
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.models.registry import class_names, real_classes
from lightning_zoo.transforms.decode import DecodeError
from lightning_zoo.transforms.masks import rle_area, to_rle
from lightning_zoo.transforms.segmentation import merge_masks

# COCO's category id of each class: the background, aeroplane, bicycle, ..., tvmonitor
COCO_IDS = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
COCO_CATEGORIES = real_classes(class_names("coco"))


class CocoMasks:
    """Masks that are merged from the objects of a COCO annotation file.

    A pixel of one object, crowds included, has its class; one of several objects is void, also
    where all are of one class.

    Args:
        index: The annotation file, with the masks of the classes' categories alone.
        images: int64 (N), positions in the index of the images.
        folder: Folder of the images, for errors.
    """

    def __init__(self, index: CocoIndex, images: NDArray[np.int64], folder: Path) -> None:
        self.index = index
        self.images = images
        self.folder = str(folder)

    def __call__(self, index: int, size: tuple[int, int]) -> Mask:
        """Return the mask, uint8 (H, W), of the sample at ``index``.

        Raises:
            DecodeError: If the image has another size than the file says.
        """
        image = int(self.images[index])
        height, width = (int(n) for n in self.index.sizes[image])
        if (height, width) != size:
            raise DecodeError(
                f"{self.folder}/{self.index.names[image]}",
                f"it has {size[0]} x {size[1]} pixels (height x width) and its annotations were "
                f"made for {height} x {width}",
            )
        rows = range(*self.index.rows(image).indices(len(self.index.ids)))
        labels = self.index.labels[rows.start : rows.stop].tolist()
        return merge_masks([self.index.segment(row) for row in rows], labels, height, width)


class CocoVocDataModule(SegmentationDataModule):
    """COCO's images with the 20 classes of VOC and the background: the published networks' data.

    Training takes the images whose objects of the 20 classes have more than ``min_area`` pixels
    together; evaluation takes all images, also those without any such object. Objects are merged
    into one mask; pixels of two or more of them are void, 255.

    Args:
        root: Folder of the data.
        train: Folder of the training images, and the ending of their annotation file.
        val: The same for validation; null for none.
        test: The same for the verb test; null takes val.
        annotations: The annotation files within the root, with ``{split}`` for the folder's name.
        min_area: Pixels that the objects of a training image must exceed together.
        train_resize: Shortest and longest length of a training image's shorter side in pixels.
        train_crop: Side in pixels of the square that is cut out in training.
        flip: Chance that a training image is mirrored.
        eval_resize: Length in pixels that the shorter side is resized to in evaluation, mask and
            all; null keeps the size.
        albumentations: albumentations transforms in place of resize and flip.
        on_bad_annotation: ``reference`` leaves out objects without area with a warning and refuses
            damaged annotations; ``refuse`` refuses both; ``skip`` leaves out both and names them in
            the run's ledger.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken image, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    LAYOUT: ClassVar[str] = """
ROOT/
  train2017/*.jpg                              118,287 images
  val2017/*.jpg                                5,000 images
  annotations/instances_{train2017,val2017}.json
"""
    SOURCE: ClassVar[str] = (
        "python scripts/prepare_coco.py makes it from the archives of https://cocodataset.org"
    )

    def __init__(
        self,
        *,
        root: str = "data/coco",
        train: str = "train2017",
        val: str | None = "val2017",
        test: str | None = None,
        annotations: str = "annotations/instances_{split}.json",
        min_area: float = 1000,
        train_resize: tuple[int, int] = (260, 1040),
        train_crop: int = 480,
        flip: float = 0.5,
        eval_resize: int | None = 520,
        albumentations: list[Any] | None = None,
        on_bad_annotation: Literal["reference", "refuse", "skip"] = "reference",
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
        if on_bad_annotation not in ("reference", "refuse", "skip"):
            raise unknown("on_bad_annotation", on_bad_annotation, ("reference", "refuse", "skip"))
        if "{split}" not in annotations:
            raise ZooError(
                f"annotations is {annotations!r}; expected {{split}} in it, which the folder's "
                "name replaces"
            )
        self.annotations = annotations
        self.min_area = min_area
        self.on_bad_annotation = on_bad_annotation

    @property
    def class_names(self) -> list[str]:
        """Names of the 21 classes: the background, and VOC's in alphabetic order."""
        return list(class_names("voc"))

    def make_dataset(self, split: Split) -> SegmentationDataset | None:
        """Return the samples of a split; None where the split was switched off.

        Raises:
            ZooError: If files are missing, the categories are not COCO's, or annotations are wrong
                and the policy refuses them.
        """
        folder = self.folders[split]
        if folder is None:
            return None
        path, images = self._annotation_file(folder), self.root / folder
        for there, what in ((path.is_file(), path), (images.is_dir(), images)):
            if not there:
                raise self.missing(f"no {str(what)!r} (data.{split})")
        labels = {number: label for label, number in enumerate(COCO_IDS) if label}
        index = read_index(
            path,
            labels={number: labels.get(number) for number in read_coco_categories(path)},
            target="masks",
            policy=self.on_bad_annotation,
            needs_annotations=split != "test",
        )
        if index.problems:
            first = index.problems[0]
            rank_zero_warn(
                f"left out of {str(path)!r}: {summary(index.problems)}; the first is "
                f"{first.where}: {first.what}"
            )
        chosen = np.arange(len(index))
        if split == "train":
            chosen = np.flatnonzero(object_areas(index) > self.min_area)
        if not len(chosen):
            raise ZooError(
                f"no image of {str(path)!r} can be used (data.{split}): it has {len(index)} images "
                f"and {len(index.ids)} objects of the 20 classes, and training takes images with "
                f"more than {self.min_area:g} pixels of them (data.min_area)"
            )
        names = [index.names[image] for image in chosen.tolist()]
        self.check_files(split, images, names)
        return SegmentationDataset(
            split,
            self.root,
            FileNames(f"{folder}/{name}" for name in names),
            CocoMasks(index, chosen, images),
            self.transform(split),
        )

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of coloured shapes under COCO's category ids.

        The first ``classes`` of the 21 are drawn, from the background on.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes, from 2 to 21.
            images: Images of each split; of 64 pixels or more, training takes them all.
            size: Longer side of an image in pixels.
            seed: Seed of the shapes.
        """
        write_fake_coco_voc(
            root,
            {label: COCO_IDS[label] for label in range(1, classes)},
            COCO_CATEGORIES,
            stranger=next(number for number in COCO_CATEGORIES if number not in COCO_IDS),
            images=images,
            size=size,
            seed=seed,
        )

    def _annotation_file(self, folder: str) -> Path:
        return self.root / self.annotations.replace("{split}", folder)

    def _prepare(self, dataset: ZooDataset) -> None:
        super()._prepare(dataset)
        if self.ledger is None or self.on_bad_annotation != "skip":
            return
        if isinstance(dataset, SegmentationDataset) and isinstance(dataset.masks, CocoMasks):
            file = self._annotation_file(str(self.folders[dataset.split]))
            name = file.relative_to(self.root).as_posix()
            entries = [
                {"file": f"{name}: {p.where}", "error": p.what, "split": dataset.split}
                for p in dataset.masks.index.problems
            ]
            ledgers.append_new(self.ledger, entries)


def read_coco_categories(path: Path) -> dict[int, str]:
    """Return the categories of an annotation file by id, which must be COCO's own or some of them.

    Raises:
        ZooError: If one is not.
    """
    found = read_categories(path)
    for number, name in found.items():
        known = COCO_CATEGORIES.get(number)
        if known != name:
            there = "has no such id" if known is None else f"calls it {known!r}"
            raise ZooError(
                f"{str(path)!r} has the category {number} {name!r} and COCO {there}; expected "
                "COCO's own ids and names: for other classes write masks as PNG files and use "
                "MaskFolderDataModule"
            )
    return found


def object_areas(index: CocoIndex) -> NDArray[np.float64]:
    """Return the pixels of all objects in each image (N), those of crowds included.

    The file's ``area`` counts, or the mask's pixels where it has none.
    """
    images = np.repeat(np.arange(len(index)), np.diff(index.starts))
    areas = index.areas.copy()
    for row in np.flatnonzero(np.isnan(areas)).tolist():
        height, width = (int(n) for n in index.sizes[images[row]])
        areas[row] = rle_area(to_rle(index.segment(row), height, width))
    return np.bincount(images, weights=areas, minlength=len(index)).astype(np.float64)
