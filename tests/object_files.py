"""The same few images with boxes, written by hand in each format of objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")
Box = tuple[int, int, int, int]


class Scene(NamedTuple):
    """An image: split, stem of its file, pixels uint8 (H, W, 3), class and x y w h of objects."""

    split: str
    stem: str
    pixels: Any
    objects: list[tuple[int, Box]]


def scenes(train: int = 6, val: int = 3, *, seed: int = 0) -> list[Scene]:
    """Return images with coloured boxes; the second of each split has no object."""
    rng = np.random.default_rng(seed)
    found = []
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            height, width = (48, 64) if i % 2 else (64, 56)
            pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
            objects = []
            for column in range(2 if i != 1 else 0):
                label = int(rng.integers(3)) if i else column + 1
                x, y = 28 * column + int(rng.integers(0, 8)), int(rng.integers(0, 20))
                w, h = int(rng.integers(10, 20)), int(rng.integers(12, 26))
                pixels[y : y + h, x : x + w] = 120 + 60 * np.eye(3, dtype=np.uint8)[label]
                objects.append((label, (x, y, w, h)))
            found.append(Scene(split, f"{split}_{i}", pixels, objects))
    found[0].objects.append((0, (2, 40, 9, 9)))  # so that every class is there
    return found


def write_image(path: Path, pixels: Any) -> None:
    """Write uint8 (H, W, 3) without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_coco(root: Path, data: list[Scene]) -> Path:
    """Write ``<split>/*.png`` and ``annotations/instances_<split>.json``."""
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": 10 + i, "name": name} for i, name in enumerate(CLASSES)]
    for split in dict.fromkeys(scene.split for scene in data):
        images, annotations = [], []
        for number, scene in enumerate(data, start=1):
            if scene.split != split:
                continue
            write_image(root / split / f"{scene.stem}.png", scene.pixels)
            height, width = scene.pixels.shape[:2]
            images.append({"id": number, "file_name": f"{scene.stem}.png", "height": height,
                           "width": width})  # fmt: skip
            annotations += [
                {"id": 100 * number + k, "image_id": number, "category_id": 10 + label,
                 "bbox": [*box], "area": box[2] * box[3], "iscrowd": 0}
                for k, (label, box) in enumerate(scene.objects)
            ]  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_yolo(root: Path, data: list[Scene]) -> Path:
    """Write ``images/<split>``, ``labels/<split>`` and ``data.yaml``."""
    for scene in data:
        write_image(root / "images" / scene.split / f"{scene.stem}.png", scene.pixels)
        height, width = scene.pixels.shape[:2]
        lines = [
            f"{label} {(x + w / 2) / width!r} {(y + h / 2) / height!r} {w / width!r} {h / height!r}"
            for label, (x, y, w, h) in scene.objects
        ]
        path = root / "labels" / scene.split / f"{scene.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    splits = "".join(f"{s}: images/{s}\n" for s in dict.fromkeys(scene.split for scene in data))
    names = ", ".join(CLASSES)
    (root / "data.yaml").write_text(f"{splits}nc: {len(CLASSES)}\nnames: [{names}]\n")
    return root


def write_voc(root: Path, data: list[Scene]) -> Path:
    """Write ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``."""
    sets = root / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (root / "Annotations").mkdir()
    for scene in data:
        write_image(root / "JPEGImages" / f"{scene.stem}.png", scene.pixels)
        height, width = scene.pixels.shape[:2]
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}"
            f"</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for label, (x, y, w, h) in scene.objects
        )
        (root / "Annotations" / f"{scene.stem}.xml").write_text(
            f"<annotation><filename>{scene.stem}.png</filename><size><width>{width}</width>"
            f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
        )
        with open(sets / f"{scene.split}.txt", "a") as file:
            file.write(f"{scene.stem}\n")
    return root


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}
