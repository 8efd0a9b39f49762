"""The figures of a data set: how many, how large, how balanced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from lightning_zoo.data_check.classes import UNITS, Counts, balance
from lightning_zoo.data_check.looking import Look
from lightning_zoo.data_check.objects import TINY, usual_scale
from lightning_zoo.data_check.videos import VideoLook
from lightning_zoo.formats.index import DataIndex

SMALL, LARGE = 32.0, 96.0  # COCO's bounds: the square root of an object's area in pixels


def summarise(
    index: DataIndex,
    counts: Counts,
    looks: Mapping[str, Look],
    videos: Mapping[str, VideoLook],
) -> dict[str, Any]:
    """Return the figures, all of them numbers, texts, lists and dictionaries.

    Args:
        index: The data.
        counts: Of each split, how often each class occurs.
        looks: What was seen in the files; empty where they were not read.
        videos: Likewise for videos.
    """
    sizes = []
    for item in index.items:
        look = looks.get(item.file)
        if look is not None and not look.error:
            sizes.append((look.width, look.height))
        elif item.width and item.height:
            sizes.append((item.width, item.height))
    summary: dict[str, Any] = {
        "format": index.format,
        "task": index.task,
        "classes": list(index.classes),
        "counted": f"{UNITS[index.task]}s",
        "splits": {split: _split(index, split, counts[split]) for split in index.splits},
        "balance": balance([sum(column) for column in zip(*counts.values(), strict=True)]),
        "width": spread(w for w, _ in sizes),
        "height": spread(h for _, h in sizes),
        "aspect_ratio": spread(round(w / h, 3) for w, h in sizes),
    }
    if index.task == "detection":
        summary["target"] = index.target
        summary["objects_per_image"] = spread(len(i.objects) for i in index.items)
        summary["box_side"] = _boxes(index, looks)
    if videos:
        sound = [video for video in videos.values() if not video.look.error]
        summary["frames"] = spread(video.frames for video in sound)
        summary["seconds"] = spread(round(video.seconds, 2) for video in sound)
    return summary


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Return least, median and most of some numbers, None where there are none."""
    listed = sorted(values)
    if not listed:
        return None
    return {"min": listed[0], "median": median(listed), "max": listed[-1]}


def _split(index: DataIndex, split: str, counts: list[int]) -> dict[str, Any]:
    items = index.of(split)
    found: dict[str, Any] = {"items": len(items)}
    if index.task == "detection":
        found["objects"] = sum(counts)
        found["crowds"] = sum(o.crowd for item in items for o in item.objects)
        found["without_objects"] = sum(not item.objects for item in items)
    found["classes"] = dict(zip(index.classes, counts, strict=True))
    return found


def _boxes(index: DataIndex, looks: Mapping[str, Look]) -> dict[str, Any] | None:
    """Return the sides of the boxes (root of the area, pixels), and shares of small ones."""
    sides, tiny = [], 0
    for item in index.items:
        look = looks.get(item.file)
        seen = look is not None and not look.error
        width, height = (look.width, look.height) if look and seen else (item.width, item.height)
        factor = usual_scale(width, height) if width and height else 1.0
        for one in item.objects:
            w, h = one.box[2:]
            if one.crowd or not (w > 0 and h > 0):
                continue
            sides.append((w * h) ** 0.5)
            tiny += min(w, h) * factor < TINY
    found: dict[str, Any] | None = spread(round(side, 1) for side in sides)
    if found is not None:
        found["small"] = round(sum(side < SMALL for side in sides) / len(sides), 4)
        found["large"] = round(sum(side >= LARGE for side in sides) / len(sides), 4)
        found["tiny"] = round(tiny / len(sides), 4)
    return found
