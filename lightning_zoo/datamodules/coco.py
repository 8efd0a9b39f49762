"""Objects in COCO's format: boxes, masks or keypoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.base import Split, ZooDataModule, ZooDataset
from lightning_zoo.datamodules.coco_dataset import CocoDataset, collate_lists
from lightning_zoo.datamodules.coco_fake import write_fake_coco
from lightning_zoo.datamodules.coco_index import (
    CocoIndex,
    Target,
    read_categories,
    read_index,
    summary,
)
from lightning_zoo.datamodules.samplers import GroupedTrainSampler, TrainSampler
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.keypoints import Skeleton, get_skeleton
from lightning_zoo.models.registry import BACKGROUND, NO_CATEGORY, class_names, real_classes
from lightning_zoo.transforms.detection import Albumentations, Compose, make_transform

COCO_LABELS = len(class_names("coco"))  # background, and ids from 1 to 90 with gaps
COCO_CATEGORIES = real_classes(class_names("coco"))
LABEL_MODES = ("auto", "category_ids", "contiguous")
LARGEST_LABEL = 10_000  # with category_ids; the network has an output for every number up to it


class CocoDataModule(ZooDataModule):
    """COCO, or your own objects in its format: 118,287 images to train, 5,000 to validate.

    Label 0 is the background. Training leaves out crowds, boxes without area, and images without
    annotations or with specks of one pixel alone, as the reference did; evaluation sees all images.

    Args:
        root: Folder of the data.
        target: What is learned beside the labels; keypoints read ``person_keypoints_*.json``.
        train: Folder of the training images, and the ending of their annotation file.
        val: The same for validation; null for none.
        test: The same for the verb test; null takes val.
        annotations: The annotation files within the root, with ``{split}`` for the folder's name;
            null: ``annotations/instances_{split}.json``, or ``person_keypoints`` for keypoints.
        augmentation: ``hflip``, ``ssd`` or ``ssdlite`` of the reference recipes; null for none.
        aspect_ratio_groups: Factor k: images are batched with those of a like width / height, in
            2k + 2 groups from 1/2 to 2; null mixes all.
        min_keypoints: Labelled keypoints that a training image must have (target keypoints).
        keypoints: Name of a skeleton (``coco_person``), a YAML file that describes one, or its
            content.
        labels: ``category_ids`` takes the file's ids, ``contiguous`` counts them from 1, ``auto``
            takes the ids where they are COCO's own (91 labels with gaps), else counts.
        albumentations: albumentations transforms in place of ``augmentation``.
        on_bad_annotation: ``reference`` leaves out objects without area with a warning and refuses
            damaged annotations; ``refuse`` refuses both; ``skip`` leaves out both and names them in
            the run's ledger.
        train_images: The first N training images, or a list of image ids; null for all.
        val_images: The same for validation.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken image, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    LAYOUT: ClassVar[str] = """
ROOT/
  train2017/*.jpg                                    118,287 images
  val2017/*.jpg                                      5,000 images
  annotations/instances_{train2017,val2017}.json
  annotations/person_keypoints_{train2017,val2017}.json    for target keypoints
"""
    SOURCE: ClassVar[str] = (
        "python scripts/prepare_coco.py makes it from the archives of https://cocodataset.org"
    )

    def __init__(
        self,
        *,
        root: str = "data/coco",
        target: Literal["boxes", "masks", "keypoints"] = "boxes",
        train: str = "train2017",
        val: str | None = "val2017",
        test: str | None = None,
        annotations: str | None = None,
        augmentation: Literal["hflip", "ssd", "ssdlite"] | None = "hflip",
        aspect_ratio_groups: int | None = 3,
        min_keypoints: int = 10,
        keypoints: str | dict[str, Any] = "coco_person",
        labels: Literal["auto", "category_ids", "contiguous"] = "auto",
        albumentations: list[Any] | None = None,
        on_bad_annotation: Literal["reference", "refuse", "skip"] = "reference",
        train_images: int | list[int] | None = None,
        val_images: int | list[int] | None = None,
        workers: int = 4,
        on_error: Literal["refuse", "skip"] = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = 1,
    ) -> None:
        super().__init__(
            root=root,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )
        for name, value, choices in (
            ("target", target, ("boxes", "masks", "keypoints")),
            ("labels", labels, LABEL_MODES),
            ("on_bad_annotation", on_bad_annotation, ("reference", "refuse", "skip")),
        ):
            if value not in choices:
                raise unknown(name, str(value), choices)
        if aspect_ratio_groups is not None and aspect_ratio_groups < 0:
            raise ZooError(
                f"aspect_ratio_groups is {aspect_ratio_groups}; expected 0 or more, or null"
            )
        if annotations is not None and "{split}" not in annotations:
            raise ZooError(
                f"annotations is {annotations!r}; expected {{split}} in it, which the folder's "
                "name replaces"
            )
        self.target: Target = target
        self.folders: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        kind = "person_keypoints" if target == "keypoints" else "instances"
        self.annotations = annotations or f"annotations/{kind}_{{split}}.json"
        self.aspect_ratio_groups = aspect_ratio_groups
        self.min_keypoints = min_keypoints
        self.labels = labels
        self.on_bad_annotation = on_bad_annotation
        self.limits = {"train": train_images, "val": val_images, "test": None}
        self.skeleton: Skeleton | None = get_skeleton(keypoints) if target == "keypoints" else None
        order = self.skeleton.flip_order if self.skeleton else ()
        self.train_transform: Compose | Albumentations
        if albumentations is not None:
            self.train_transform = Albumentations(albumentations, order)
        else:
            self.train_transform = make_transform(augmentation, order)

    @property
    def num_keypoints(self) -> int:
        """Number of keypoints of an object; 0 where the target has none."""
        return len(self.skeleton) if self.skeleton is not None else 0

    @cached_property
    def categories(self) -> dict[int, str]:
        """Names of the file's categories by id, those of training where its file is there."""
        self.check_root()
        for split in ("train", "val", "test"):
            folder = self.folders[split]
            if folder is not None and self._annotation_file(folder).is_file():
                return read_categories(self._annotation_file(folder))
        raise self.missing(f"no {str(self._annotation_file(str(self.folders['train'])))!r}")

    @cached_property
    def category_ids(self) -> list[int | None]:
        """The file's category id of each label, for exporting; None for background and gaps."""
        ids = list(self.categories)
        coco = all(COCO_CATEGORIES.get(number) == name for number, name in self.categories.items())
        if self.labels == "contiguous" or (
            self.labels == "auto" and (not coco or self.target == "keypoints")
        ):
            return [None, *ids]
        if ids[0] < 1 or ids[-1] > LARGEST_LABEL:
            raise ZooError(
                f"labels is category_ids and the ids run from {ids[0]} to {ids[-1]}; expected 1 to "
                f"{LARGEST_LABEL}, as 0 is the background: use --data.labels contiguous"
            )
        count = COCO_LABELS if self.labels == "auto" else ids[-1] + 1
        return [number if number in self.categories else None for number in range(count)]

    @property
    def class_names(self) -> list[str]:
        """Names by label: the background first, ``N/A`` where COCO's ids have a gap."""
        names = [
            NO_CATEGORY if number is None else self.categories[number]
            for number in self.category_ids
        ]
        return [BACKGROUND, *names[1:]]

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; test and prediction take val where test is null."""
        if stage in ("test", "predict") and self.folders["test"] is None:
            return ("val",)
        return super().splits(stage)

    def make_dataset(self, split: Split) -> CocoDataset | None:
        """Return the samples of a split; None where the split was switched off.

        Raises:
            ZooError: If files are missing, or annotations are wrong and the policy refuses them.
        """
        folder = self.folders[split]
        if folder is None:
            return None
        images = self.root / folder
        index = self._read(split, images)
        chosen = self._choose(split, index)
        self._check_files(split, images, index, chosen)
        transform = self.train_transform if split == "train" else None
        return CocoDataset(split, images, index, chosen, transform)

    def _read(self, split: Split, images: Path) -> CocoIndex:
        """Return the annotations of a split, whose images are in a folder."""
        path = self._source(split)
        for there, what in ((path.is_file(), path), (images.is_dir(), images)):
            if not there:
                raise self.missing(f"no {str(what)!r} (data.{split})")
        labels = {
            number: label for label, number in enumerate(self.category_ids) if number is not None
        }
        index = read_index(
            path,
            labels=labels,
            categories=self.categories,
            target=self.target,
            num_keypoints=self.num_keypoints,
            policy=self.on_bad_annotation,
            needs_annotations=split != "test",
        )
        if index.problems:
            first = index.problems[0]
            rank_zero_warn(
                f"left out of {str(path)!r}: {summary(index.problems)}; the first is "
                f"{first.where}: {first.what}"
            )
        return index

    def make_sampler(self, dataset: ZooDataset, plan: BatchPlan) -> TrainSampler:
        """Return the order of this rank's training samples, by groups of aspect ratios."""
        if self.aspect_ratio_groups is None or not isinstance(dataset, CocoDataset):
            return super().make_sampler(dataset, plan)
        ratios = dataset.index.aspect_ratios()[dataset.images]
        return GroupedTrainSampler(
            aspect_groups(ratios, self.aspect_ratio_groups),
            plan,
            seed=self.seed,
            rank=self.rank,
            drop_last=self.drop_last,
        )

    @staticmethod
    def collate_train(samples: list[Any]) -> Any:
        """Join samples into a batch of lists."""
        return collate_lists(samples)

    @staticmethod
    def collate_eval(samples: list[Any]) -> Any:
        """Join samples into a batch of lists."""
        return collate_lists(samples)

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of drawn shapes and figures, with instances and keypoints.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of categories, with gaps in their ids.
            images: Images of each split.
            size: Longer side of an image in pixels.
            seed: Seed of the shapes.
        """
        write_fake_coco(root, classes=classes, images=images, size=size, seed=seed)

    def _annotation_file(self, folder: str) -> Path:
        return self.root / self.annotations.replace("{split}", folder)

    def _source(self, split: Split) -> Path:
        """Return where a split's annotations come from."""
        return self._annotation_file(str(self.folders[split]))

    def _prefix(self, split: Split) -> str:
        """Return what stands before the place of a problem in the ledger."""
        return f"{self._source(split).relative_to(self.root).as_posix()}: "

    def _choose(self, split: Split, index: CocoIndex) -> NDArray[np.int64]:
        """Return the positions of the images that a split yields."""
        keep = np.ones(len(index), np.bool_)
        if split == "train":
            keep &= index.has_objects()
            if self.target == "keypoints":
                keep &= index.visible_keypoints() >= self.min_keypoints
        chosen = np.flatnonzero(keep)
        limit = self.limits[split]
        if isinstance(limit, int):
            if limit < 1:
                raise ZooError(f"{split}_images is {limit}; expected at least 1, or null")
            chosen = chosen[:limit]
        elif limit is not None:
            strangers = sorted(set(limit) - set(index.image_ids[chosen].tolist()))
            if strangers:
                raise ZooError(
                    f"{split}_images names the image {strangers[0]}, which is not among the "
                    f"{len(chosen)} of the split"
                )
            chosen = chosen[np.isin(index.image_ids[chosen], limit)]
        if not len(chosen):
            raise ZooError(
                f"no image of {str(self._source(split))!r} can be used "
                f"(data.{split}): it has {len(index)} images and {len(index.ids)} annotations"
            )
        return chosen

    def _check_files(
        self, split: Split, folder: Path, index: CocoIndex, chosen: NDArray[np.int64]
    ) -> None:
        """Say at once which images are missing, unless broken ones are to be skipped."""
        if self.on_error == "skip":
            return
        present = set(os.listdir(folder))
        names = (index.names[image] for image in chosen.tolist())
        absent = [
            n for n in names if n not in present and not ("/" in n and (folder / n).is_file())
        ]
        if absent:
            raise self.missing(
                f"{len(absent)} of {len(chosen)} images are not in {str(folder)!r} (data.{split}), "
                f"the first is {absent[0]!r}; --data.on_error skip goes on without them"
            )

    def _prepare(self, dataset: ZooDataset) -> None:
        super()._prepare(dataset)
        if self.ledger is None or self.on_bad_annotation != "skip":
            return
        if isinstance(dataset, CocoDataset) and dataset.index.problems:
            prefix = self._prefix(dataset.split)
            entries = [
                {"file": f"{prefix}{p.where}", "error": p.what, "split": dataset.split}
                for p in dataset.index.problems
            ]
            ledgers.append_new(self.ledger, entries)


def aspect_groups(ratios: NDArray[np.float64], factor: int) -> NDArray[np.int64]:
    """Return the group of each width / height: the number of edges at most as large.

    The edges are 2k + 1 powers of 2 from 1/2 to 2 (only 1 for k = 0).
    """
    edges = 2 ** np.linspace(-1, 1, 2 * factor + 1) if factor else np.array([1.0])
    return np.searchsorted(edges, ratios, side="right").astype(np.int64)
