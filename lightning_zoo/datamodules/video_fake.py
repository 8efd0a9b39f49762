"""Tiny videos for tests and smoke runs: a square that moves, its class told by colour and way."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAMES, FPS = 20, 15  # a few frames more than a clip of 16
WAYS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up
SPLITS = ("train", "val", "test")


def write_fake_folders(
    root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
) -> None:
    """Write ``<split>/class_<n>/<split>_<i>.mp4`` for train, val and test.

    Args:
        root: Folder to fill; made if it is missing.
        classes: Number of classes.
        images: Videos of each split, at least one a class.
        size: Width of the frames in pixels.
        seed: Seed of the pixels.
    """
    rng = np.random.default_rng(seed)
    for split in SPLITS:
        for i in range(max(images, classes)):
            path = root / split / f"class_{i % classes}" / f"{split}_{i:04d}.mp4"
            write_fake_video(path, i % classes, size, rng)


def write_fake_kinetics(
    root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
) -> None:
    """Write ``<split>/<class>/<id>_<start>_<end>.mp4`` and ``annotations/<split>.csv``, no test.

    Args:
        root: Folder to fill; made if it is missing.
        classes: Number of classes.
        images: Videos of each split, at least one a class.
        size: Width of the frames in pixels.
        seed: Seed of the pixels.
    """
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in SPLITS[:2]:
        rows = []
        for i in range(max(images, classes)):
            label, video = f"moving square {i % classes}", f"{split:_<7}{i:04d}"
            path = root / split / label / f"{video}_{i:06d}_{i + 10:06d}.mp4"
            write_fake_video(path, i % classes, size, rng)
            rows.append((label, video, i, i + 10, split, 0))
        with (root / "annotations" / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("label", "youtube_id", "time_start", "time_end", "split", "is_cc"))
            table.writerows(rows)


def write_fake_video(path: Path, label: int, size: int, rng: np.random.Generator) -> None:
    """Write an mp4 of ``FRAMES`` frames, ``size`` x ``size * 3 / 4`` pixels (made even)."""
    width, height = max(16, size // 2 * 2), max(16, size * 3 // 8 * 2)
    write_mp4(path, moving_square(label, height, width, FRAMES, rng), FPS)


def moving_square(
    label: int, height: int, width: int, frames: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw a square that crosses a noisy background once, around its edges.

    Args:
        label: Class, which chooses the way (right, down, left, up) and the colour.
        height: Pixels.
        width: Pixels.
        frames: Number T of frames.
        rng: Where it begins, and the noise.

    Returns:
        uint8 (T, H, W, 3), RGB.
    """
    colour = 60 + np.array([label * 89, label * 53 + 60, label * 151 + 120]) % 196
    side = max(4, min(height, width) // 3)
    square = np.zeros((height, width), np.bool_)
    square[:side, :side] = True
    start = rng.integers((height, width))
    way = WAYS[label % len(WAYS)]
    video = rng.integers(0, 50, (1, height, width, 3)).repeat(frames, axis=0).astype(np.uint8)
    for i, frame in enumerate(video):
        y, x = start + np.array(way) * (i * np.array((height, width)) // frames)
        frame[np.roll(square, (int(y), int(x)), (0, 1))] = colour
    return video


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    """Encode frames uint8 (T, H, W, 3) of even sizes as MPEG-4; folders are made."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=Fraction(fps), options={"qscale": "3"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
