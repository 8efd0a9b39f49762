"""Label maps laid over their image in the colours of Pascal VOC, and the truth beside them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_zoo.drawing.arrays import class_name
from lightning_zoo.drawing.grid import FONT_SIZE, INK, PAD, PAPER, Tile, fit_text, get_font
from lightning_zoo.drawing.panels import TILE_WIDTH, panel_factor, resized, side_by_side
from lightning_zoo.models.registry import NO_CLASS

VOID = 255  # the label of pixels that have none
OPACITY = 0.6
LEGEND_LINES = 3
# Larger pictures are drawn at this length of their longer side: nobody looks at more pixels.
MOST_PIXELS = 2048
STRIPE = 4  # pixels of each of the two colours that mark void

Labels = NDArray[np.uint8]


@functools.cache
def palette(count: int = 256) -> NDArray[np.uint8]:
    """Return the colours of Pascal VOC for the labels 0, 1 ..., uint8 ``(count, 3)``.

    The bits of a label, three at a time, become the highest, next ... bits of red, green and blue.
    http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
    """
    bits = (np.arange(count)[:, None] >> np.arange(9)) & 1  # (count, 9)
    highest = 128 >> np.arange(3)
    return (bits.reshape(count, 3, 3) * highest[:, None]).sum(axis=1).astype(np.uint8)


def overlay(
    image: NDArray[np.uint8],
    labels: Labels,
    *,
    alpha: float = OPACITY,
    background: int | None = 0,
) -> NDArray[np.uint8]:
    """Return the image with the colours of the labels over it.

    Objects have a bright edge; what has no label (255) is hatched in white and grey.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        labels: uint8 ``(H, W)``, 255 where nobody knows.
        alpha: How much the colours hide, from 0 to 1.
        background: Label that is no object and stays as it is; None where every label is one.
    """
    covered = labels != VOID
    if background is not None:
        covered &= labels != background
    drawn = image.copy()
    colours = palette()[labels[covered]]
    drawn[covered] = (image[covered] * (1 - alpha) + colours * alpha + 0.5).astype(np.uint8)
    edge = _edges(labels) & covered
    drawn[edge] = (palette()[labels[edge]].astype(np.uint16) + 3 * 255) // 4
    void = labels == VOID
    if void.any():
        y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
        stripes = np.where((x + y) // STRIPE % 2, 235, 150)[void, None]
        drawn[void] = (image[void] + 3 * stripes) // 4
    return drawn


def draw_classes(
    image: NDArray[np.uint8], labels: Labels, class_names: Sequence[str]
) -> NDArray[np.uint8]:
    """Return the image with the classes found, and below it their names and shares.

    Args:
        image: uint8 RGB ``(H, W, 3)``; longer than 2048 pixels it is reduced.
        labels: uint8 ``(H, W)``.
        class_names: Name of each class.
    """
    factor = min(1.0, MOST_PIXELS / max(labels.shape))
    drawn = _draw(image, labels, class_names, factor)
    legend = _legend(shares(labels, class_names), drawn.shape[1], with_shares=True)
    return np.concatenate([drawn, legend])


def draw_classes_within(
    image: NDArray[np.uint8], labels: Labels, class_names: Sequence[str]
) -> NDArray[np.uint8]:
    """Return the image in its own size with the classes found, their names over its lower edge.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        labels: uint8 ``(H, W)``.
        class_names: Name of each class.
    """
    drawn = _draw(image, labels, class_names, 1.0)
    legend = _legend(shares(labels, class_names), drawn.shape[1], with_shares=True)
    height = legend.shape[0]
    if height * 3 > drawn.shape[0]:  # it would hide too much
        return drawn
    drawn[-height:] = (drawn[-height:] + 3 * legend.astype(np.uint16)) // 4
    return drawn


def _edges(labels: Labels) -> NDArray[np.bool_]:
    """Return where one of the four neighbours has another label."""
    edge = np.zeros(labels.shape, np.bool_)
    rows, columns = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge


def segmentation_tile(
    image: NDArray[np.uint8],
    labels: Labels,
    class_names: Sequence[str],
    truth: Labels | None = None,
    *,
    width: int = TILE_WIDTH,
) -> Tile:
    """Return the image with the classes found, and beside it with the true ones if they are known.

    The legend below names the classes to be seen, the largest first; without truth it tells their
    share of the image.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        labels: uint8 ``(H, W)``, the predicted classes.
        class_names: Name of each class; one that has none is called by its number.
        truth: uint8 ``(H, W)``, the true classes and 255 for void; None where nobody knows.
        width: Width of the whole picture in pixels.
    """
    sides = [labels] if truth is None else [labels, truth]
    height, image_width = labels.shape
    factor = panel_factor((image_width, height), len(sides), width)
    panels = [_draw(image, side, class_names, factor) for side in sides]
    entries = shares(np.stack(sides), class_names)
    if truth is None:
        count = len(entries)
        caption = f"{count} class{'' if count == 1 else 'es'}" if count else "nothing"
        picture = side_by_side(panels, [], width)
    else:
        caption = _figures(labels, truth)
        picture = side_by_side(panels, ["found", "true"], width)
    legend = _legend(entries, width, with_shares=truth is None)
    return Tile(np.concatenate([picture, legend]), [caption], wide=True)


def _draw(
    image: NDArray[np.uint8], labels: Labels, class_names: Sequence[str], factor: float
) -> NDArray[np.uint8]:
    """Return the overlay, ``factor`` times as large as the image."""
    small = resized(Image.fromarray(image), factor)
    height, width = small.shape[:2]
    fitted = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
    background = next((i for i, name in enumerate(class_names) if is_background(name)), None)
    return overlay(small, np.asarray(fitted), background=background)


def shares(labels: Labels, class_names: Sequence[str]) -> list[tuple[int, str, float]]:
    """Return label, name and share (0 to 1) of each class to be seen, the largest first.

    The background is left out; pixels without a label stand last, as void.
    """
    counts = np.bincount(labels.ravel(), minlength=256)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (i == VOID, -counts[i]))
    names = [(i, "void" if i == VOID else class_name(class_names, i)) for i in order]
    return [(i, name, counts[i] / labels.size) for i, name in names if not is_background(name)]


def is_background(name: str) -> bool:
    """Tell by its name whether a class is what lies between the objects."""
    return name in NO_CLASS or name.strip("_").lower() == "background"


def percent(share: float) -> str:
    """Return a share as a person reads it: ``23.1 %``."""
    return f"{100 * share:.1f} %" if share >= 5e-4 else "< 0.1 %"


def _figures(labels: Labels, truth: Labels) -> str:
    """Return what one image scores, as a line of text."""
    counted = truth != VOID
    found, true = labels[counted], truth[counted]
    if not true.size:
        return "all void"
    right = np.bincount(true[found == true], minlength=256)
    union = np.bincount(true, minlength=256) + np.bincount(found, minlength=256) - right
    iou = (right[union > 0] / union[union > 0]).mean()
    return f"{100 * right.sum() / true.size:.1f} % of the pixels right, mean IoU {100 * iou:.1f} %"


def _legend(
    entries: Sequence[tuple[int, str, float]], width: int, *, with_shares: bool
) -> NDArray[np.uint8]:
    """Return lines of coloured squares with their names; what finds no room is counted."""
    box, line, font = FONT_SIZE, FONT_SIZE + 2 * PAD, get_font()
    canvas = Image.new("RGB", (width, PAD + LEGEND_LINES * line), PAPER)
    draw = ImageDraw.Draw(canvas)
    left, top = 0, PAD
    for place, (label, name, share) in enumerate(entries):
        text = fit_text(name, width // 2)
        text += f" {percent(share)}" if with_shares else ""
        rest = f"and {len(entries) - place} more"
        needed = box + PAD + round(get_font(text=text).getlength(text)) + 3 * PAD
        last = top + line > canvas.height
        room = width - (round(font.getlength(rest)) if last and place + 1 < len(entries) else 0)
        if left and left + needed > room:
            if last:
                draw.text((left, top), rest, fill=INK, font=font)
                break
            left, top = 0, top + line
        canvas.paste(Image.fromarray(_swatch(label, box)), (left, top + 2))
        draw.rectangle((left, top + 2, left + box - 1, top + box + 1), outline=INK)
        draw.text((left + box + PAD, top), text, fill=INK, font=get_font(text=text))
        left += needed
    return np.asarray(canvas.crop((0, 0, width, top + line if entries else 0)))


def _swatch(label: int, side: int) -> NDArray[np.uint8]:
    if label == VOID:
        return overlay(
            np.full((side, side, 3), 255, np.uint8), np.full((side, side), VOID, np.uint8)
        )
    return np.broadcast_to(palette()[label], (side, side, 3)).copy()
