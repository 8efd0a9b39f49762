"""Images a second of one core: our transforms against the same ones done by Pillow.

JPEG decoding sets the limit: both decode with libjpeg-turbo, and it is half to two thirds of our
time.
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
from torch import Tensor

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.classification import (
    EvalTransform,
    TrainTransform,
    random_crop_box,
    shorter_side_size,
)
from lightning_zoo.transforms.decode import read_image

GOAL = 1.8  # times as many images a second

Pipeline = Callable[[str, int], Tensor]


def loader_benchmark(
    root: Path | None = None, images: int = 100, repeats: int = 3
) -> Iterator[dict[str, Any]]:
    """Measure decoding and transforming on one thread, ours and Pillow's in turn in one process.

    Both make the same tensors, uint8 (3, 224, 224): for training a random resized crop (the same
    boxes) and a flip, for evaluation 256 pixels on the shorter side and the centre of 224. Each
    file is read once before, so that no disk is measured, and time is the process's own on the
    CPU, so that neighbours on the machine matter less.

    Args:
        root: Folder with JPEG photos, in sub-folders too; None makes some of 500 x 375 pixels.
        images: Number of photos.
        repeats: Rounds over the photos; the median round counts.

    Yields:
        One JSON-able row for ``"train"``, ``"eval"`` and the latter with torch's resize: images a
        second of both, their ratio, the largest difference of a byte, and the share of decoding in
        our time.

    Raises:
        ZooError: If ``root`` holds no JPEG.
    """
    import cv2

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        photos = jpeg_files(root, images, Path(folder))
        train, evaluate, fast = TrainTransform(), EvalTransform(), EvalTransform(exact=False)
        yield _compare(
            "train",
            photos,
            repeats,
            ours=lambda file, i: train(read_image(file), np.random.default_rng(i)),
            pillow=_pillow_train,
        )
        yield _compare(
            "eval",
            photos,
            repeats,
            ours=lambda file, i: evaluate(read_image(file)),
            pillow=_pillow_eval,
        )
        yield _compare(
            "eval, torch's resize",
            photos,
            repeats,
            ours=lambda file, i: fast(read_image(file)),
            pillow=_pillow_eval,
        )
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def _compare(
    name: str, photos: list[str], repeats: int, *, ours: Pipeline, pillow: Pipeline
) -> dict[str, Any]:
    difference = 0
    for i, file in enumerate(photos):  # also warms both up
        pair = ours(file, i).int(), pillow(file, i).int()
        difference = max(difference, int((pair[0] - pair[1]).abs().max()))
    times: dict[str, list[float]] = {"ours": [], "pillow": [], "decode": []}
    for _ in range(repeats):
        spent = dict.fromkeys(times, 0.0)
        for i, file in enumerate(photos):
            for key, run in (("ours", ours), ("pillow", pillow), ("decode", _decode)):
                start = time.process_time()
                run(file, i)
                spent[key] += time.process_time() - start
        for key, seconds in spent.items():
            times[key].append(seconds / len(photos))
    ours_s, pillow_s, decode_s = (statistics.median(times[key]) for key in times)
    return {
        "benchmark": "loader",
        "pipeline": name,
        "images": len(photos),
        "repeats": repeats,
        "ours_images_per_s": round(1 / ours_s, 1),
        "pillow_images_per_s": round(1 / pillow_s, 1),
        "speedup": round(pillow_s / ours_s, 2),
        "goal": GOAL,
        "reached": pillow_s / ours_s >= GOAL,
        "max_difference": difference,
        "decode_share": round(decode_s / ours_s, 2),
    }


def _decode(file: str, i: int) -> Any:
    return read_image(file)


def _pillow_train(file: str, i: int) -> Tensor:
    image = Image.open(file).convert("RGB")
    rng = np.random.default_rng(i)
    y, x, height, width = random_crop_box(image.height, image.width, rng)
    flip = rng.random() < 0.5
    image = image.crop((x, y, x + width, y + height))
    image = image.resize((224, 224), Image.Resampling.BILINEAR)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _to_tensor(np.array(image))


def _pillow_eval(file: str, i: int) -> Tensor:
    image = Image.open(file).convert("RGB")
    height, width = shorter_side_size(image.height, image.width, 256)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - 224) / 2.0), round((width - 224) / 2.0)
    return _to_tensor(np.array(image.crop((left, top, left + 224, top + 224))))


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def jpeg_files(root: Path | None, images: int, folder: Path) -> list[str]:
    """Return JPEG files, made in ``folder`` where there is no root."""
    if root is None:
        for seed in range(images):
            (folder / f"{seed}.jpg").write_bytes(_photo(seed))
        root = folder
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise ZooError(f"no .jpg or .jpeg in {str(root)!r}; name a folder of photos")
    every = max(1, len(found) // images)
    return [str(path) for path in found[::every][:images]]


def _photo(seed: int) -> bytes:
    """Return a JPEG of 500 x 375 pixels with as much detail as a photo (about 100 kB)."""
    import cv2

    rng = np.random.default_rng(seed)
    pixels = np.zeros((375, 500, 3))
    for cells in (4, 16, 64, 250):  # detail falls with its scale, as in photos
        noise = rng.normal(0, 1, (cells * 3 // 4, cells, 3))
        pixels += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC) / cells**0.5
    pixels = 128 + 45 * pixels / pixels.std()
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    encoded = cv2.imencode(".jpg", pixels.clip(0, 255).astype(np.uint8), quality)[1]
    return encoded.tobytes()
