"""Scenes of several objects, made on the spot: data for the detection and segmentation demos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as rle_tools

from lightning_zoo.engine.shapes import shape_polygon

CLASSES = ("circle", "cross", "star", "triangle")
KITE = ("tip", "left_wing", "right_wing", "tail")
KITE_BONES = (("tip", "left_wing"), ("tip", "right_wing"), ("left_wing", "tail"),
              ("right_wing", "tail"), ("tip", "tail"))  # fmt: skip

Point = tuple[float, float]


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene: its class, its outline and its keypoints, in pixels."""

    label: str
    outline: list[Point]
    keypoints: list[Point]


def _shape(rng: np.random.Generator, x: float, y: float, radius: float) -> SceneObject:
    name = CLASSES[int(rng.integers(len(CLASSES)))]
    angle = rng.uniform(-0.5, 0.5) - np.pi / 2
    return SceneObject(name, shape_polygon(name, x, y, radius, angle), [])


def _kite(rng: np.random.Generator, x: float, y: float, radius: float) -> SceneObject:
    """Return a kite, whose left is the left of somebody who looks towards its tip."""
    angle = rng.uniform(-0.9, 0.9) - np.pi / 2  # its tip points up, more or less
    forward = np.array([np.cos(angle), np.sin(angle)])
    right = np.array([-forward[1], forward[0]])
    centre, width = np.array([x, y]), rng.uniform(0.55, 0.75)
    shoulder = centre + 0.3 * radius * forward
    points = [
        centre + radius * forward,
        shoulder - width * radius * right,
        shoulder + width * radius * right,
        centre - radius * forward,
    ]
    tip, left, right_wing, tail = ((float(p[0]), float(p[1])) for p in points)
    return SceneObject("kite", [tip, right_wing, tail, left], [tip, left, right_wing, tail])


def draw_scene(
    rng: np.random.Generator, side: int, *, kites: bool
) -> tuple[Image.Image, list[SceneObject], list[NDArray[np.uint8]]]:
    """Return a picture ``side`` pixels wide, its objects, and the visible mask of each.

    One to four objects stand on a dark, noisy ground; those drawn later hide parts of the others.
    """
    big = 2 * side  # drawn larger and halved, for smooth edges
    image = Image.new("RGB", (big, big), tuple(int(v) for v in rng.integers(0, 90, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):  # lines that belong to no object
        x0, y0, x1, y1 = (int(v) for v in rng.integers(0, big, 4))
        draw.line((x0, y0, x1, y1), fill=tuple(int(v) for v in rng.integers(60, 160, 3)), width=2)
    objects: list[SceneObject] = []
    masks: list[NDArray[np.uint8]] = []
    centres: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(1, 5))):
        radius = float(rng.uniform(0.11, 0.24)) * side
        x, y = (float(v) for v in rng.uniform(radius, side - radius, 2))
        if any(np.hypot(x - a, y - b) < 0.75 * (radius + r) for a, b, r in centres):
            continue  # too much of the other would be hidden
        made = (_kite if kites else _shape)(rng, x, y, radius)
        draw.polygon(
            [(2 * a, 2 * b) for a, b in made.outline],
            fill=tuple(int(v) for v in rng.integers(140, 256, 3)),
        )
        if kites:  # the spine, and a dot on the tip
            tip, _, _, tail = made.keypoints
            draw.line(
                [tuple(2 * v for v in tip), tuple(2 * v for v in tail)], fill=(0, 0, 0), width=3
            )
            a, b = (2 * v for v in tip)
            draw.ellipse((a - 5, b - 5, a + 5, b + 5), fill=(255, 40, 40))
        plate = Image.new("L", (big, big))
        ImageDraw.Draw(plate).polygon([(2 * a, 2 * b) for a, b in made.outline], fill=255)
        mask = (np.asarray(plate.resize((side, side), Image.Resampling.BOX)) > 127).astype(np.uint8)
        for other in masks:
            other[mask > 0] = 0
        objects.append(made)
        masks.append(mask)
        centres.append((x, y, radius))
    image = image.resize((side, side), Image.Resampling.BOX)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(0.6))
    noise = rng.normal(0, rng.uniform(2, 6), (side, side, 3))
    return (
        Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)),
        objects,
        masks,
    )


def write_scenes(
    root: Path, *, train: int, val: int, side: int = 128, kites: bool = False, seed: int = 0
) -> None:
    """Write scenes as ``train2017/``, ``val2017/`` and ``annotations/``.

    Args:
        root: Folder to fill.
        train: Training pictures.
        val: Validation pictures.
        side: Width and height of a picture in pixels.
        kites: Kites with four keypoints, and the file ``kite.yaml`` that describes them, in place
            of shapes of four classes.
        seed: Seed of everything.
    """
    rng = np.random.default_rng(seed)
    labels = ("kite",) if kites else CLASSES
    prefix = "person_keypoints" if kites else "instances"  # the names that COCO's files have
    categories: list[dict[str, Any]] = [{"id": i + 1, "name": n} for i, n in enumerate(labels)]
    if kites:
        bones = [[KITE.index(a) + 1, KITE.index(b) + 1] for a, b in KITE_BONES]
        categories[0] |= {"keypoints": list(KITE), "skeleton": bones}
        skeleton = {"names": list(KITE), "bones": [list(b) for b in KITE_BONES], "sigmas": 0.07}
        root.mkdir(parents=True, exist_ok=True)
        (root / "kite.yaml").write_text(yaml.safe_dump(skeleton, sort_keys=False))
    for split, count in (("train2017", train), ("val2017", val)):
        (root / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(1, count + 1):
            picture, objects, masks = draw_scene(rng, side, kites=kites)
            name = f"{i:012d}.png"
            picture.save(root / split / name, compress_level=1)
            images.append({"id": i, "file_name": name, "width": side, "height": side})
            for one, mask in zip(objects, masks, strict=True):
                if mask.sum() < 16:
                    continue
                annotation = _annotation(one, mask, labels)
                annotations.append({"id": len(annotations) + 1, "image_id": i, **annotation})
        (root / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"{prefix}_{split}.json").write_text(json.dumps(content))


def _annotation(
    one: SceneObject, mask: NDArray[np.uint8], labels: tuple[str, ...]
) -> dict[str, Any]:
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    rle = rle_tools.encode(np.asfortranarray(mask))
    found: dict[str, Any] = {
        "category_id": labels.index(one.label) + 1,
        "bbox": [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
    }
    if one.keypoints:
        found["keypoints"] = [v for a, b in one.keypoints for v in (round(a, 2), round(b, 2), 2)]
        found["num_keypoints"] = len(one.keypoints)
    return found


def write_masks(root: Path, *, train: int, val: int, side: int = 128, seed: int = 0) -> None:
    """Write scenes as ``images/<split>/*.png``, ``masks/<split>/*.png`` and ``classes.txt``.

    A mask holds the number of the class at each pixel, 0 for the background.

    Args:
        root: Folder to fill.
        train: Training pictures.
        val: Validation pictures.
        side: Width and height of a picture in pixels.
        seed: Seed of everything.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n")
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(1, count + 1):
            picture, objects, masks = draw_scene(rng, side, kites=False)
            labels = np.zeros((side, side), np.uint8)
            for one, mask in zip(objects, masks, strict=True):
                labels[mask > 0] = 1 + CLASSES.index(one.label)
            name = f"{i:06d}.png"
            picture.save(root / "images" / split / name, compress_level=1)
            Image.fromarray(labels).save(root / "masks" / split / name)
