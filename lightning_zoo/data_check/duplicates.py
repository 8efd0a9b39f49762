"""Findings of the same picture twice: byte for byte, pixel for pixel, or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.data_check.looking import Look
from lightning_zoo.formats.index import DataIndex, Item, Problem

NEAR = 6  # of 64 bits that may differ
ALIKE = 0.97  # correlation that the thumbnails must have too
FLAT = 4.0  # grey levels of standard deviation; hashes of flatter pictures say nothing
BLOCK = 2**22  # pairs that are compared at once

LEAK = ("remove one: what was learned by heart in one split makes the figures of the other too "
        "good")  # fmt: skip


def check_duplicates(index: DataIndex, looks: Mapping[str, Look]) -> Iterator[Problem]:
    """Yield pictures and videos that are there more than once, and those that look alike."""
    items = list({i.file: i for i in index.items if not looks[i.file].error}.values())
    noun = "video" if index.task == "video" else "image"
    yield from _same(index, items, looks, noun)
    yield from _near(index, items, looks, noun)


def check_entries(index: DataIndex) -> Iterator[Problem]:
    """Yield files that are listed twice, and numbers (ids) that two images have."""
    seen: dict[str, Item] = {}
    numbers: dict[tuple[str, int], Item] = {}
    for item in index.items:
        other = seen.setdefault(item.file, item)
        if other is not item:
            both = item.split if item.split == other.split else f"{other.split} and {item.split}"
            yield Problem("error", "image listed twice", item.file, f"in {both}",
                          "list it once, with all of its labels")  # fmt: skip
        if item.number is not None:
            first = numbers.setdefault((item.source, item.number), item)
            if first is not item and first.file != item.file:
                yield Problem("error", "id of two images", f"{first.file}, {item.file}",
                              f"both have the id {item.number}",
                              "give every image an id of its own")  # fmt: skip


def _same(
    index: DataIndex, items: Sequence[Item], looks: Mapping[str, Look], noun: str
) -> Iterator[Problem]:
    """Yield groups of files with the same content."""
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        groups.setdefault(looks[item.file].pixel_hash, []).append(item)
    for group in groups.values():
        if len(group) < 2:
            continue
        where = ", ".join(item.file for item in group)
        same_bytes = len({looks[item.file].file_hash for item in group}) == 1
        what = "the same bytes" if same_bytes else "the same pixels in other bytes"
        splits = list(dict.fromkeys(item.split for item in group))
        labels = list(dict.fromkeys(_labels(index, item) for item in group))
        if len(labels) > 1:
            yield Problem("error", f"same {noun} with different labels", where,
                          f"{what}, labelled {' and '.join(labels)}",
                          "keep one of them, with the right label")  # fmt: skip
        if len(splits) > 1:
            yield Problem("warning", f"same {noun} in two splits", where,
                          f"{what} in {' and '.join(splits)}", LEAK)  # fmt: skip
        elif len(labels) == 1:
            yield Problem("note", f"same {noun} twice in a split", where,
                          f"{what} in {splits[0]}", "keep one of them")  # fmt: skip


def _labels(index: DataIndex, item: Item) -> str:
    """Return an item's labels as a text, where it has labels of its own."""
    if index.task in ("detection", "segmentation"):
        return ""
    return ", ".join(sorted(index.classes[label] for label in item.labels)) or "none"


def _near(
    index: DataIndex, items: Sequence[Item], looks: Mapping[str, Look], noun: str
) -> Iterator[Problem]:
    """Yield the pictures of a split that are nearly in an earlier one."""
    by_split = {split: [i for i in items if i.split == split] for split in index.splits}
    splits = list(by_split)
    for place, split in enumerate(splits[1:], start=1):
        here = by_split[split]
        there = [item for earlier in splits[:place] for item in by_split[earlier]]
        partners: dict[int, list[tuple[int, int]]] = {}
        for a, b, distance in near_pairs(
            [looks[item.file] for item in here], [looks[item.file] for item in there]
        ):
            if looks[here[a].file].pixel_hash != looks[there[b].file].pixel_hash:
                partners.setdefault(a, []).append((distance, b))
        for a, found in partners.items():
            distance, b = min(found)
            more = f" (and to {len(found) - 1} more)" if len(found) > 1 else ""
            yield Problem(
                "warning", f"nearly the same {noun} in two splits",
                f"{here[a].file}, {there[b].file}",
                f"in {split} and {there[b].split}: their hashes differ in {distance} of 64 bits"
                f"{more}", "look at both; frames of one video or copies belong into one split",
            )  # fmt: skip


def near_pairs(here: Sequence[Look], there: Sequence[Look]) -> list[tuple[int, int, int]]:
    """Return the places of pictures that look alike, and the bits in which their hashes differ.

    A product of matrices finds them, block by block: 20,000 by 80,000 take about 14 s of one core.
    """
    left, left_views, left_places = _stack(here)
    right, right_views, right_places = _stack(there)
    found: list[tuple[int, int, int]] = []
    step = max(1, BLOCK // max(1, len(right)))
    for start in range(0, len(left), step):
        # the product of rows of +1 and -1 is the bits that agree less those that differ
        agree = left[start : start + step] @ right.T
        rows, columns = np.nonzero(agree >= 64 - 2 * NEAR)
        distances = ((64 - agree[rows, columns]) / 2).astype(int)
        rows += start
        for begin in range(0, len(rows), BLOCK // 256):
            part = slice(begin, begin + BLOCK // 256)
            alike = (left_views[rows[part]] * right_views[columns[part]]).sum(axis=1) >= ALIKE
            found += [
                (left_places[a], right_places[b], d)
                for a, b, d in zip(rows[part][alike].tolist(), columns[part][alike].tolist(),
                                   distances[part][alike].tolist(), strict=True)
            ]  # fmt: skip
    return found


def _stack(looks: Sequence[Look]) -> tuple[NDArray[np.float32], NDArray[np.float32], list[int]]:
    """Return hashes (N, 64) of +1 and -1, thumbnails (N, 256) of length 1, and their places.

    Flat pictures are left out.
    """
    places, bits, views = [], [], []
    for place, look in enumerate(looks):
        if look.gradients is None or look.thumbnail is None:
            continue
        view = look.thumbnail.ravel().astype(np.float32)
        view -= view.mean()
        length = float(np.linalg.norm(view))
        if length / np.sqrt(len(view)) < FLAT:
            continue
        places.append(place)
        bits.append(look.gradients)
        views.append(view / length)
    if not places:
        return np.zeros((0, 64), np.float32), np.zeros((0, 256), np.float32), []
    return np.where(np.stack(bits), 1, -1).astype(np.float32), np.stack(views), places
