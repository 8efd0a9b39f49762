"""Writing objects as COCO or YOLO: the images, copied or linked, and their annotations.

Everything is written beside the place where it belongs and moved there at the end, so that a
conversion that is cut off leaves nothing half-written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lightning_zoo.batch import counted
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.formats.images import image_size
from lightning_zoo.formats.index import DataIndex, Item, Object
from lightning_zoo.formats.mask_instances import objects_of_masks
from lightning_zoo.transforms.masks import Masks, pack, rle_area, to_rle

WRITERS = ("coco", "yolo")
_FINE = 4  # parts that a pixel's side is cut into before its outline is drawn


def convert(index: DataIndex, out: str | Path, to: str = "coco", *, link: bool = False) -> Path:
    """Write objects in another format, and return the folder.

    COCO: ``<split>/*.jpg`` and ``annotations/instances_<split>.json``, or ``person_keypoints_``
    where there are keypoints. YOLO: ``images/<split>``, ``labels/<split>`` and ``data.yaml``; see
    :func:`what_is_lost`. Masks of classes are taken apart into their connected patches.

    Args:
        index: The data.
        out: Folder to write; it may be there if it is empty.
        to: ``coco`` or ``yolo``.
        link: Link the images instead of copying them.

    Raises:
        ZooError: If the data has no objects, the folder is not empty, or a file cannot be written.
    """
    if to not in WRITERS:
        raise unknown("format to convert to", to, WRITERS)
    if index.task not in ("detection", "segmentation"):
        raise ZooError(
            f"{str(index.root)!r} holds data for {index.task} ({index.format}), which {to} has no "
            "place for; expected objects (coco, yolo or voc), or masks of classes"
        )
    if not index.items:
        raise ZooError(f"{str(index.root)!r} has no image that could be converted")
    out = Path(out).expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ZooError(f"{str(out)!r} is there and not empty; name a folder that is new or empty")
    if index.task == "segmentation":
        index = objects_of_masks(index)
    beside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        beside.mkdir(parents=True)
        write_coco(index, beside, link) if to == "coco" else write_yolo(index, beside, link)
        if out.exists():
            out.rmdir()
        beside.rename(out)
    except OSError as error:
        where = error.filename or str(out)
        raise ZooError(f"cannot write {str(out)!r}: {error.strerror} ({where!r})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def what_is_lost(index: DataIndex, to: str) -> tuple[str, ...]:
    """Return sentences on what the format has no place for."""
    if index.task == "segmentation":
        return ("which objects touch: each connected patch of a class is one; the background",)
    if to != "yolo":
        return ()
    objects = [o for item in index.items for o in item.objects]
    crowds = sum(o.crowd for o in objects)
    lost = [f"{counted(crowds, 'crowd')} are left out"] if crowds else []
    drawn = [o for o in objects if o.segmentation is not None and not o.crowd]
    if index.target == "masks":
        runs = sum(isinstance(o.segmentation, dict) for o in drawn)
        parts = sum(isinstance(o.segmentation, list) and len(o.segmentation) > 1 for o in drawn)
        if runs:
            lost.append(f"{counted(runs, 'mask')} become outlines; their holes are filled")
        if parts:
            lost.append(f"{counted(parts, 'object')} of several parts are joined by thin bridges")
    elif drawn:
        lost.append(f"{counted(len(drawn), 'mask')} are left out, as not all objects have one, or "
                    "there are keypoints")  # fmt: skip
    return tuple(lost)


def write_coco(index: DataIndex, out: Path, link: bool) -> None:
    """Write a data set in COCO's layout into a folder that is there."""
    ids = index.category_ids or tuple(range(1, len(index.classes) + 1))
    categories: list[dict[str, Any]] = [
        {"id": number, "name": name} for number, name in zip(ids, index.classes, strict=True)
    ]
    if index.keypoints:
        every = (o for item in index.items for o in item.objects)
        for label in {o.label for o in every if o.keypoints is not None}:
            categories[label]["keypoints"] = [*index.keypoints]
            categories[label]["skeleton"] = [[a + 1, b + 1] for a, b in index.bones]
            # COCO has no such key: elsewhere pairs follow from names with left and right
            categories[label]["flip_pairs"] = [[a + 1, b + 1] for a, b in index.flip_pairs]
    kind = "person_keypoints" if index.keypoints else "instances"
    (out / "annotations").mkdir()
    own = [item.number for item in index.items]
    numbered = None not in own and len({*own}) == len(own)
    places = {item.file: number for number, item in enumerate(index.items, start=1)}
    for split in index.splits:
        (out / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        items = index.of(split)
        for item, name in zip(items, new_names(items), strict=True):
            width, height = _size(index, item)
            number = item.number if numbered else places[item.file]
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for o in item.objects:
                record = {"id": len(annotations) + 1, "image_id": number,
                          "category_id": ids[o.label], **_record(o, height, width)}  # fmt: skip
                annotations.append(record)
            _place(index.root / item.file, out / split / name, link)
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = out / "annotations" / f"{kind}_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_yolo(index: DataIndex, out: Path, link: bool) -> None:
    """Write a data set in YOLO's layout into a folder that is there."""
    content: dict[str, Any] = {split: f"images/{split}" for split in index.splits}
    content |= {"nc": len(index.classes), "names": [*index.classes]}
    if index.keypoints:
        order = list(range(len(index.keypoints)))
        for a, b in index.flip_pairs:
            order[a], order[b] = b, a
        content |= {"kpt_shape": [len(order), 3], "flip_idx": order,
                    "kpt_names": {0: [*index.keypoints]}}  # fmt: skip
    with_masks = index.target == "masks"
    for split in index.splits:
        (out / "images" / split).mkdir(parents=True)
        (out / "labels" / split).mkdir(parents=True)
        items = index.of(split)
        for item, name in zip(items, new_names(items), strict=True):
            _place(index.root / item.file, out / "images" / split / name, link)
            if not item.objects and item.file in index.unlabelled:
                continue
            width, height = _size(index, item)
            lines = [
                " ".join([str(o.label), *(f"{v:.10f}".rstrip("0").rstrip(".") for v in values)])
                for o in item.objects
                if (values := _shares(o, height, width, with_masks, len(index.keypoints)))
            ]
            labels = out / "labels" / split / f"{Path(name).stem}.txt"
            labels.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (out / "data.yaml").write_text(text, encoding="utf-8")


def new_names(items: tuple[Item, ...]) -> list[str]:
    """Return a name without folders for each item's file, of a stem that no other has."""
    by_stem: dict[str, int] = defaultdict(int)
    for item in items:
        by_stem[Path(item.file).stem.lower()] += 1
    names: list[str] = []
    taken: set[str] = set()
    for item in items:
        path = Path(item.file)
        name = path.name if by_stem[path.stem.lower()] == 1 else item.file.replace("/", "_")
        stem, suffix = Path(name).stem, Path(name).suffix
        number = 1
        while Path(name).stem.lower() in taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        taken.add(Path(name).stem.lower())
        names.append(name)
    return names


def _record(o: Object, height: int, width: int) -> dict[str, Any]:
    """Return what COCO writes of an object beside its ids."""
    record: dict[str, Any] = {"bbox": [*o.box], "iscrowd": int(o.crowd)}
    area = o.area
    if o.segmentation is not None:
        record["segmentation"] = o.segmentation
        if area is None:
            area = float(rle_area(to_rle(pack(o.segmentation, height, width), height, width)))
    record["area"] = o.box[2] * o.box[3] if area is None else area
    if o.keypoints is not None:
        record["keypoints"] = [*o.keypoints]
        record["num_keypoints"] = sum(v > 0 for v in o.keypoints[2::3])
    return record


def _shares(
    o: Object, height: int, width: int, with_masks: bool, num_keypoints: int
) -> list[float]:
    """Return the numbers of an object's line; none where YOLO has no place for it.

    YOLO's own readers refuse an image with a value outside of 0 to 1, so objects are cut off.
    """
    if o.crowd:
        return []
    if with_masks and o.segmentation is not None:
        outline = one_outline(o.segmentation, height, width)
        if len(outline) < 3:
            return []
        scaled = outline / (width, height)
        return [float(v) for v in scaled.clip(0, 1).ravel()]
    x, y, w, h = o.box
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
    if x1 <= x0 or y1 <= y0:
        return []
    values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    if num_keypoints:
        points = o.keypoints or (0.0,) * (3 * num_keypoints)
        for px, py, seen in zip(points[0::3], points[1::3], points[2::3], strict=True):
            inside = 0 <= px <= width and 0 <= py <= height and seen > 0
            values += [px / width, py / height, seen] if inside else [0.0, 0.0, 0.0]
    return values


def one_outline(segmentation: Any, height: int, width: int) -> NDArray[np.float64]:
    """Return a segmentation as one outline (P, 2) of x, y in pixels.

    Run lengths are drawn at four times the size, so that the outline runs along the pixels' edges
    to about half a pixel; holes are filled. Parts are joined where they are closest.
    """
    if isinstance(segmentation, dict):
        parts = _contours(segmentation, height, width)
    else:
        parts = [np.array(p, np.float64).reshape(-1, 2) for p in segmentation if len(p) >= 6]
    if not parts:
        return np.zeros((0, 2))
    parts.sort(key=len, reverse=True)
    joined = parts[0]
    for part in parts[1:]:
        far = ((joined[:, None] - part[None]) ** 2).sum(axis=2)
        a, b = np.unravel_index(int(far.argmin()), far.shape)
        # there over the bridge, around the part, and back
        around = np.concatenate((part[b:], part[: b + 1]))
        joined = np.concatenate((joined[: a + 1], around, joined[a:]))
    return joined


def _contours(rle: dict[str, Any], height: int, width: int) -> list[NDArray[np.float64]]:
    import cv2

    (mask,) = Masks([pack(rle, height, width)], height, width).decode()
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    small = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    large = small.repeat(_FINE, axis=0).repeat(_FINE, axis=1)
    found, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = [cv2.approxPolyDP(c, _FINE / 2, True) for c in found]
    # OpenCV gives the pixels on the edge; their centres are half a fine pixel within
    return [(c.reshape(-1, 2) + 0.5) / _FINE + (left, top) for c in found if len(c) >= 3]


def _size(index: DataIndex, item: Item) -> tuple[int, int]:
    if item.width and item.height:
        return item.width, item.height
    return image_size(index.root / item.file)


def _place(source: Path, target: Path, link: bool) -> None:
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)
