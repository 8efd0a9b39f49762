"""Pictures beside each other in one tile: what was found, and what is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_zoo.drawing.grid import FONT_SIZE, INK, PAD, PAPER, get_font

TILE_WIDTH = 968  # two panels of 480 pixels and the gap between them
GAP = 8
MOST_HEIGHT = 640  # of a panel


def panel_factor(size: tuple[int, int], panels: int, width: int) -> float:
    """Return how much larger an image of ``size`` (width, height) is drawn in its panel."""
    column = (width - GAP * (panels - 1)) // panels
    return min(column / size[0], min(column, MOST_HEIGHT) / size[1])


def resized(image: Image.Image, factor: float) -> NDArray[np.uint8]:
    """Return the image ``factor`` times as large, at least one pixel."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    how = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS
    return np.asarray(image.resize(size, how))


def side_by_side(
    panels: Sequence[NDArray[np.uint8]], titles: Sequence[str], width: int
) -> NDArray[np.uint8]:
    """Return the panels in equal columns, each below its title where there are titles."""
    column = (width - GAP * (len(panels) - 1)) // len(panels)
    head = FONT_SIZE + PAD if titles else 0
    canvas = Image.new("RGB", (width, head + max(panel.shape[0] for panel in panels)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, panel in enumerate(panels):
        left = i * (column + GAP) + (column - panel.shape[1]) // 2
        canvas.paste(Image.fromarray(panel), (left, head))
        if titles:
            draw.text((left, 0), titles[i], fill=INK, font=get_font())
    return np.asarray(canvas)
