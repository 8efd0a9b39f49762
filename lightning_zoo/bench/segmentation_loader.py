"""Images and masks a second of one core: our segmentation pipeline against plain Pillow and NumPy.

Both make the same: masks to the byte, images to the byte in evaluation and within 1 in training.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.bench.loader import jpeg_files
from lightning_zoo.transforms.classification import shorter_side_size
from lightning_zoo.transforms.decode import read_image
from lightning_zoo.transforms.label_maps import VOID, MaskReader
from lightning_zoo.transforms.masks import pack
from lightning_zoo.transforms.segmentation import (
    EvalTransform,
    TrainTransform,
    merge_masks,
    random_crop_box,
)

OBJECTS = 7  # of an image, as COCO has on average
CLASSES = 21

Pixels = NDArray[np.uint8]
Pair = tuple[Any, Any]  # image and mask


class _Photo:
    """A photo with invented objects: their polygons, and their mask as a PNG file."""

    def __init__(self, file: str, seed: int, folder: Path) -> None:
        self.file = file
        with Image.open(file) as image:
            self.width, self.height = image.size
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(1, CLASSES, OBJECTS).tolist()
        self.polygons = [self._blob(rng) for _ in range(OBJECTS)]
        self.packed = [pack([polygon], self.height, self.width) for polygon in self.polygons]
        self.png = str(folder / f"{seed}.png")
        Image.fromarray(self.merged()).save(self.png)

    def _blob(self, rng: np.random.Generator) -> list[float]:
        """Return a wavy outline of 24 points, as long as COCO's are."""
        angles = np.arange(24) * (2 * np.pi / 24)
        radii = rng.uniform(0.05, 0.2) * self.width * (1 + 0.3 * np.sin(5 * angles))
        x = rng.uniform(0, self.width) + radii * np.cos(angles)
        y = rng.uniform(0, self.height) + radii * np.sin(angles)
        points = np.stack([x.clip(0, self.width), y.clip(0, self.height)], axis=1)
        return points.round(2).ravel().tolist()

    def merged(self) -> Pixels:
        """Return the mask as we merge it."""
        return merge_masks(self.packed, self.labels, self.height, self.width)

    def merged_plainly(self) -> Pixels:
        """Return the mask as pycocotools and NumPy merge it."""
        from pycocotools import mask as coco_mask

        found = [coco_mask.frPyObjects([p], self.height, self.width)[0] for p in self.polygons]
        masks = coco_mask.decode(found)  # (H, W, M)
        merged = (masks * np.array(self.labels, np.uint8)).max(axis=2)
        merged[masks.sum(axis=2) > 1] = VOID
        return merged


def segmentation_loader_benchmark(
    root: Path | None = None, images: int = 60, repeats: int = 3
) -> Iterator[dict[str, Any]]:
    """Measure decoding and transforming on one thread, ours and the plain way in turn.

    Training is the reference recipe: shorter side 260 to 1040, flip, cut-out of 480. Evaluation
    resizes to 520. Masks are merged from seven polygons an image as for COCO, or read from PNG as
    for VOC. Each file is read once before, so that no disk is measured, and time is the process's
    own on the CPU.

    Args:
        root: Folder with JPEG photos, in sub-folders too; None makes some of 500 x 375 pixels.
        images: Number of photos.
        repeats: Rounds over the photos; the median round counts.

    Yields:
        One JSON-able row for training and evaluation with each kind of mask: images a second of
        both, their ratio, the largest difference of a byte of images and masks, and the shares of
        decoding and of the mask in our time.

    Raises:
        ZooError: If ``root`` holds no JPEG.
    """
    import cv2

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    reader = MaskReader([str(label) for label in range(CLASSES)], ignore_index=VOID)

    def read_mask(photo: _Photo) -> Pixels:
        return reader(photo.png, (photo.height, photo.width))

    with tempfile.TemporaryDirectory() as folder:
        files = jpeg_files(root, images, Path(folder))
        photos = [_Photo(file, i, Path(folder)) for i, file in enumerate(files)]
        for kind, ours, plain in (
            ("COCO polygons", _Photo.merged, _Photo.merged_plainly),
            ("PNG masks", read_mask, lambda photo: np.array(Image.open(photo.png))),
        ):
            yield _compare(f"train, {kind}", photos, repeats, ours, plain, TrainTransform(), _train)
            yield _compare(f"eval, {kind}", photos, repeats, ours, plain, EvalTransform(), _eval)
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def _compare(
    name: str,
    photos: list[_Photo],
    repeats: int,
    mask: Callable[[_Photo], Pixels],
    plain_mask: Callable[[_Photo], Pixels],
    transform: Callable[[Pixels, Pixels, np.random.Generator], Pair],
    plain_transform: Callable[[Image.Image, Image.Image, np.random.Generator], Pair],
) -> dict[str, Any]:
    def ours(photo: _Photo, i: int) -> Pair:
        return transform(read_image(photo.file), mask(photo), np.random.default_rng(i))

    def plain(photo: _Photo, i: int) -> Pair:
        image = Image.open(photo.file).convert("RGB")
        rng = np.random.default_rng(i)
        image, merged = plain_transform(image, Image.fromarray(plain_mask(photo)), rng)
        planes = np.ascontiguousarray(np.array(image).transpose(2, 0, 1))
        return torch.from_numpy(planes), torch.from_numpy(np.array(merged))

    runs: dict[str, Callable[[_Photo, int], Any]] = {
        "ours": ours,
        "plain": plain,
        "decode": lambda photo, i: read_image(photo.file),
        "mask": lambda photo, i: mask(photo),
    }
    differences = [0, 0]
    for i, photo in enumerate(photos):  # also warms both up
        for k, (one, other) in enumerate(zip(ours(photo, i), plain(photo, i), strict=True)):
            differences[k] = max(differences[k], int((one.int() - other.int()).abs().max()))
    times: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        spent = dict.fromkeys(runs, 0.0)
        for i, photo in enumerate(photos):
            for key, run in runs.items():
                start = time.process_time()
                run(photo, i)
                spent[key] += time.process_time() - start
        for key, seconds in spent.items():
            times[key].append(seconds / len(photos))
    median = {key: statistics.median(values) for key, values in times.items()}
    return {
        "benchmark": "segmentation_loader",
        "pipeline": name,
        "images": len(photos),
        "repeats": repeats,
        "ours_images_per_s": round(1 / median["ours"], 1),
        "pillow_images_per_s": round(1 / median["plain"], 1),
        "speedup": round(median["plain"] / median["ours"], 2),
        "max_difference": differences[0],
        "max_mask_difference": differences[1],
        "decode_share": round(median["decode"] / median["ours"], 2),
        "mask_share": round(median["mask"] / median["ours"], 2),
    }


def _train(image: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Pair:
    height, width = shorter_side_size(image.height, image.width, int(rng.integers(260, 1041)))
    flip = rng.random() < 0.5
    y, x, h, w = random_crop_box(height, width, 480, rng)
    image = image.resize((width, height), Image.Resampling.BILINEAR).crop((x, y, x + w, y + h))
    mask = mask.resize((width, height), Image.Resampling.NEAREST).crop((x, y, x + w, y + h))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas, void = Image.new("RGB", (480, 480)), Image.new("L", (480, 480), VOID)
    canvas.paste(image)
    void.paste(mask)
    return canvas, void


def _eval(image: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Pair:
    height, width = shorter_side_size(image.height, image.width, 520)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image, mask.resize((width, height), Image.Resampling.NEAREST)
