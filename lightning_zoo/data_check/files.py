"""Findings in image files: broken, turned, of another size than their labels say, odd or huge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lightning_zoo.data_check.looking import Look
from lightning_zoo.formats.index import DataIndex, Item, Problem

EXTREME_RATIO = 4.0  # longer by shorter side
LARGE_PIXELS = 20_000_000
SMALL_SIDE = 32
# how readers name the kinds of problems that images without labels are
TOLD = ("without a row", "without a mask", "outside the class folders")
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF's orientations that exchange width and height
UPRIGHT = (
    "turn the pixels themselves, once: `mogrify -auto-orient FILE` (ImageMagick), or Pillow's "
    "ImageOps.exif_transpose"
)


def check_files(index: DataIndex, looks: Mapping[str, Look]) -> Iterator[Problem]:
    """Yield what is wrong with the image files."""
    for item in index.items:
        look = looks[item.file]
        if look.error:
            yield Problem("error", "image that cannot be read", item.file, look.error,
                          "mend or remove it, or train with --data.on_error skip")  # fmt: skip
            continue
        if look.orientation != 1:
            yield _turned(index, item, look)
        if item.width and (item.width, item.height) != (look.width, look.height):
            fits = (item.width, item.height) == (look.height, look.width)
            if not (fits and look.orientation in QUARTER_TURNS):  # told above
                yield Problem(
                    "error", "image of another size than its labels say", item.file,
                    f"the file has {look.width} x {look.height} pixels, its labels are for "
                    f"{item.width} x {item.height}" + (", the same on its side" if fits else ""),
                    "put the image that was labelled back, or label this one",
                )  # fmt: skip
        yield from _odd(item, look)
    if not any(problem.kind.endswith(TOLD) for problem in index.problems):
        used = {item.file for item in index.items}
        for file in index.unlabelled:
            if file not in used:
                yield Problem("note", "image without labels", file, "no label names it, and it is "
                              "left out", "label it, or remove it")  # fmt: skip


def _turned(index: DataIndex, item: Item, look: Look) -> Problem:
    """Judge an image that its EXIF says to turn, which training never does."""
    kind = "image that EXIF turns"
    stored, turned = (look.width, look.height), (look.height, look.width)
    said = (item.width, item.height)
    what = f"orientation {look.orientation}, stored as {stored[0]} x {stored[1]}"
    if index.task != "detection":
        what += "; it is trained on as it is stored"
        return Problem("note", kind, item.file, what, UPRIGHT)
    # YOLO's labels state no size: what stands in the index is the file's own
    stated = item.width and index.format != "yolo"
    if look.orientation in QUARTER_TURNS and stated and stored != turned:
        if said == stored:
            return Problem(
                "note", kind, item.file,
                f"{what}; its labels are for {said[0]} x {said[1]}, so they fit as it is stored, "
                "and so it is trained on", "nothing is wrong with the labels",
            )  # fmt: skip
        if said == turned:
            return Problem(
                "error", kind, item.file,
                f"{what}; its labels are for {said[0]} x {said[1]}, so they were drawn on the "
                "turned picture and miss the stored one", UPRIGHT,
            )  # fmt: skip
    return Problem(
        "warning", kind, item.file,
        f"{what}; boxes are taken as drawn on the stored picture, and nothing tells whether they "
        "were", f"look at it with data show; if they are off, {UPRIGHT}",
    )  # fmt: skip


def _odd(item: Item, look: Look) -> Iterator[Problem]:
    size = f"{look.width} x {look.height} pixels"
    long, short = max(look.width, look.height), min(look.width, look.height)
    if long > EXTREME_RATIO * short:
        yield Problem("note", "image of an extreme shape", item.file,
                      f"{size}, one side {long / short:.1f} times the other",
                      "cut it into parts: resizing leaves few pixels of one side")  # fmt: skip
    if look.width * look.height > LARGE_PIXELS:
        yield Problem("note", "very large image", item.file, size,
                      "scale images down once, to 2048 pixels say: decoding costs more than "
                      "training")  # fmt: skip
    if short < SMALL_SIDE:
        yield Problem("note", "very small image", item.file, size,
                      "networks for photos see little here; is it a thumbnail?")  # fmt: skip
