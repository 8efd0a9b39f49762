"""Which samples of a batch a loss comes from, and what is odd about them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.models.detection.inputs import ROWS
from lightning_zoo.transforms.label_maps import VOID

HUGE = 10.0  # times the image's side; boxes of a training batch lie within the image
SECONDS = 60.0  # for the search

# Whether a part of a batch, given by positions, has a loss that is not finite; None: nobody knows
IsBad = Callable[[Sequence[int]], bool | None]


@dataclass(frozen=True)
class Oddity:
    """Something in a batch that no loss can be computed from, or hardly.

    Attributes:
        sample: Position in the batch.
        text: What it is.
        item: Position of the object, of those of the sample; None for the sample itself.
        box: The object's ``x1, y1, x2, y2`` in pixels.
        label: The object's label.
    """

    sample: int
    text: str
    item: int | None = None
    box: tuple[float, ...] | None = None
    label: int | None = None


def size_of(batch: Mapping[str, Any]) -> int:
    """Return how many samples a batch has."""
    return len(batch["id"])


def part_of(batch: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """Return some samples of a batch as a batch; a position may stand twice."""
    count = size_of(batch)

    def part(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == count:
            return value[list(keep)]
        if isinstance(value, list) and len(value) == count:
            return [value[i] for i in keep]
        return value

    return {name: part(value) for name, value in batch.items()}


def with_objects(batch: Mapping[str, Any], sample: int, keep: Sequence[int]) -> dict[str, Any]:
    """Return a batch of lists in which one sample has some of its objects alone."""
    targets = list(batch["target"])
    targets[sample] = {
        name: value[list(keep)] if name in ROWS else value
        for name, value in targets[sample].items()
    }
    return {**batch, "target": targets}


def culprits(count: int, is_bad: IsBad) -> list[int]:
    """Return the items that make a whole bad: each alone does, and without them it is not.

    None are returned where every item does it, or none can be told from the others.

    Args:
        count: Number of items.
        is_bad: Says it of some of them.
    """
    end = time.monotonic() + SECONDS
    alone = []
    for i in range(count):
        if is_bad([i]):
            alone.append(i)
        if time.monotonic() > end:
            return []
    if len(alone) == count:
        return alone if count == 1 else []
    if alone:
        return alone if is_bad([i for i in range(count) if i not in alone]) is False else []
    without = []
    for i in range(count):
        if is_bad([j for j in range(count) if j != i]) is False:
            without.append(i)
        if time.monotonic() > end:
            break
    return without if len(without) < count else []


def look(batch: Mapping[str, Any], num_classes: int, *, multilabel: bool = False) -> list[Oddity]:
    """Return what is odd about a batch.

    Args:
        batch: As a task is given it.
        num_classes: Number of classes, of detectors with the background.
        multilabel: Whether the labels of an image are a row of zeros and ones.
    """
    found: list[Oddity] = []
    for i in range(size_of(batch)):
        one = {
            name: value[0]
            for name, value in part_of(batch, [i]).items()
            if isinstance(value, list | Tensor) and len(value) == 1
        }
        for text in _pixels(one):
            found.append(Oddity(i, text))
        if "label" in one and (text := _label(one["label"], num_classes, multilabel)):
            found.append(Oddity(i, text))
        if isinstance(one.get("mask"), Tensor):
            wrong = sorted(
                v for v in one["mask"].unique().tolist() if not (0 <= v < num_classes or v == VOID)
            )
            if wrong:
                text = f"labels {', '.join(map(str, wrong[:8]))} in the mask"
                found.append(Oddity(i, f"{text}; expected 0 to {num_classes - 1} or {VOID}"))
        if isinstance(target := one.get("target"), Mapping):
            found += _objects(i, target, one["image"], num_classes)
    return found


def _pixels(one: Mapping[str, Any]) -> Iterator[str]:
    for name in ("image", "video"):
        pixels = one.get(name)
        if isinstance(pixels, Tensor) and pixels.is_floating_point():
            bad = int((~pixels.isfinite()).sum())
            if bad:
                yield f"{bad} of {pixels.numel()} values of the {name} are not finite"


def _label(label: Any, num_classes: int, multilabel: bool) -> str:
    values = torch.as_tensor(label)
    if multilabel:
        good = values.isfinite() & (values >= 0) & (values <= 1)
        return "" if bool(good.all()) else "labels that are not between 0 and 1"
    if values.ndim or 0 <= int(values) < num_classes:
        return ""
    return f"label {int(values)}; expected 0 to {num_classes - 1}"


def _objects(
    sample: int, target: Mapping[str, Any], image: Tensor, num_classes: int
) -> Iterator[Oddity]:
    height, width = image.shape[-2:]
    labels = target["labels"].tolist()
    for i, (box, label) in enumerate(zip(target["boxes"].tolist(), labels, strict=True)):
        x1, y1, x2, y2 = box
        texts = []
        if not all(map(math.isfinite, box)):
            texts.append("its box is not finite")
        elif x2 <= x1 or y2 <= y1:
            texts.append("its box has no area")
        elif max(abs(x1), abs(x2)) > HUGE * width or max(abs(y1), abs(y2)) > HUGE * height:
            texts.append(f"its box reaches far out of the image of {width} x {height} pixels")
        elif min(x2 - x1, y2 - y1) < 1e-2:
            texts.append("its box is thinner than a hundredth of a pixel")
        if not 0 < label < num_classes:
            texts.append(f"its label is {label}; expected 1 to {num_classes - 1}")
        if "masks" in target and not bool(target["masks"][i].any()):
            texts.append("its mask is empty")
        if "keypoints" in target:
            points = target["keypoints"][i]
            if not bool(points.isfinite().all()):
                texts.append("its keypoints are not finite")
            elif float(points[:, :2].abs().max()) > HUGE * max(width, height):
                texts.append("its keypoints lie far out of the image")
        for text in texts:
            yield Oddity(sample, text, i, tuple(box), label)
