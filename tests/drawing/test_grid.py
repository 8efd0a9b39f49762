"""Pictures: sizes, the colours of right and wrong, what happens to long texts and odd shapes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_zoo.drawing import Tile, draw_grid, draw_tile
from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.drawing.grid import (
    FONT_SIZE,
    NEUTRAL,
    PAD,
    PAPER,
    RIGHT,
    WRONG,
    fit_text,
    get_font,
)

BLUE = (10, 20, 230)


def plain(height: int, width: int, colour: tuple[int, int, int] = BLUE) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def area_of(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the smallest box around a colour."""
    ys, xs = np.nonzero((np.abs(pixels.astype(int) - colour) <= 2).all(axis=2))
    return ys.min(), xs.min(), ys.max() - ys.min() + 1, xs.max() - xs.min() + 1


@pytest.mark.parametrize(("right", "colour"), [(True, RIGHT), (False, WRONG), (None, NEUTRAL)])
def test_bar(right: bool | None, colour: tuple[int, int, int]) -> None:
    pixels = np.asarray(draw_tile(Tile(plain(20, 20), ["cat 93 %", "truth: cat"], right), 100))
    line = FONT_SIZE + PAD
    assert pixels.shape == (100 + 2 * line + PAD, 100, 3)
    assert area_of(pixels, colour) == (100, 0, line, 100)
    for other in {RIGHT, WRONG, NEUTRAL} - {colour}:
        assert not (pixels == other).all(axis=2).any()
    bar = pixels[100 : 100 + line]
    assert (bar == PAPER).all(axis=2).any(), "white letters on the colour"
    below = pixels[100 + line :]
    assert (below.max(axis=2) < 100).any(), "dark letters on white"


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (50, 50, (0, 0, 100, 100)),
        (50, 100, (25, 0, 50, 100)),
        (80, 20, (0, 38, 100, 25)),
        (400, 200, (0, 25, 100, 50)),
        (1, 300, (50, 0, 1, 100)),
        (1, 1, (0, 0, 100, 100)),
    ],
)
def test_images_keep_their_aspect(height: int, width: int, box: tuple[int, ...]) -> None:
    pixels = np.asarray(draw_tile(Tile(plain(height, width), ["x"]), 100))
    found = area_of(pixels[:100], BLUE)
    assert found == pytest.approx(box, abs=1)
    assert found[2] <= 100
    assert found[3] <= 100


def test_long_texts_are_shortened() -> None:
    short, long = "cat 93 %", "a very long name of a class that nobody can read " * 3
    assert fit_text(short, 200) == short
    fitted = fit_text(long, 200)
    assert fitted.endswith("…")
    assert long.startswith(fitted[:-1])
    assert get_font().getlength(fitted) <= 200
    assert get_font().getlength(long[: len(fitted)] + "…") > 200, "not one letter too few"
    assert fit_text("anything", 0) == "…"
    assert fit_text("", 10) == ""
    picture = np.asarray(draw_tile(Tile(plain(9, 9), [long, long]), 80))
    assert picture.shape[1] == 80


def test_names_in_other_scripts() -> None:
    draw_tile(Tile(plain(9, 9), ["grüße 猫 🐈", "a\nb"]), 80)


@pytest.mark.parametrize(
    ("count", "columns", "rows", "across"), [(1, 4, 1, 1), (4, 4, 1, 4), (5, 4, 2, 4), (3, 2, 2, 2)]
)
def test_grid(count: int, columns: int, rows: int, across: int) -> None:
    colours = [(200, 10, 10 + 40 * i) for i in range(count)]
    tiles = [Tile(plain(30, 30, colour), ["x"]) for colour in colours]
    pixels = np.asarray(draw_grid(tiles, columns=columns, side=60))
    height = 60 + FONT_SIZE + PAD + PAD
    assert pixels.shape == (rows * (height + PAD) + PAD, across * (60 + PAD) + PAD, 3)
    for i, colour in enumerate(colours):
        top, left = PAD + i // across * (height + PAD), PAD + i % across * (60 + PAD)
        assert area_of(pixels, colour) == (top, left, 60, 60)


def test_tiles_of_unequal_height() -> None:
    tiles = [Tile(plain(9, 9), ["x"]), Tile(plain(9, 9), ["x", "y", "z"])]
    line = FONT_SIZE + PAD
    assert draw_grid(tiles, side=50).height == 50 + 3 * line + PAD + 2 * PAD


def test_wide_tiles() -> None:
    """A wide tile is as high as its image needs, at the image's own width."""
    tiles = [Tile(plain(30, 90, (200, 10, 10 + 40 * i)), ["x"], wide=True) for i in range(3)]
    text = FONT_SIZE + 2 * PAD
    assert draw_tile(tiles[0]).size == (90, 30 + text)
    assert draw_tile(tiles[0], 180).size == (180, 60 + text)
    tiles[2] = Tile(plain(10, 90, (200, 10, 90)), ["x"], wide=True)
    assert draw_grid(tiles).width == 3 * 90 + 4 * PAD  # as many in a row as there is room for
    wide = [Tile(plain(30, 900, (0, 0, 0)), ["x"], wide=True)] * 3
    assert draw_grid(wide).width == 2 * 900 + 3 * PAD
    pixels = np.asarray(draw_grid(tiles, columns=2))
    # each row is as high as its highest tile
    assert pixels.shape == (30 + text + 10 + text + 3 * PAD, 2 * 90 + 3 * PAD, 3)
    assert area_of(pixels, (200, 10, 10)) == (PAD, PAD, 30, 90)
    assert area_of(pixels, (200, 10, 50)) == (PAD, 90 + 2 * PAD, 30, 90)
    assert area_of(pixels, (200, 10, 90)) == (30 + text + 2 * PAD, PAD, 10, 90)


NAMES = ["ant", "bee", "cat", "dog"]


def test_classification_tile() -> None:
    image = plain(5, 5)
    probs = [0.1, 0.62, 0.08, 0.2]
    right = classification_tile(image, probs, NAMES, [1])
    assert (list(right.lines), right.right) == (["bee 62 %", "truth: bee"], True)
    wrong = classification_tile(image, probs, NAMES, [3])
    assert (list(wrong.lines), wrong.right) == (["bee 62 %", "truth: dog"], False)
    unknown = classification_tile(image, probs, NAMES)
    assert (list(unknown.lines), unknown.right) == (["bee 62 %", "dog 20 %", "ant 10 %"], None)
    assert unknown.image is image


def test_multilabel_tile() -> None:
    def tile(probs: list[float], truth: list[int] | None) -> Tile:
        return classification_tile(plain(5, 5), probs, NAMES, truth, multilabel=True)

    both = tile([0.9, 0.2, 0.95, 0.5], [0, 2])
    assert (list(both.lines), both.right) == (["cat 95 %, ant 90 %", "truth: ant, cat"], True)
    assert tile([0.9, 0.2, 0.95, 0.6], [0, 2]).right is False
    assert tile([0.9, 0.2, 0.4, 0.1], [0, 2]).right is False
    none = tile([0.1, 0.2, 0.3, 0.4], [])
    assert (list(none.lines), none.right) == (["nothing", "truth: nothing"], True)
    assert tile([0.1, 0.2, 0.3, 0.4], None).lines == ["nothing", "dog 40 %", "cat 30 %"]
