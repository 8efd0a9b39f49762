"""The demo's pictures: outlines that are what they are called, files in the real layout."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.engine.shapes import SHAPES, draw_shape, shape_polygon, write_shapes

# corners of each outline, its area in squares of the radius, by school geometry
CORNERS = {"triangle": 3, "square": 4, "star": 10, "cross": 12, "circle": 48, "ring": 48}
AREA = {
    "triangle": 3 * math.sqrt(3) / 4,
    "square": 2.0,
    "star": 10 * 0.5 * 0.42 * math.sin(math.pi / 5),
    "cross": 4 * (2 * 0.3 * 0.7) + 4 * 0.3**2,  # four arms around a square
    "circle": 24 * math.sin(2 * math.pi / 48),
    "ring": 24 * math.sin(2 * math.pi / 48),
}


def area(outline: list[tuple[float, float]]) -> float:
    """Return a polygon's area by the shoelace formula."""
    around = zip(outline, [*outline[1:], outline[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in around)) / 2


def test_names() -> None:
    assert set(SHAPES) == set(CORNERS)
    assert list(SHAPES) == sorted(SHAPES), "in the order of the class folders"


@pytest.mark.parametrize("name", SHAPES)
def test_outline(name: str) -> None:
    outline = shape_polygon(name, 30.0, 40.0, 10.0, 0.3)
    assert len(outline) == CORNERS[name]
    assert area(outline) == pytest.approx(100 * AREA[name])
    middle = np.mean(outline, axis=0)
    assert middle == pytest.approx([30.0, 40.0])
    far = max(math.dist(point, (30, 40)) for point in outline)
    assert far <= 10 * math.hypot(1, 0.3) + 1e-9
    turned = shape_polygon(name, 0.0, 0.0, 10.0, 0.3 + math.pi / 2)
    for (x, y), (u, v) in zip(outline, turned, strict=True):
        assert (u, v) == pytest.approx((-(y - 40), x - 30))


@pytest.mark.parametrize("name", SHAPES)
def test_picture(name: str) -> None:
    image = draw_shape(name, np.random.default_rng(3), 64)
    assert (image.size, image.mode) == ((64, 64), "RGB")
    again = draw_shape(name, np.random.default_rng(3), 64)
    assert np.array_equal(np.asarray(image), np.asarray(again))
    other = draw_shape(name, np.random.default_rng(4), 64)
    assert not np.array_equal(np.asarray(image), np.asarray(other))
    # ink is 150 or more in each channel, the ground below 90; noise is small
    bright = (np.asarray(image).astype(int).min(axis=2) > 120).mean()
    assert 0.03 < bright < 0.75


def test_a_ring_has_a_hole() -> None:
    def bright(name: str) -> float:
        pictures = [draw_shape(name, np.random.default_rng(i), 64) for i in range(12)]
        return float(np.mean([(np.asarray(p).min(axis=2) > 120).mean() for p in pictures]))

    # a line three tenths of the radius wide leaves half of the disc or less
    assert 0.25 * bright("circle") < bright("ring") < 0.7 * bright("circle")


def test_layout(tmp_path: Path) -> None:
    write_shapes(tmp_path / "a", train=3, val=2, side=32)
    write_shapes(tmp_path / "b", train=3, val=2, side=32)
    write_shapes(tmp_path / "c", train=3, val=2, side=32, seed=1)
    names = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.png"))
    assert len(names) == 6 * 3 + 6 * 2
    assert names[0] == "train/circle/circle_0000.png"
    contents = [(tmp_path / "a" / name).read_bytes() for name in names]
    assert len(set(contents)) == len(names), "no picture twice, in both splits"
    assert contents == [(tmp_path / "b" / name).read_bytes() for name in names]
    assert contents != [(tmp_path / "c" / name).read_bytes() for name in names]
    with Image.open(tmp_path / "a" / names[0]) as image:
        assert image.size == (32, 32)

    data = ImageFolderDataModule(root=str(tmp_path / "a"), workers=0)
    data.setup("fit")
    assert data.class_names == list(SHAPES)
    assert data.num_train_samples == 18
