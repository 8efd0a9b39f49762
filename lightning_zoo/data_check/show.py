"""Pictures of labels as they are in the data, and of the batch that training makes of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.batch import counted
from lightning_zoo.data_check.mask_files import make_reader
from lightning_zoo.drawing.arrays import as_array
from lightning_zoo.drawing.detection import draw_objects
from lightning_zoo.drawing.grid import Tile, draw_grid
from lightning_zoo.drawing.panels import panel_factor, resized, side_by_side
from lightning_zoo.drawing.segmentation import segmentation_tile
from lightning_zoo.drawing.video import FRAMES, contact_sheet
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.formats import read_data
from lightning_zoo.formats.index import DataIndex, Item, TaskName
from lightning_zoo.keypoints import DEFAULT_SIGMA, Skeleton
from lightning_zoo.transforms.decode import DecodeError, read_image
from lightning_zoo.transforms.masks import MaskError, pack, to_rle, without_degenerate

FEW, MANY = 2, 4  # columns of up to four pictures, and of more
WIDTHS = {FEW: 720, MANY: 480}  # of a picture with objects, in pixels
NO_LABEL = -1
SQUARE = 320  # of a picture with a label
SHEET = {FEW: 800, MANY: 480}  # of a video's frames


def show_data(
    root_or_index: str | Path | DataIndex,
    *,
    n: int = 16,
    split: str | None = None,
    class_name: str | None = None,
    out: str | Path | None = None,
    augmented: bool = False,
    recipe: str | Path | None = None,
    seed: int = 0,
    format: str = "auto",
    task: TaskName | None = None,
    val_share: float = 0.2,
    split_seed: int = 0,
    annotations: str | Path | None = None,
) -> list[Path]:
    """Draw images with their labels into a PNG file, and a training batch into another.

    Args:
        root_or_index: Folder of the data, or what ``read_data`` made of it.
        n: Images (or videos) to draw, spread over the classes.
        split: The split to draw from; None takes all.
        class_name: Draw those alone that show this class.
        out: The file; None: ``<name of the folder>_labels.png`` here.
        augmented: Draw a training batch too, as ``finetune`` would make it; its file has
            ``_augmented`` in its name.
        recipe: Name or file of a recipe that makes the batch; implies ``augmented``.
        seed: Seed of the choice and of the augmentation.
        format: Format of the data, as in ``read_data``, which takes the rest too.
        task: Task of the model that is to learn from it.
        val_share: Share of the training images that validate where there is no such split.
        split_seed: Seed of that split.
        annotations: The one annotation file to read.

    Returns:
        The files that were written.

    Raises:
        ZooError: If there is nothing to draw, or an argument names what is not there.
    """
    if n < 1:
        raise ZooError(f"n is {n}; expected at least 1 image to draw")
    index = (
        root_or_index
        if isinstance(root_or_index, DataIndex)
        else read_data(
            root_or_index, format=format, task=task, val_share=val_share, split_seed=split_seed,
            annotations=annotations,
        )
    )  # fmt: skip
    if split is not None and split not in index.splits:
        raise unknown("split", split, index.splits)
    if class_name is not None and class_name not in index.classes:
        raise unknown("class", class_name, index.classes)
    path = Path(out) if out is not None else Path(f"{index.root.resolve().name}_labels.png")
    if not path.parent.is_dir():
        raise ZooError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ZooError(f"out is {str(path)!r}; expected a picture's name, ending in .png")
    batch = None
    if augmented or recipe is not None:  # what is wrong with the recipe is told first
        from lightning_zoo.data_check.augmented import training_batch

        reading = {
            "format": index.format, "val_share": val_share, "split_seed": split_seed,
            "annotations": None if annotations is None else str(Path(annotations).absolute()),
        }  # fmt: skip
        batch = training_batch(index, recipe, count=n, seed=seed, reading=reading)
    label = None if class_name is None else index.classes.index(class_name)
    save_grid(label_tiles(index, n, split=split, label=label, seed=seed), path)
    if batch is None:
        return [path]
    second = path.with_stem(f"{path.stem.removesuffix('_labels')}_augmented")
    save_grid(batch_tiles(index, *batch, count=n), second)
    return [path, second]


def label_tiles(
    index: DataIndex, n: int, *, split: str | None = None, label: int | None = None, seed: int = 0
) -> list[Tile]:
    """Return up to ``n`` images or videos with their labels; what cannot be read is passed over.

    Raises:
        ZooError: If there is none.
    """
    draw = _drawer(index, n)
    tiles: list[Tile] = []
    broken = ""
    for item in spread_out(index, split=split, label=label, seed=seed):
        try:
            tile = draw(item, label)
        except DecodeError as error:
            broken = broken or str(error)
            continue
        if tile is not None:
            tiles.append(tile)
            if len(tiles) == n:
                break
    if not tiles:
        what = "" if label is None else f" of class {index.classes[label]!r}"
        where = "" if split is None else f" in {split}"
        raise ZooError(f"there is nothing{what}{where} to draw" + (f": {broken}" if broken else ""))
    return tiles


def spread_out(
    index: DataIndex, *, split: str | None = None, label: int | None = None, seed: int = 0
) -> Iterator[Item]:
    """Yield the items in a seeded order in which the classes take turns, the rarest first.

    What has no label takes a turn in every fourth round.
    """
    items = [*index.items] if split is None else [*index.of(split)]
    random.Random(seed).shuffle(items)
    shown: dict[int, list[Item]] = {}
    for item in items:
        labels = {*item.labels, *(o.label for o in item.objects if not o.crowd)}
        if label is not None and labels and label not in labels:
            continue
        if label is not None and not labels and index.task != "segmentation":
            continue
        for one in labels or {NO_LABEL}:
            shown.setdefault(one, []).append(item)
    order = sorted(shown, key=lambda one: (one == NO_LABEL, len(shown[one]), one))
    queues = {one: iter(shown[one]) for one in order}
    seen: set[str] = set()
    for turn in itertools.count(1):
        if not queues:
            return
        for one in list(queues):
            if one == NO_LABEL and len(queues) > 1 and turn % 4:
                continue
            for item in queues[one]:
                if item.file not in seen:
                    seen.add(item.file)
                    yield item
                    break
            else:
                del queues[one]


def save_grid(tiles: Sequence[Tile], path: Path) -> None:
    """Write tiles side by side."""
    side = None if any(tile.wide for tile in tiles) else SQUARE
    draw_grid(tiles, columns=_columns(len(tiles)), side=side).save(path)


def batch_tiles(
    index: DataIndex, batch: dict[str, Any], class_names: Sequence[str], *, count: int
) -> list[Tile]:
    """Return a tile for each sample of a training batch, drawn as the labels are."""
    columns = _columns(count)
    tiles = []
    for place in range(min(count, len(batch["id"]))):
        name = str(batch["id"][place])
        name = f"image {name}" if name.isdecimal() else name
        if "video" in batch:
            clip = as_array(batch["video"][place]).transpose(1, 2, 3, 0)
            names = class_names[int(batch["label"][place])]
            size = f"{clip.shape[0]} frames of {clip.shape[2]} x {clip.shape[1]}"
            sheet = contact_sheet(clip, width=SHEET[columns])
            tiles.append(Tile(sheet, [names, f"{size}  {name}"], wide=True))
            continue
        image = as_array(batch["image"][place]).transpose(1, 2, 0)
        size = f"{image.shape[1]} x {image.shape[0]}"
        if "mask" in batch:
            mask = as_array(batch["mask"][place]).astype(np.uint8)
            tile = segmentation_tile(image, mask, class_names, width=WIDTHS[columns])
            tiles.append(Tile(tile.image, [f"{size}  {name}"], wide=True))
        elif "target" in batch:
            target = batch["target"][place]
            tiles.append(
                _objects_tile(
                    image, as_array(target["boxes"]), as_array(target["labels"]), class_names,
                    masks=target.get("masks"), keypoints=target.get("keypoints"),
                    crowds=target.get("iscrowd"), skeleton=_skeleton(index),
                    caption=size, file=name, width=WIDTHS[columns],
                )
            )  # fmt: skip
        else:
            value = as_array(batch["label"][place])
            labels = np.flatnonzero(value).tolist() if value.ndim else [int(value)]
            names = ", ".join(class_names[label] for label in labels) or "no label"
            tiles.append(Tile(image, [names, f"{size}  {name}"]))
    return tiles


def _columns(count: int) -> int:
    return FEW if count <= 4 else MANY


def _drawer(index: DataIndex, n: int) -> Callable[[Item, int | None], Tile | None]:
    """Return what draws an item, or returns None where the class asked for is not in it."""
    columns = _columns(n)
    if index.task == "detection":
        return lambda item, _: _draw_objects(index, item, WIDTHS[columns])
    if index.task == "video":
        return lambda item, _: _draw_video(index, item, SHEET[columns])
    if index.task == "segmentation":
        reader = make_reader(index)

        def draw(item: Item, label: int | None) -> Tile | None:
            if item.mask is None:
                return None
            image = read_image(index.root / item.file)
            mask = reader(str(index.root / item.mask), (image.shape[0], image.shape[1]))
            if label is not None and not (mask == label).any():
                return None
            tile = segmentation_tile(image, mask, index.classes, width=WIDTHS[columns])
            return Tile(tile.image, [_caption(item)], wide=True)

        return draw
    return lambda item, _: Tile(
        read_image(index.root / item.file), [_names(index, item), _caption(item)]
    )


def _caption(item: Item) -> str:
    """Return the file, with its split before it where no folder tells it."""
    told = any(part.startswith(item.split) for part in item.file.split("/")[:-1])
    return item.file if told else f"{item.split}: {item.file}"


def _names(index: DataIndex, item: Item) -> str:
    return ", ".join(index.classes[label] for label in item.labels) or "no label"


def _skeleton(index: DataIndex) -> Skeleton | None:
    if not index.keypoints:
        return None
    sigmas = (DEFAULT_SIGMA,) * len(index.keypoints)
    return Skeleton(index.keypoints, index.flip_pairs, index.bones, sigmas)


def _draw_objects(index: DataIndex, item: Item, width: int) -> Tile:
    image = read_image(index.root / item.file)
    things = item.objects
    boxes = np.array([thing.box for thing in things], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = keypoints = None
    if any(thing.segmentation for thing in things):
        masks = [_rle(thing.segmentation, *image.shape[:2]) for thing in things]
    if index.keypoints and any(thing.keypoints for thing in things):
        none = (0.0,) * (3 * len(index.keypoints))
        keypoints = np.array([thing.keypoints or none for thing in things], np.float64)
        keypoints = keypoints.reshape(len(things), -1, 3)
    crowds = sum(thing.crowd for thing in things)
    caption = counted(len(things) - crowds, "object") + (
        f", {counted(crowds, 'crowd')}" if crowds else ""
    )
    return _objects_tile(
        image, boxes, np.array([thing.label + 1 for thing in things], np.int64),
        ["background", *index.classes], masks=masks, keypoints=keypoints,
        crowds=np.array([thing.crowd for thing in things]), skeleton=_skeleton(index),
        caption=caption, file=_caption(item), width=width,
    )  # fmt: skip


def _rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return a mask's run lengths, of an empty mask where it cannot be drawn."""
    try:
        return to_rle(pack(without_degenerate(segmentation), height, width), height, width)
    except MaskError:
        return to_rle(b"", height, width)


def _objects_tile(
    image: NDArray[np.uint8],
    boxes: NDArray[Any],
    labels: NDArray[Any],
    class_names: Sequence[str],
    *,
    masks: Any,
    keypoints: Any,
    crowds: Any,
    skeleton: Skeleton | None,
    caption: str,
    file: str,
    width: int,
) -> Tile:
    """Return an image with its objects, enlarged or reduced first so that names can be read."""
    factor = panel_factor((image.shape[1], image.shape[0]), 1, width)
    small = resized(Image.fromarray(image), factor)
    if keypoints is not None:
        keypoints = as_array(keypoints).astype(np.float64)
        keypoints[..., :2] *= factor
    drawn = draw_objects(
        small, boxes.astype(np.float64) * factor, labels, class_names, masks=masks,
        keypoints=keypoints, skeleton=skeleton, iscrowd=crowds,
    )  # fmt: skip
    return Tile(side_by_side([drawn], [], width), [f"{caption}  {file}"], wide=True)


def _draw_video(index: DataIndex, item: Item, width: int) -> Tile:
    from lightning_zoo.transforms.video_decode import probe, read_frames

    path = index.root / item.file
    times = probe(path)
    count = min(FRAMES, len(times))
    frames = read_frames(path, times, [i * len(times) // count for i in range(count)])
    seconds = float(times.seconds[-1])
    lines = [_names(index, item), f"{seconds:.1f} s  {_caption(item)}"]
    return Tile(contact_sheet(frames, width=width), lines, wide=True)
