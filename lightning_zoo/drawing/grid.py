from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, NEUTRAL = (22, 128, 61), (190, 24, 44), (55, 65, 81)
PAPER, INK = (255, 255, 255), (17, 24, 39)
FONT_SIZE = 15
PAD = 6


@dataclass(frozen=True)
class Tile:
    """One picture of a grid.

    Attributes:
        image: uint8 RGB ``(H, W, 3)``.
        lines: Text below it, one string a line; the first is set on the colour.
        right: True or False colours the first line green or red, None grey.
    """

    image: NDArray[np.uint8]
    lines: Sequence[str]
    right: bool | None = None


@functools.cache
def _font(size: int = FONT_SIZE) -> Any:
    return ImageFont.load_default(size)


def _fit(text: str, width: int) -> str:
    """Shorten ``text`` with an ellipsis until it is at most ``width`` pixels wide."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def draw_tile(tile: Tile, side: int) -> Image.Image:
    """Return one tile: the image scaled into a square of ``side`` pixels, its lines below."""
    line = FONT_SIZE + PAD
    canvas = Image.new("RGB", (side, side + line * len(tile.lines) + PAD), PAPER)
    image = Image.fromarray(tile.image)
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS)
    canvas.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    draw = ImageDraw.Draw(canvas)
    colour = NEUTRAL if tile.right is None else RIGHT if tile.right else WRONG
    for i, text in enumerate(tile.lines):
        top = side + i * line
        if i == 0:
            draw.rectangle((0, top, side, top + line - 1), fill=colour)
        ink = PAPER if i == 0 else INK
        draw.text((PAD // 2, top + 1), _fit(text, side - PAD), fill=ink, font=_font())
    return canvas


def draw_grid(tiles: Sequence[Tile], *, columns: int = 6, side: int = 200) -> Image.Image:
    """Return the tiles side by side, row by row.

    Args:
        tiles: At least one.
        columns: Tiles of one row.
        side: Width of a tile in pixels.
    """
    drawn = [draw_tile(tile, side) for tile in tiles]
    columns = min(columns, len(drawn))
    height = max(picture.height for picture in drawn)
    rows = -(-len(drawn) // columns)
    size = (columns * (side + PAD) + PAD, rows * (height + PAD) + PAD)
    canvas = Image.new("RGB", size, PAPER)
    for i, picture in enumerate(drawn):
        row, column = divmod(i, columns)
        canvas.paste(picture, (PAD + column * (side + PAD), PAD + row * (height + PAD)))
    return canvas
