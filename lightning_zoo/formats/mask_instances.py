"""Objects from masks of classes: each connected patch of a class is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lightning_zoo.errors import ZooError
from lightning_zoo.formats.images import image_size
from lightning_zoo.formats.index import DataIndex, Item, MaskCoding, Object
from lightning_zoo.transforms.label_maps import MaskReader
from lightning_zoo.transforms.masks import compress

_BACKGROUND = ("background", "bg", "void", "unlabeled", "unlabelled", "ignore")


def objects_of_masks(index: DataIndex) -> DataIndex:
    """Return the data of a segmentation as objects with masks; the background is none.

    Raises:
        ZooError: If a mask cannot be read, or there is no class but the background.
    """
    coding = index.masks or MaskCoding()
    reader = MaskReader(
        index.classes, values=coding.values, colors=coding.colors, ignore_index=coding.ignore
    )
    kept = [
        i for i, name in enumerate(index.classes) if name.strip("_ ").lower() not in _BACKGROUND
    ]
    if not kept:
        raise ZooError(
            f"{str(index.root)!r} has no class but {', '.join(index.classes)}; there are no "
            "objects in its masks"
        )
    items = [_with_objects(index, item, reader, kept) for item in index.items]
    classes = tuple(index.classes[label] for label in kept)
    objects = replace(index, task="detection", classes=classes, masks=None)
    return objects.with_items(
        items, "each connected patch of a class is an object; objects that touch become one"
    )


def _with_objects(index: DataIndex, item: Item, reader: MaskReader, kept: list[int]) -> Item:
    import cv2

    width, height = image_size(index.root / item.file)
    objects: list[Object] = []
    if item.mask is not None:
        labels = reader(str(index.root / item.mask), (height, width))
        for place, label in enumerate(kept):
            patches = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
            for number in range(1, patches[0]):  # 0 is what is not of the class
                x, y, w, h, area = (int(n) for n in patches[2][number])
                flat = (patches[1] == number).T.ravel()  # COCO's run lengths go down the columns
                ends = np.flatnonzero(np.diff(np.concatenate(([False], flat)))).tolist()
                starts, ends = [0, *ends], [*ends, len(flat)]
                runs = [b - a for a, b in zip(starts, ends, strict=True)]
                rle = {"size": [height, width], "counts": compress(runs).decode("ascii")}
                objects.append(Object(
                    place, (x, y, w, h), segmentation=rle, area=area, where=f"patch {number}"
                ))  # fmt: skip
    return replace(
        item, width=width, height=height, objects=tuple(objects), source=item.mask or "", mask=None
    )
