"""Your own images with boxes, masks or keypoints, in any format of objects."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_warn

from lightning_zoo.datamodules.base import Split, ZooDataset
from lightning_zoo.datamodules.coco import CocoDataModule
from lightning_zoo.datamodules.coco_dataset import CocoDataset
from lightning_zoo.datamodules.coco_fake import write_fake_coco
from lightning_zoo.datamodules.coco_index import CocoIndex, Problem, make_index, report, summary
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.formats import DataIndex, Item, Object, read_data
from lightning_zoo.formats.convert import convert
from lightning_zoo.formats.images import image_size
from lightning_zoo.keypoints import COCO_PERSON

TARGETS = ("auto", "boxes", "masks", "keypoints")


class OwnObjectsDataModule(CocoDataModule):
    """Your own objects as COCO JSON, YOLO txt or Pascal VOC XML, recognised by looking.

    Label 0 is the background, the others are the data's classes in a row. Splits are taken as
    found; a validation split is made from the training images where there is none. Images without
    objects count in evaluation.

    Args:
        root: Folder of the data, or its annotation file (JSON, ``data.yaml``).
        format: ``coco``, ``yolo`` or ``voc``; ``auto`` looks.
        val_share: Share of the training images for validation where there is no such split.
        split_seed: Seed of that split.
        annotations: The one annotation file to read, relative to the root; null: those found.
        target: What is learned beside the labels: ``boxes``, ``masks`` or ``keypoints``; ``auto``
            takes the most that all objects have.
        augmentation: ``hflip``, ``ssd`` or ``ssdlite`` of the reference recipes; null for none.
        aspect_ratio_groups: Factor k: images are batched with those of a like width / height, in
            2k + 2 groups from 1/2 to 2; null mixes all.
        min_keypoints: Labelled keypoints that a training image must have (target keypoints).
        albumentations: albumentations transforms in place of ``augmentation``.
        on_bad_annotation: ``skip`` leaves out what is damaged or has no area with a warning, and
            names it in the run's ledger; ``reference`` refuses what is damaged; ``refuse`` both.
        train_images: The first N training images, or a list of image ids; null for all.
        val_images: The same for validation.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken image, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    LAYOUT: ClassVar[str] = """
ROOT/
  data.yaml images/{train,val}/*.jpg labels/{train,val}/*.txt     YOLO
  annotations/instances_{train,val}.json {train,val}/*.jpg        COCO
  Annotations/*.xml JPEGImages/*.jpg ImageSets/Main/*.txt         Pascal VOC
"""
    SOURCE: ClassVar[str] = "python -m lightning_zoo data check ROOT says what a folder holds"

    def __init__(
        self,
        *,
        root: str = "data/objects",
        format: Literal["auto", "coco", "yolo", "voc"] = "auto",
        val_share: float = 0.2,
        split_seed: int = 0,
        annotations: str | None = None,
        target: Literal["auto", "boxes", "masks", "keypoints"] = "auto",
        augmentation: Literal["hflip", "ssd", "ssdlite"] | None = "hflip",
        aspect_ratio_groups: int | None = None,
        min_keypoints: int = 1,
        albumentations: list[Any] | None = None,
        on_bad_annotation: Literal["reference", "refuse", "skip"] = "skip",
        train_images: int | list[int] | None = None,
        val_images: int | list[int] | None = None,
        workers: int = 4,
        on_error: Literal["refuse", "skip"] = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = 1,
    ) -> None:
        if target not in TARGETS:
            raise unknown("target", target, TARGETS)
        self._given = Path(root)
        self._read_options: dict[str, Any] = {
            "format": format,
            "val_share": val_share,
            "split_seed": split_seed,
            "annotations": annotations,
        }
        keypoints: str | dict[str, Any] = "coco_person"
        if target == "auto":
            target = self.index.target
        if target == "keypoints":
            keypoints = self._skeleton()
        super().__init__(
            root=root,
            target=target,
            augmentation=augmentation,
            aspect_ratio_groups=aspect_ratio_groups,
            min_keypoints=min_keypoints,
            keypoints=keypoints,
            labels="contiguous",
            albumentations=albumentations,
            on_bad_annotation=on_bad_annotation,
            train_images=train_images,
            val_images=val_images,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )

    @cached_property
    def index(self) -> DataIndex:
        """What the folder holds, read once.

        Raises:
            ZooError: If it cannot be read, or holds no objects.
        """
        index = read_data(self._given, task="detection", **self._read_options)
        if index.task != "detection":
            raise ZooError(
                f"{str(self._given)!r} holds data for {index.task} ({index.format}); expected "
                "boxes, masks or keypoints of objects in it (data.root)"
            )
        return index

    @property
    def categories(self) -> dict[int, str]:
        """Names of the classes by category id: the file's own, else from 1."""
        ids = self.index.category_ids or range(1, len(self.index.classes) + 1)
        return dict(zip(ids, self.index.classes, strict=True))

    @property
    def category_ids(self) -> list[int | None]:
        """The category id of each label, for exporting; None for the background."""
        return [None, *self.categories]

    def check_root(self) -> None:
        """Raise the error that helps where there is no data."""
        self.root = self.index.root

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; test and prediction take val without a test set."""
        if stage in ("test", "predict"):
            return ("test",) if self.index.of("test") else ("val",)
        return super().splits(stage)

    def make_dataset(self, split: Split) -> CocoDataset | None:
        """Return the samples of a split; None where there is no such split.

        Raises:
            ZooError: If annotations are wrong and the policy refuses them, or nothing is left.
        """
        if not self.index.of(split):
            return None
        index = self._read(split, self.index.root)
        chosen = self._choose(split, index)
        transform = self.train_transform if split == "train" else None
        return OwnObjects(split, self.index.root, index, chosen, transform)

    @staticmethod
    def write_fake(
        root: Path,
        *,
        classes: int = 4,
        images: int = 8,
        size: int = 64,
        seed: int = 0,
        target: str | None = None,
    ) -> None:
        """Write a tiny YOLO data set of drawn shapes and figures.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes; with keypoints it is one.
            images: Images of each split.
            size: Longer side of an image in pixels.
            seed: Seed of the shapes.
            target: ``keypoints`` writes poses, else there are polygons.
        """
        kind = "person_keypoints" if target == "keypoints" else "instances"
        with tempfile.TemporaryDirectory() as folder:
            write_fake_coco(Path(folder), classes=classes, images=images, size=size, seed=seed)
            file = f"annotations/{kind}_train2017.json"
            convert(read_data(folder, format="coco", annotations=file), root, to="yolo")

    def _skeleton(self) -> str | dict[str, Any]:
        """Return the skeleton of the data's keypoints as ``keypoints`` takes it."""
        index = self.index
        if not index.keypoints:
            raise ZooError(
                f"target is keypoints and the objects of {str(self._given)!r} have {index.target}; "
                f"use --data.target {index.target}, or annotate keypoints"
            )
        if index.keypoints == COCO_PERSON.names:
            return "coco_person"
        return {
            "names": [*index.keypoints],
            "flip_pairs": [[*pair] for pair in index.flip_pairs],
            "bones": [[*pair] for pair in index.bones],
        }

    def _dataset(self, split: Split, *, needed_for: str) -> ZooDataset:
        if not self.index.of(split):
            raise ZooError(
                f"{str(self._given)!r} has no {split} images, and {needed_for} needs them; see "
                f"python -m lightning_zoo data check {self._given}"
            )
        return super()._dataset(split, needed_for=needed_for)

    def _source(self, split: Split) -> Path:
        return self.index.root

    def _prefix(self, split: Split) -> str:
        return ""

    def _read(self, split: Split, images: Path) -> CocoIndex:
        """Return the items of a split as COCO's annotations, checked as those are."""
        bad = []
        if split == "train":  # what reading brought up is of no split, and is said once
            bad = [
                Problem(p.where, p.what, p.kind)
                for p in self.index.problems
                if p.severity == "error"
            ]
        report(images, bad, self.on_bad_annotation)
        index = make_index(
            self._content(split),
            images,
            labels={n: i for i, n in enumerate(self.category_ids) if n is not None},
            target=self.target,
            num_keypoints=self.num_keypoints,
            policy=self.on_bad_annotation,
        )
        index.problems[:0] = bad
        if index.problems:
            first = index.problems[0]
            rank_zero_warn(
                f"wrong in {str(images)!r} ({split}), and gone round: {summary(index.problems)}; "
                f"the first is {first.where}: {first.what}"
            )
        return index

    def _content(self, split: Split) -> dict[str, Any]:
        """Return a split in COCO's form."""
        if self.target == "masks" and not any(
            o.segmentation for item in self.index.items for o in item.objects
        ):
            raise ZooError(
                f"target is masks and no object of {str(self._given)!r} has one; use "
                "--data.target boxes, or annotate polygons"
            )
        ids = self.category_ids
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        without = 0
        for number, item in self._numbered(split):
            width, height = item.width, item.height
            if not width or not height:
                width, height = image_size(self.index.root / item.file)
            listed.append({"id": number, "file_name": item.file, "width": width, "height": height})
            for o in item.objects:
                lacks_mask = self.target == "masks" and o.segmentation is None
                without += lacks_mask and not o.crowd
                annotation: dict[str, Any] = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[o.label + 1],
                    "bbox": [*o.box],
                    # there is something, and its outline is not known: neither right nor wrong
                    "iscrowd": int(o.crowd or lacks_mask),
                    "segmentation": [_outline(o)] if lacks_mask else o.segmentation,
                    "where": f"{item.source or item.file}: {o.where}",
                }
                if o.area is not None:
                    annotation["area"] = o.area
                if o.keypoints is not None and self.target == "keypoints":
                    annotation["keypoints"] = [*o.keypoints]
                annotations.append(annotation)
        if without:
            rank_zero_warn(
                f"{without} objects of {str(self.index.root)!r} ({split}) have no mask: they are "
                "neither trained on nor counted in evaluation (as crowds)"
            )
        return {"images": listed, "annotations": annotations}

    def _numbered(self, split: Split) -> list[tuple[int, Item]]:
        """Return the items of a split with their image ids: the file's own, else their places."""
        items = self.index.of(split)
        own = [item.number for item in items if item.number is not None]
        if len({*own}) == len(items):
            return [*zip(own, items, strict=True)]
        first = self.index.items.index(items[0]) + 1
        return [*enumerate(items, start=first)]


class OwnObjects(CocoDataset):
    """Images of one's own with objects; the files are named from the root."""

    def name(self, index: int) -> str:
        """Return the image's file within the root."""
        return self.index.names[int(self.images[index])]


def _outline(o: Object) -> list[float]:
    """Return an object's box as a polygon."""
    x, y, w, h = o.box
    return [x, y, x + w, y, x + w, y + h, x, y + h]
