"""Label maps over their image: colours, edges, void, legend, what is said of them, any size."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_zoo.drawing import batch_tiles, draw_grid
from lightning_zoo.drawing.panels import TILE_WIDTH
from lightning_zoo.drawing.segmentation import (
    MOST_PIXELS,
    draw_classes,
    overlay,
    palette,
    percent,
    segmentation_tile,
    shares,
)
from lightning_zoo.metrics import ConfusionMatrix

NAMES = ["__background__", "cat", "dog"]
Pixels = NDArray[np.uint8]


def photo(height: int = 40, width: int = 60, value: int = 90) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def discs(height: int = 40, width: int = 60) -> Pixels:
    """Return a map with a disc of class 1 and one of class 2."""
    y, x = np.ogrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    for label, left in ((1, width // 4), (2, 3 * width // 4)):
        labels[(y - height // 2) ** 2 + (x - left) ** 2 < (height // 4) ** 2] = label
    return labels


def has(image: Pixels, colour: Pixels | tuple[int, ...]) -> bool:
    return bool((image == colour).all(axis=-1).any())


def test_palette_is_that_of_pascal_voc() -> None:
    expected = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128),
        8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192),
    }  # fmt: skip
    colours = palette()
    assert colours.shape == (256, 3)
    for label, colour in expected.items():
        assert tuple(colours[label]) == colour, label
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
    np.testing.assert_array_equal(palette(21), colours[:21])


def test_overlay() -> None:
    image, labels = photo(), discs()
    labels[:5, :10] = 255
    before = image.copy(), labels.copy()
    drawn = overlay(image, labels, alpha=0.5)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])
    np.testing.assert_array_equal(drawn[-1, -1], [90, 90, 90], "the background stays")
    np.testing.assert_array_equal(drawn[20, 15], [109, 45, 45], "half of (128, 0, 0)")
    np.testing.assert_array_equal(drawn[20, 45], [45, 109, 45])
    rows = np.flatnonzero(labels[:, 15] == 1)
    for row in (rows[0], rows[-1]):
        assert drawn[row, 15].min() > 185, "bright edges above and below"
    void = drawn[:5, :10].reshape(-1, 3)
    assert len({tuple(v) for v in void.tolist()}) == 2, "two kinds of stripes"
    assert len(set(drawn[0, :10, 0].tolist())) == 2
    assert void.min() > 120


def test_overlay_without_background() -> None:
    image, labels = photo(), np.zeros((40, 60), np.uint8)
    np.testing.assert_array_equal(overlay(image, labels), image)
    assert overlay(image, labels, background=None).max() < 90, "class 0 is black"
    np.testing.assert_array_equal(overlay(image, labels, background=None, alpha=0), image)


def test_tile_with_truth() -> None:
    truth = discs()
    truth[0] = 255
    labels = np.roll(discs(), 4, axis=1)
    tile = segmentation_tile(photo(), labels, NAMES, truth)
    assert tile.wide
    assert tile.right is None
    assert tile.image.shape[1] == TILE_WIDTH
    metric = ConfusionMatrix(3)
    metric.update(torch.from_numpy(labels), torch.from_numpy(truth))
    figures = {name: float(value) for name, value in metric.compute().items()}
    said = [float(number) for number in re.findall(r"[\d.]+", tile.lines[0])]
    assert said == pytest.approx([figures["pixel_acc"], figures["miou"]], abs=0.05)
    halves = tile.image[:, : TILE_WIDTH // 2], tile.image[:, TILE_WIDTH // 2 :]
    assert not np.array_equal(*halves)


def test_legend_names_what_is_to_be_seen() -> None:
    """The legend grows and changes with the classes, and squares have their colours."""
    plain = segmentation_tile(photo(), discs() * 0, NAMES)
    cat = segmentation_tile(photo(), discs() // 1 % 2, NAMES)
    both = segmentation_tile(photo(), discs(), NAMES)
    assert plain.lines == ["nothing"]
    assert cat.lines == ["1 class"]
    assert both.lines == ["2 classes"]
    assert plain.image.shape[0] < cat.image.shape[0] == both.image.shape[0]
    legend = slice(plain.image.shape[0], None)
    red, green = palette()[1], palette()[2]
    assert has(cat.image[legend], red)
    assert not has(cat.image[legend], green)
    assert has(both.image[legend], green)


def test_void_stands_in_the_legend() -> None:
    truth = discs()
    legend = slice(-30, None)
    without = segmentation_tile(photo(), discs(), NAMES, truth)
    truth[0, 0] = 255
    with_void = segmentation_tile(photo(), discs(), NAMES, truth)
    assert not np.array_equal(without.image[legend], with_void.image[legend])


def test_all_void() -> None:
    tile = segmentation_tile(photo(), discs(), NAMES, np.full((40, 60), 255, np.uint8))
    assert tile.lines == ["all void"]


def test_shares() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :4], labels[1:4], labels[9, 9] = 2, 1, 7
    assert shares(labels, NAMES) == [(1, "cat", 0.3), (2, "dog", 0.04), (7, "7", 0.01)]
    assert shares(labels, ["road", "car"])[0] == (0, "road", 0.65), "a class like any other"
    assert shares(labels, ["Background", "cat"])[0] == (1, "cat", 0.3)
    labels[5:8] = 255
    assert shares(labels, NAMES)[-1] == (255, "void", 0.3)
    assert shares(labels * 0, NAMES) == []
    assert percent(0.231) == "23.1 %"
    assert percent(0.0001) == "< 0.1 %"


@pytest.mark.parametrize("classes", [2, 21, 200, 255])
def test_any_number_of_classes_with_and_without_names(classes: int) -> None:
    labels = (np.arange(80 * 100) % classes).astype(np.uint8).reshape(80, 100)
    for names, truth in itertools.product(([], [f"class {i}" for i in range(classes)]), (0, 1)):
        tile = segmentation_tile(photo(80, 100), labels, names, labels if truth else None)
        if truth:
            assert tile.lines == ["100.0 % of the pixels right, mean IoU 100.0 %"]
        else:
            assert tile.lines == [f"{classes} classes"]
        assert tile.image.shape[0] < TILE_WIDTH + 120, "a few lines of legend at the most"


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (640, 480)])
def test_any_size(size: tuple[int, int]) -> None:
    labels = np.ones(size, np.uint8)
    for truth in (None, labels):
        tile = segmentation_tile(photo(*size), labels, NAMES, truth)
        assert tile.image.shape[1] == TILE_WIDTH
        assert draw_grid([tile, tile]).width == 2 * TILE_WIDTH + 18


def test_large_photos_are_drawn_smaller() -> None:
    drawn = draw_classes(photo(100, 3000), np.ones((100, 3000), np.uint8), NAMES)
    assert drawn.shape[1] == MOST_PIXELS
    small = draw_classes(photo(500, 400), np.ones((500, 400), np.uint8), NAMES)
    assert small.shape[1] == 400
    assert 500 < small.shape[0] < 560, "a line of legend"


def test_a_batch_of_images_that_differ_in_size() -> None:
    sizes = ((40, 60), (60, 40))
    batch = {
        "image": [torch.full((3, h, w), 90, dtype=torch.uint8) for h, w in sizes],
        "mask": [torch.from_numpy(discs(h, w)) for h, w in sizes],
    }
    maps = [torch.from_numpy(np.roll(discs(h, w), i, 1)) for i, (h, w) in enumerate(sizes)]
    tiles = batch_tiles(batch, [{"segmentation": [one]} for one in maps], NAMES)
    assert [tile.lines[0].startswith("100.0 %") for tile in tiles] == [True, False]
    at_once = batch_tiles(batch, [{"segmentation": maps}], NAMES)
    for one, other in zip(tiles, at_once, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    stacked = {"image": torch.stack(batch["image"][:1]), "mask": torch.stack(batch["mask"][:1])}
    (tile,) = batch_tiles(stacked, [{"segmentation": maps[:1]}], NAMES)
    np.testing.assert_array_equal(tile.image, tiles[0].image)
