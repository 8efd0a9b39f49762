from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_zoo.drawing.grid import INK, PAPER, Tile, fit_text, get_font


def classification_tile(
    image: NDArray[np.uint8],
    probs: Sequence[float],
    class_names: Sequence[str],
    truth: Sequence[int] | None = None,
    *,
    multilabel: bool = False,
) -> Tile:
    """Return an image with its most probable class, and the true one where it is known.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        probs: Probability of each class.
        class_names: Name of each class.
        truth: Indices of the true classes; None where nobody knows.
        multilabel: Whether every class above one half counts as predicted.
    """
    order = sorted(range(len(probs)), key=lambda i: -probs[i])
    found = [i for i in order if probs[i] > 0.5] if multilabel else order[:1]
    names = ", ".join(f"{class_names[i]} {100 * probs[i]:.0f} %" for i in found) or "nothing"
    if truth is None:
        rest = [i for i in order if i not in found][:2]
        return Tile(image, [names, *(f"{class_names[i]} {100 * probs[i]:.0f} %" for i in rest)])
    true_names = ", ".join(class_names[i] for i in truth) or "nothing"
    return Tile(image, [names, f"truth: {true_names}"], right=set(found) == set(truth))


def draw_lines(image: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """Return the image in its own size with lines of text in its upper left corner.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        lines: The lines, as many as there is room for.
    """
    picture = Image.fromarray(image)
    size = min(max(round(max(picture.size) / 42), 12), 30)
    pad, line = size // 3, size + size // 3
    texts = [fit_text(text, picture.width - 2 * pad, size) for text in lines]
    texts = texts[: max(1, (picture.height - pad) // line)]
    width = max(round(get_font(size, text).getlength(text)) for text in texts) + 2 * pad
    plate = Image.new("RGB", (min(width, picture.width), len(texts) * line + pad), INK)
    under = picture.crop((0, 0, *plate.size))
    picture.paste(Image.blend(under, plate, 0.7), (0, 0))
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(texts):
        middle = (pad, pad // 2 + i * line + line / 2)
        draw.text(middle, text, fill=PAPER, font=get_font(size, text), anchor="lm")
    return np.asarray(picture)
