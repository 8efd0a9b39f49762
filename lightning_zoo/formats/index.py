"""What is known of one's own data, whatever format it came in: one index behind all of them.

A reader fills it, ``data check`` looks at it, data modules train from it, writers turn it into
another format. Nothing here imports torch or reads a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

TaskName = Literal["classification", "detection", "segmentation", "video"]
SplitName = Literal["train", "val", "test"]
Severity = Literal["error", "warning", "note"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data.

    Attributes:
        severity: ``error`` cannot be trained on or is lost, ``warning`` will cost accuracy,
            ``note`` is good to know.
        kind: What kind of problem, the same words for the same kind: ``box outside the image``.
        where: File or files relative to the root, with line or number of the annotation.
        what: What is there, with its values.
        fix: What to do about it.
    """

    severity: Severity
    kind: str
    where: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Object:
    """One annotated object, as its file has it: boxes may be outside or empty, `check` says so.

    Attributes:
        label: Place of its class in :attr:`DataIndex.classes`.
        box: ``x, y, width, height`` in pixels, continuous: the first pixel runs from 0 to 1.
        segmentation: Polygons ``[[x1, y1, x2, y2, ...], ...]`` in pixels, COCO's run lengths
            ``{"size": [h, w], "counts": ...}``, or None.
        keypoints: ``x, y, visibility`` (0, 1, 2) of each keypoint in a row, or None.
        crowd: Whether it stands for many objects.
        where: Which annotation it is, for texts: ``line 3``, ``object 2``, ``annotation 17``.
        area: Area in pixels where the file states it.
    """

    label: int
    box: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: tuple[float, ...] | None = None
    crowd: bool = False
    where: str = ""
    area: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One image or video with its labels.

    Attributes:
        file: Its file relative to the root, with forward slashes.
        split: The split it belongs to.
        width: Width in pixels as the annotations state it; 0 where they do not.
        height: Height, likewise.
        labels: Of classification and video: places of its classes in :attr:`DataIndex.classes`.
        objects: Of detection: its objects.
        mask: Of segmentation: the mask's file relative to the root.
        source: The annotation file relative to the root; empty where the folder is the label.
        number: COCO's image id where the format has one.
    """

    file: str
    split: SplitName
    width: int = 0
    height: int = 0
    labels: tuple[int, ...] = ()
    objects: tuple[Object, ...] = ()
    mask: str | None = None
    source: str = ""
    number: int | None = None


@dataclass(frozen=True, slots=True)
class MaskCoding:
    """How the pixels of masks name classes.

    Attributes:
        values: Value of each class in grey or palette masks (name to value or values); None: a
            pixel's value is the label.
        colors: Colour of each class in RGB masks; None for masks of values.
        ignore: Value that is no class, 255 for instance.
    """

    values: dict[str, int | list[int]] | None = None
    colors: dict[str, list[int]] | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class DataIndex:
    """A data set of one's own.

    Attributes:
        root: Its folder.
        format: Name of the format, a key of :data:`lightning_zoo.formats.FORMATS`.
        task: What can be learned from it.
        classes: Names of the classes, without a background (but of segmentation, where the
            background is a class like the others).
        items: Images or videos, in the order of split and name.
        decisions: Sentences that say what was decided and why, for people.
        problems: What reading the annotations brought up.
        multilabel: Of classification: whether an image may have several labels, or none.
        keypoints: Names of an object's keypoints, where there are some.
        flip_pairs: Keypoints that change places in a mirror image, as pairs of places.
        bones: Keypoints that are joined in a drawing, as pairs of places.
        masks: Of segmentation: what the masks' pixels mean.
        category_ids: Of COCO's format: the file's id of each class.
        unlabelled: Images that lie in the folders and have no annotation, relative to the root.
    """

    root: Path
    format: str
    task: TaskName
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    decisions: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    multilabel: bool = False
    keypoints: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    bones: tuple[tuple[int, int], ...] = ()
    masks: MaskCoding | None = None
    category_ids: tuple[int, ...] = ()
    unlabelled: tuple[str, ...] = ()
    _by_split: dict[str, tuple[Item, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that have items."""
        return tuple(split for split in SPLITS if self.of(split))

    @property
    def target(self) -> Literal["boxes", "masks", "keypoints"]:
        """Of detection: the most that all of its objects have."""
        objects = [o for item in self.items for o in item.objects if not o.crowd]
        if self.keypoints and any(o.keypoints is not None for o in objects):
            return "keypoints"
        if objects and all(o.segmentation for o in objects):
            return "masks"
        return "boxes"

    def of(self, split: str) -> tuple[Item, ...]:
        """Return the items of a split."""
        if split not in self._by_split:
            self._by_split[split] = tuple(i for i in self.items if i.split == split)
        return self._by_split[split]

    def count(self, split: str | None = None) -> list[int]:
        """Return how often each class occurs in a split, or in all: objects, images or videos.

        Crowds do not count; of segmentation it is all 0, as the masks are not read.
        """
        counts: Counter[int] = Counter()
        for item in self.items if split is None else self.of(split):
            counts.update(item.labels)
            counts.update(o.label for o in item.objects if not o.crowd)
        return [counts[label] for label in range(len(self.classes))]

    def with_items(self, items: Sequence[Item], *decisions: str) -> DataIndex:
        """Return the index with other items, and with sentences that say why."""
        return replace(self, items=tuple(items), decisions=(*self.decisions, *decisions))
