"""Findings in mask files: unreadable, of another size, with values that no class has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.data_check.looking import Look, each
from lightning_zoo.formats.index import DataIndex, Item, Problem

if TYPE_CHECKING:
    from lightning_zoo.transforms.label_maps import MaskReader

VOID = 255  # the label of pixels without a class


@dataclass(frozen=True, slots=True)
class MaskLook:
    """What is seen in one mask.

    Attributes:
        error: Why it cannot be used; there are no pixels then.
        pixels: int64 (256): pixels of each label, the last without any.
    """

    error: str = ""
    pixels: NDArray[np.int64] | None = None


def make_reader(index: DataIndex) -> MaskReader:
    """Return the reader of the masks of a data set for segmentation."""
    from lightning_zoo.transforms.label_maps import MaskReader

    coding = index.masks
    return MaskReader(
        index.classes,
        values=coding.values if coding else None,
        colors=coding.colors if coding else None,
        ignore_index=coding.ignore if coding else None,
    )


def look_at_masks(
    index: DataIndex, looks: Mapping[str, Look], *, workers: int, progress: bool
) -> dict[str, MaskLook]:
    """Return what is seen in each item's mask, by the item's file."""
    from lightning_zoo.transforms.label_maps import MaskFileError, read_label_map

    reader = make_reader(index)

    def look(item: Item) -> MaskLook:
        path = str(index.root / str(item.mask))
        seen = looks[item.file]
        size = (seen.height, seen.width)
        try:
            if seen.error:  # the mask itself may still be read
                size = read_label_map(path).shape[:2]
            labels = reader(path, size)
        except MaskFileError as error:
            return MaskLook(error=str(error).partition(": ")[2])
        return MaskLook(pixels=np.bincount(labels.ravel(), minlength=256))

    items = [item for item in index.items if item.mask is not None]
    found = each(look, items, "reading masks", workers, progress)
    return {item.file: seen for item, seen in zip(items, found, strict=True)}


def count_masks(index: DataIndex, masks: Mapping[str, MaskLook]) -> dict[str, list[int]]:
    """Return of each split how many masks show each class."""
    counts: dict[str, list[int]] = {}
    for split in index.splits:
        shown = np.zeros(len(index.classes), np.int64)
        for item in index.of(split):
            pixels = masks[item.file].pixels if item.file in masks else None
            if pixels is not None:
                shown += pixels[: len(index.classes)] > 0
        counts[split] = shown.tolist()
    return counts


def check_masks(index: DataIndex, masks: Mapping[str, MaskLook]) -> Iterator[Problem]:
    """Yield what is wrong with the masks."""
    for item in index.items:
        if item.mask is None:
            yield Problem("error", "image without a mask", item.file, "it has none",
                          "add its mask, or remove the image")  # fmt: skip
            continue
        look = masks[item.file]
        if look.pixels is None:
            yield Problem("error", "mask that cannot be used", item.mask, look.error,
                          "mend the mask; a value that is meant needs a class")  # fmt: skip
        elif look.pixels[VOID] == look.pixels.sum():
            yield Problem("warning", "empty mask", item.mask, "every pixel is ignored",
                          "label it, or remove the image")  # fmt: skip
        elif (look.pixels > 0).sum() == 1:
            name = index.classes[int(look.pixels.argmax())]
            yield Problem("note", "mask of one class", item.mask, f"every pixel is {name!r}",
                          "right, if nothing else is to be seen there")  # fmt: skip
