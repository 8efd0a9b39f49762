from __future__ import annotations

import contextlib
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
ELLIPSIS = "…"
SIDE, COLUMNS, WIDTH = 200, 6, 1960


@dataclass(frozen=True)
class Tile:
    """One picture of a grid.

    Attributes:
        image: uint8 RGB ``(H, W, 3)``.
        lines: Text below it, one string a line; the first is set on the colour.
        right: True or False colours the first line green or red, None grey.
        wide: Whether the tile is only as high as its image needs; others are squares.
    """

    image: NDArray[np.uint8]
    lines: Sequence[str]
    right: bool | None = None
    wide: bool = False


# Where a name is not plain ASCII, the first of these that the machine has: Pillow's own font has
# no other letters.
FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "NotoSans-Regular.ttf", "DejaVuSans.ttf",
         "Arial.ttf")  # fmt: skip


def get_font(size: int = FONT_SIZE, text: str = "") -> Any:
    """Return a font for ``text``, ``size`` pixels high."""
    return _font(size, text.replace(ELLIPSIS, "").isascii())


@functools.cache
def _font(size: int, ascii_only: bool) -> Any:
    for name in () if ascii_only else FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def fit_text(text: str, width: int, size: int = FONT_SIZE) -> str:
    """Shorten ``text`` with an ellipsis until it is at most ``width`` pixels wide."""
    font = get_font(size, text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS


def draw_tile(tile: Tile, side: int | None = None) -> Image.Image:
    """Return one tile: the image scaled to a width of ``side`` pixels, its lines below.

    Args:
        tile: What to draw.
        side: Width in pixels, and height of the image where it is not a wide tile; left out, 200,
            or the image's own width for a wide tile.
    """
    image = Image.fromarray(tile.image)
    side = _side([tile]) if side is None else side
    factor = side / (image.width if tile.wide else max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS)
    height = size[1] if tile.wide else side
    line = FONT_SIZE + PAD
    canvas = Image.new("RGB", (side, height + line * len(tile.lines) + PAD), PAPER)
    canvas.paste(image, ((side - size[0]) // 2, (height - size[1]) // 2))
    draw = ImageDraw.Draw(canvas)
    colour = NEUTRAL if tile.right is None else RIGHT if tile.right else WRONG
    for i, text in enumerate(tile.lines):
        top = height + i * line
        if i == 0:
            draw.rectangle((0, top, side, top + line - 1), fill=colour)
        ink = PAPER if i == 0 else INK
        text = fit_text(text, side - PAD)
        draw.text((PAD // 2, top + 1), text, fill=ink, font=get_font(text=text))
    return canvas


def _side(tiles: Sequence[Tile]) -> int:
    return max((tile.image.shape[1] for tile in tiles if tile.wide), default=SIDE)


def draw_grid(
    tiles: Sequence[Tile], *, columns: int | None = None, side: int | None = None
) -> Image.Image:
    """Return the tiles side by side, row by row.

    Args:
        tiles: At least one.
        columns: Tiles of one row; left out, as many as fit into 1960 pixels, but not over 6.
        side: Width of a tile in pixels; left out, 200, or the widest wide tile's image.
    """
    side = _side(tiles) if side is None else side
    if columns is None:
        columns = min(COLUMNS, max(1, WIDTH // (side + PAD)))
    drawn = [draw_tile(tile, side) for tile in tiles]
    columns = min(columns, len(drawn))
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    size = (columns * (side + PAD) + PAD, sum(heights) + len(rows) * PAD + PAD)
    canvas = Image.new("RGB", size, PAPER)
    top = PAD
    for row, height in zip(rows, heights, strict=True):
        for i, picture in enumerate(row):
            canvas.paste(picture, (PAD + i * (side + PAD), top))
        top += height + PAD
    return canvas
