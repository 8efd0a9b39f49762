"""What the settings of a fine-tuning run are chosen from: sizes of images and of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.formats import DataIndex, Item
from lightning_zoo.formats.images import image_size

SAMPLED = 200  # images whose headers are read where the annotations do not tell their sizes


@dataclass(frozen=True)
class Statistics:
    """Sizes of the training data.

    Attributes:
        images: Number of training images or videos.
        short: Median of the images' shorter sides in pixels; 0 where no size is known.
        ratio: Longer over shorter side of the image that 95 % of all are less elongated than.
        boxes: float64 (M, 2), width and height of each object as shares of its image's shorter
            side; crowds and boxes without area are left out.
    """

    images: int
    short: int
    ratio: float
    boxes: NDArray[np.float64]


def measure(index: DataIndex) -> Statistics:
    """Return the sizes of the training split; headers of some files are read where needed."""
    items = index.of("train")
    sizes = {item.file: (item.width, item.height) for item in items if item.width and item.height}
    if not sizes and index.task != "video":
        step = max(1, len(items) // SAMPLED)
        sizes = {item.file: size for item in items[::step] if (size := _header(index, item))}
    sides = np.array([sorted(size) for size in sizes.values()], np.float64).reshape(-1, 2)
    boxes = [
        (o.box[2] / min(sizes[item.file]), o.box[3] / min(sizes[item.file]))
        for item in items
        if item.file in sizes
        for o in item.objects
        if not o.crowd and o.box[2] > 0 and o.box[3] > 0
    ]
    known = len(sides) > 0
    return Statistics(
        images=len(items),
        short=int(np.median(sides[:, 0])) if known else 0,
        ratio=float(np.quantile(sides[:, 1] / sides[:, 0], 0.95)) if known else 1.0,
        boxes=np.array(boxes, np.float64).reshape(-1, 2),
    )


def _header(index: DataIndex, item: Item) -> tuple[int, int] | None:
    try:
        return image_size(index.root / item.file)
    except (OSError, ValueError):  # `data check` names it, and so does training
        return None


def anchor_recall(
    boxes: NDArray[np.float64], sizes: Sequence[float], ratios: Sequence[float]
) -> float:
    """Return the share of boxes that overlap an anchor of the same centre by half (IoU).

    Args:
        boxes: float64 (M, 2), widths and heights in pixels.
        sizes: Square roots of the anchors' areas in pixels.
        ratios: Heights over widths of the anchors.
    """
    if not len(boxes):
        return 1.0
    root = np.sqrt(np.asarray(ratios, np.float64))
    size = np.asarray(sizes, np.float64)[:, None]
    anchors = np.stack([size / root, size * root], axis=-1).reshape(-1, 2)
    shared = np.minimum(boxes[:, None], anchors[None]).prod(axis=-1)
    union = boxes.prod(axis=-1)[:, None] + anchors.prod(axis=-1)[None] - shared
    return float(((shared / union).max(axis=1) >= 0.5).mean())


def anchor_sizes(boxes: NDArray[np.float64], count: int) -> list[int]:
    """Return ``count`` anchor sizes in pixels in equal ratios, from small objects to large ones."""
    sides = np.sqrt(boxes.prod(axis=1))
    low, high = np.quantile(sides, [0.05, 0.95])
    low = max(low, 8.0)  # what is smaller has no feature of its own
    high = max(high, low * 1.5)
    return [round(float(size)) for size in np.geomspace(low, high, count)]
