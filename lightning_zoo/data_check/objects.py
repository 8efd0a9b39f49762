"""Findings in objects: boxes, masks and keypoints that cannot be, or not be meant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_zoo.data_check.looking import Look
from lightning_zoo.formats.index import DataIndex, Item, Object, Problem
from lightning_zoo.transforms.masks import MaskError, check_rle, without_degenerate

Box = tuple[float, float, float, float]  # x, y, width, height in pixels

SLACK = 1.0  # pixels that rounding may put a box over the edge
MISSED = 0.5  # a mask whose own box has a smaller IoU with the object's box misses it
SAME = 0.95  # two boxes of a class with a larger IoU are one
TINY = 8.0  # pixels of the shorter side, at the size below
USUAL_SIDE, USUAL_LONGEST = 800, 1333  # what the R-CNNs and RetinaNet resize images to


def check_objects(index: DataIndex, looks: Mapping[str, Look]) -> Iterator[Problem]:
    """Yield what is wrong with the objects of detection."""
    for item in index.items:
        look = looks.get(item.file)
        seen = look is not None and not look.error
        width, height = (look.width, look.height) if look and seen else (item.width, item.height)
        sound = []
        for thing in item.objects:
            where = f"{item.file}, {thing.where}" if thing.where else item.file
            problem = _box(thing, where, width, height)
            if problem is not None:
                yield problem
            if problem is None or problem.severity != "error":
                sound.append(thing)
            if thing.segmentation is not None and width and height:
                yield from _mask(thing, where, width, height)
            if thing.keypoints is not None and width and height:
                yield from _keypoints(index, thing, where, width, height)
        yield from _same(index, item, sound)
        if width and height:
            yield from _tiny(item, sound, width, height)
        if not item.objects:
            yield Problem("note", "image without objects", item.file, "it has none",
                          "right, if nothing is to be seen there; else label it")  # fmt: skip


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes; 0 where neither has an area."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def usual_scale(width: int, height: int) -> float:
    """Return the factor that the usual detectors resize an image by."""
    return min(USUAL_SIDE / min(width, height), USUAL_LONGEST / max(width, height))


def _box(thing: Object, where: str, width: int, height: int) -> Problem | None:
    x, y, w, h = thing.box
    text = f"x {x:g}, y {y:g}, width {w:g}, height {h:g}"
    if not all(map(math.isfinite, thing.box)):
        return Problem("error", "box that is no number", where, text, "label the object again")
    if w < 0 or h < 0:
        return Problem("error", "inverted box", where, text,
                       "its corners are exchanged: give the left top one first")  # fmt: skip
    if w == 0 or h == 0:
        return Problem("error", "box without area", where, text,
                       "remove it, or label the object again")  # fmt: skip
    if not width or not height:
        return None
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return Problem("error", "box outside the image", where,
                       f"{text}, and the image has {width} x {height}",
                       "remove it; if there are many, are they in the pixels of another size, or "
                       "from 0 to 1?")  # fmt: skip
    over = {"left": -x, "top": -y, "right": x + w - width, "bottom": y + h - height}
    far = [f"{by:.4g} px at the {side}" for side, by in over.items() if by > SLACK]
    if not far:
        return None
    return Problem("warning", "box over the edge of the image", where,
                   f"{text}: {', '.join(far)} of {width} x {height}",
                   "training cuts it off at the edge; if that is wrong, label anew")  # fmt: skip


def mask_box(segmentation: Any, width: int, height: int) -> tuple[Box, float]:
    """Return the box around a mask and its area in pixels, (0, 0, 0, 0) of an empty one.

    Polygons are taken as they are written, their area without what they share.

    Raises:
        MaskError: If the run lengths are damaged.
    """
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco_mask

        rle = {"size": [height, width], "counts": check_rle(segmentation, height, width)}
        x, y, w, h = (float(v) for v in coco_mask.toBbox(rle))
        return (x, y, w, h), float(coco_mask.area(rle))
    polygons = [p for p in without_degenerate(segmentation) if len(p) % 2 == 0]
    area = 0.0
    for p in polygons:
        corners = list(zip(p[::2], p[1::2], strict=True))
        following = [*corners[1:], corners[0]]
        area += abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, following, strict=True)))
    if not area:
        return (0.0, 0.0, 0.0, 0.0), 0.0
    xs, ys = [x for p in polygons for x in p[::2]], [y for p in polygons for y in p[1::2]]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)), area / 2


def _mask(thing: Object, where: str, width: int, height: int) -> Iterator[Problem]:
    try:
        around, area = mask_box(thing.segmentation, width, height)
    except MaskError as error:
        yield Problem("error", "damaged mask", where, str(error), "write its run lengths again")
        return
    if not area:
        yield Problem("error", "empty mask", where, "no pixel is in it",
                      "draw it again, or remove the object")  # fmt: skip
        return
    overlap = iou(around, thing.box)
    if overlap < MISSED:
        x, y, w, h = around
        bx, by, bw, bh = thing.box
        yield Problem("warning", "mask that misses its box", where,
                      f"the mask spans x {x:g}, y {y:g}, {w:g} x {h:g}, the box x {bx:g}, "
                      f"y {by:g}, {bw:g} x {bh:g}: IoU {overlap:.2f}",
                      "one of the two belongs to another object, or to another size")  # fmt: skip


def _keypoints(
    index: DataIndex, thing: Object, where: str, width: int, height: int
) -> Iterator[Problem]:
    points = thing.keypoints or ()
    outside = []
    for place, (x, y, seen) in enumerate(zip(points[::3], points[1::3], points[2::3], strict=True)):
        if seen > 0 and not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK):
            name = index.keypoints[place] if place < len(index.keypoints) else str(place)
            outside.append(f"{name} at ({x:g}, {y:g})")
    if outside:
        yield Problem("warning", "keypoint outside the image", where,
                      f"{', '.join(outside)} of {width} x {height}",
                      "mark it as not labelled (visibility 0), or move it")  # fmt: skip


def _same(index: DataIndex, item: Item, things: list[Object]) -> Iterator[Problem]:
    """Yield boxes that are there twice."""
    by_label: dict[int, list[Object]] = {}
    for thing in things:
        if not thing.crowd:
            by_label.setdefault(thing.label, []).append(thing)
    for label, group in by_label.items():
        group.sort(key=lambda thing: thing.box[0])
        for place, a in enumerate(group):
            for b in group[place + 1 :]:
                # boxes that begin further to the right cannot reach the IoU
                if b.box[0] > a.box[0] + (1 - SAME) * a.box[2]:
                    break
                if (overlap := iou(a.box, b.box)) > SAME:
                    both = " and ".join(filter(None, (a.where, b.where)))
                    yield Problem("warning", "object labelled twice",
                                  f"{item.file}, {both}" if both else item.file,
                                  f"two boxes of {index.classes[label]!r} with IoU {overlap:.2f}",
                                  "remove one of them")  # fmt: skip


def _tiny(item: Item, things: list[Object], width: int, height: int) -> Iterator[Problem]:
    factor = usual_scale(width, height)
    tiny = [t for t in things if not t.crowd and min(t.box[2:]) * factor < TINY]
    if tiny:
        least = min(tiny, key=lambda t: min(t.box[2:]))
        yield Problem("note", "tiny object", item.file,
                      f"{len(tiny)} of {len(things)} objects are below {TINY:g} px at the usual "
                      f"size of {width * factor:.0f} x {height * factor:.0f}, the smallest has "
                      f"{least.box[2]:g} x {least.box[3]:g} in the file",
                      "cut large images into tiles, train at a larger size, or leave such objects "
                      "out")  # fmt: skip
