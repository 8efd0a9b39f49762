"""Pictures of simple shapes, made on the spot: data for the demos, in real layouts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")


def shape_polygon(
    name: str, x: float, y: float, radius: float, angle: float
) -> list[tuple[float, float]]:
    """Return the outline of a shape around ``(x, y)``, turned by ``angle`` radians."""

    def at(turn: float, r: float) -> tuple[float, float]:
        return x + r * math.cos(angle + turn), y + r * math.sin(angle + turn)

    full = 2 * math.pi
    if name == "triangle":
        return [at(full * i / 3, radius) for i in range(3)]
    if name == "square":
        return [at(full * (i + 0.5) / 4, radius) for i in range(4)]
    if name == "star":
        return [at(full * i / 10, radius if i % 2 == 0 else 0.42 * radius) for i in range(10)]
    if name == "cross":
        w = 0.3
        corners = [(w, 1), (w, w), (1, w), (1, -w), (w, -w), (w, -1),
                   (-w, -1), (-w, -w), (-1, -w), (-1, w), (-w, w), (-w, 1)]  # fmt: skip
        return [at(math.atan2(b, a), radius * math.hypot(a, b)) for a, b in corners]
    return [at(full * i / 48, radius) for i in range(48)]


def draw_shape(name: str, rng: np.random.Generator, side: int) -> Image.Image:
    """Return a picture ``side`` pixels wide: one shape on a coloured, noisy ground with specks."""
    big = 2 * side  # drawn larger and halved, for smooth edges
    ground = rng.integers(0, 90, 3)
    ink = rng.integers(150, 256, 3)
    image = Image.new("RGB", (big, big), tuple(int(v) for v in ground))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):  # specks that belong to no class
        x0, y0 = rng.integers(0, big, 2)
        x1, y1 = x0 + rng.integers(-big // 4, big // 4), y0 + rng.integers(-big // 4, big // 4)
        colour = tuple(int(v) for v in rng.integers(60, 200, 3))
        draw.line((int(x0), int(y0), int(x1), int(y1)), fill=colour, width=2)
    radius = rng.uniform(0.28, 0.45) * big
    x, y = rng.uniform(radius, big - radius, 2)
    outline = shape_polygon(
        name, float(x), float(y), float(radius), rng.uniform(-0.5, 0.5) - math.pi / 2
    )
    fill = tuple(int(v) for v in ink)
    if name == "ring":
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, outline=fill, width=int(0.3 * radius))
    else:
        draw.polygon(outline, fill=fill)
    image = image.resize((side, side), Image.Resampling.BOX)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(0.8))
    noise = rng.normal(0, rng.uniform(2, 8), (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write_shapes(root: Path, *, train: int, val: int, side: int = 64, seed: int = 0) -> None:
    """Write pictures of shapes as ``train/<shape>/*.png`` and ``val/<shape>/*.png``.

    Args:
        root: Folder to fill.
        train: Training pictures of each class.
        val: Validation pictures of each class.
        side: Width and height in pixels.
        seed: Seed of the pictures.
    """
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(SHAPES):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                rng = np.random.default_rng((seed, split == "val", label, i))
                draw_shape(name, rng, side).save(folder / f"{name}_{i:04}.png", compress_level=1)
