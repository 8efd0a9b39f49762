"""Tiny data sets of segmentation: coloured shapes, a colour and a form for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.transforms.label_maps import VOID
from lightning_zoo.transforms.masks import Masks, pack, to_rle

Pixels = NDArray[np.uint8]
# Outlines in a box of side 1, and the part of the box that they fill.
SHAPES = {
    "disc": ([(0.5 + np.cos(a) / 2, 0.5 + np.sin(a) / 2) for a in np.arange(0, 6.2, 0.26)], 0.78),
    "square": ([(0, 0), (1, 0), (1, 1), (0, 1)], 1.0),
    "triangle": ([(0.5, 0), (1, 1), (0, 1)], 0.5),
    "diamond": ([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)], 0.5),
}


class Shape(NamedTuple):
    """One object of a scene.

    Attributes:
        label: Its class, from 1 on.
        polygon: Its outline, ``x y x y ...`` in pixels.
        mask: Its pixels, uint8 (H, W) of 0 and 1.
    """

    label: int
    polygon: list[float]
    mask: Pixels


def shape_names(classes: int) -> list[str]:
    """Return the names of that many classes: background, disc, square, ..., disc2, ..."""
    names = [f"{name}{i or ''}" for i in range(-(-classes // len(SHAPES))) for name in SHAPES]
    return ["background", *names][:classes]


def draw_scene(
    number: int, size: int, classes: int, rng: np.random.Generator
) -> tuple[Pixels, list[Shape]]:
    """Return an image, uint8 (H, W, 3), and its shapes, later ones on top.

    All classes take turns in being the largest shape, which fills about a third of the image.

    Args:
        number: The image's number, which chooses its format and largest shape.
        size: Longer side in pixels.
        classes: Number of classes, with the background.
        rng: Source of randomness.
    """
    short = max(16, size * 3 // 4)
    height, width = (size, short) if number % 3 == 2 else (short, size)
    noise = rng.normal(0, 12, (height, width, 3))
    pixels = (rng.integers(50, 100, 3) + noise).clip(0, 255).astype(np.uint8)
    shapes: list[Shape] = []
    for i in range(int(rng.integers(2, 4))):
        label = 1 + (number if i == 0 else int(rng.integers(classes - 1))) % (classes - 1)
        outline, fill = list(SHAPES.values())[(label - 1) % len(SHAPES)]
        area = height * width * rng.uniform(*((0.34, 0.4) if i == 0 else (0.06, 0.12)))
        side = min(int(np.sqrt(area / fill)) + 1, short)
        x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        if i == 1:  # a pair that overlaps
            x, y = (int(n) for n in shapes[0].polygon[:2])
            x, y = max(0, min(x, width - side)), max(0, min(y, height - side))
        polygon = [round(float(v), 2) for a, b in outline for v in (x + a * side, y + b * side)]
        (mask,) = Masks([pack([polygon], height, width)], height, width).decode()
        shapes.append(Shape(label, polygon, mask))
        tone = rng.normal(0, 8, (int(mask.sum()), 3))
        pixels[mask == 1] = (colour(label) + tone).clip(0, 255).astype(np.uint8)
    return pixels, shapes


def colour(label: int) -> NDArray[np.int64]:
    """Return the RGB of a class, from 1 on: no two of 20 are alike."""
    import cv2

    hue = np.array([[[(label * 67) % 180, 255 if label % 2 else 150, 240]]], np.uint8)
    return cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.int64)


def label_map(shapes: list[Shape], *, border: bool) -> Pixels:
    """Return the mask, uint8 (H, W), of a scene: the last shape counts, edges may be void."""
    import cv2

    mask = np.zeros_like(shapes[0].mask)
    for shape in shapes:
        mask[shape.mask == 1] = shape.label
    if border:
        edges = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        mask[np.asarray(edges) > 0] = VOID
    return mask


def write_jpeg(path: Path, pixels: Pixels) -> None:
    """Write an image as JPEG, with its folder."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def write_palette_png(path: Path, mask: Pixels) -> None:
    """Write a mask as PNG with a palette, and its folder."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    colours = [[0, 0, 0], *(colour(label).tolist() for label in range(1, VOID)), [224, 224, 192]]
    image.putpalette([value for rgb in colours for value in rgb])
    image.save(path)


def write_fake_masks(root: Path, *, classes: int, images: int, size: int, seed: int) -> None:
    """Write ``images`` and ``masks`` with ``train`` and ``val`` each, and ``classes.txt``."""
    for part, split in enumerate(("train", "val")):
        rng = np.random.default_rng((seed, part))
        for i in range(images):
            pixels, shapes = draw_scene(i, size, classes, rng)
            write_jpeg(root / "images" / split / f"{i:04d}.jpg", pixels)
            write_palette_png(
                root / "masks" / split / f"{i:04d}.png", label_map(shapes, border=False)
            )
    (root / "classes.txt").write_text("\n".join(shape_names(classes)) + "\n", encoding="utf-8")


def write_fake_voc(root: Path, *, classes: int, images: int, size: int, seed: int) -> None:
    """Write VOC's ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation``."""
    lists: dict[str, list[str]] = {}
    for part, split in enumerate(("train", "val")):
        rng = np.random.default_rng((seed, part))
        lists[split] = [f"{2007 + part}_{i:06d}" for i in range(images)]
        for i, name in enumerate(lists[split]):
            pixels, shapes = draw_scene(i, size, classes, rng)
            write_jpeg(root / "JPEGImages" / f"{name}.jpg", pixels)
            mask = label_map(shapes, border=True)
            write_palette_png(root / "SegmentationClass" / f"{name}.png", mask)
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in {**lists, "trainval": [*lists["train"], *lists["val"]]}.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def write_fake_coco_voc(
    root: Path,
    ids: Mapping[int, int],
    categories: Mapping[int, str],
    *,
    stranger: int,
    images: int,
    size: int,
    seed: int,
) -> None:
    """Write ``train2017``, ``val2017`` and their instances under given category ids.

    The first image of a split has a crowd. Two more images, without an object and with one of
    another category alone, are added to training and are the last two in validation.

    Args:
        root: Folder to fill; made if it is missing.
        ids: Category id of each label from 1 on.
        categories: All categories of the files by id.
        stranger: Category id that stands for no class.
        images: Images of each split that training takes.
        size: Longer side of an image in pixels.
        seed: Seed of the shapes.
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for part, split in enumerate(("train2017", "val2017")):
        rng = np.random.default_rng((seed, part))
        content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": n, "name": name} for n, name in categories.items()]
        count = images + 2 if split == "train2017" else images
        for i in range(count):
            pixels, shapes = draw_scene(i, size, len(ids) + 1, rng)
            if i == count - 1 and i > 0:
                pixels, shapes = pixels[:, ::-1] // 4, []
            height, width = pixels.shape[:2]
            number = 1000 * (part + 1) + 7 * i
            name = f"{number:012d}.jpg"
            write_jpeg(root / split / name, np.ascontiguousarray(pixels))
            entry = {"id": number, "file_name": name, "height": height, "width": width}
            content["images"].append(entry)
            for j, shape in enumerate(shapes):
                ys, xs = np.nonzero(shape.mask)
                x, y = int(xs.min()), int(ys.min())
                segmentation: Any = [shape.polygon]
                crowd = i == 0 and j == len(shapes) - 1
                if crowd:
                    segmentation = to_rle(pack(segmentation, height, width), height, width)
                    segmentation["counts"] = segmentation["counts"].decode("ascii")
                strange = i == count - 2 and i > 0
                content["annotations"].append({
                    "id": 100 + len(content["annotations"]),
                    "image_id": number,
                    "category_id": stranger if strange else ids[shape.label],
                    "bbox": [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y],
                    "area": float(shape.mask.sum()),
                    "iscrowd": int(crowd),
                    "segmentation": segmentation,
                })  # fmt: skip
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
