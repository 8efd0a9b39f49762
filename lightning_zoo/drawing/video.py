from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.drawing.grid import PAPER, Tile
from lightning_zoo.drawing.panels import resized

FRAMES, COLUMNS = 8, 4
GAP = 2  # pixels of white between frames
SHEET_WIDTH = 646  # four frames of 160 pixels and the gaps between them


def contact_sheet(
    frames: NDArray[np.uint8], count: int = FRAMES, *, width: int = SHEET_WIDTH
) -> NDArray[np.uint8]:
    """Return some frames of a video, evenly spaced, in rows of four from left to right.

    Args:
        frames: uint8 RGB ``(T, H, W, 3)``, at least one.
        count: Frames to show; fewer where the video has fewer.
        width: Width of the sheet in pixels.
    """
    count = min(count, len(frames))
    side = (width + GAP) // COLUMNS - GAP
    small = [
        resized(Image.fromarray(frames[i * len(frames) // count]), side / frames.shape[2])
        for i in range(count)
    ]
    height = small[0].shape[0] + GAP
    sheet = Image.new("RGB", (width, -(-count // COLUMNS) * height - GAP), PAPER)
    for i, frame in enumerate(small):
        sheet.paste(Image.fromarray(frame), (i % COLUMNS * (side + GAP), i // COLUMNS * height))
    return np.asarray(sheet)


def video_tile(
    frames: NDArray[np.uint8],
    probs: Sequence[float],
    class_names: Sequence[str],
    truth: Sequence[int] | None = None,
) -> Tile:
    """Return a clip's contact sheet with its most probable class, and the true one where known.

    Args:
        frames: uint8 RGB ``(T, H, W, 3)``.
        probs: Probability of each class.
        class_names: Name of each class.
        truth: Indices of the true classes; None where nobody knows.
    """
    tile = classification_tile(contact_sheet(frames), probs, class_names, truth)
    return replace(tile, wide=True)
