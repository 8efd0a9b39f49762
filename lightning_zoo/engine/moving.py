"""Short videos of a moving shape, encoded on the spot: data for the video demo."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_zoo.engine.shapes import shape_polygon

MOTIONS = ("down", "grow", "left", "right", "turn", "up")
STEPS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}
TURNING = ("cross", "square", "star", "triangle")  # a turning circle would stand still


def draw_motion(
    motion: str, rng: np.random.Generator, *, side: int, frames: int
) -> NDArray[np.uint8]:
    """Return a video of one shape that moves as its class says; uint8 (frames, side, side, 3).

    Shapes, colours and sizes are drawn alike for all classes: what tells them is the motion.
    """
    name = str(rng.choice(TURNING))
    ink = tuple(int(v) for v in rng.integers(150, 256, 3))
    ground = rng.integers(0, 90, 3)
    angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.14, 0.26) * side
    path = rng.uniform(0.3, 0.5) * side  # from the first frame to the last
    centre = rng.uniform(0.4, 0.6, 2) * side
    noise = rng.normal(0, 6, (side, side, 3))  # the same in all frames: it is the ground's texture
    film = np.empty((frames, side, side, 3), np.uint8)
    for i, time in enumerate(np.linspace(-0.5, 0.5, frames)):
        dx, dy = STEPS.get(motion, (0, 0))
        x, y = centre + time * path * np.array((dx, dy))
        size = radius * (1 + 0.9 * time) if motion == "grow" else radius
        turn = angle + (1.5 * math.pi * time if motion == "turn" else 0.0)
        image = Image.new("RGB", (2 * side, 2 * side), tuple(int(v) for v in ground))
        outline = shape_polygon(name, 2 * x, 2 * y, 2 * size, turn)
        ImageDraw.Draw(image).polygon(outline, fill=ink)
        small = image.resize((side, side), Image.Resampling.BOX)
        film[i] = np.clip(np.asarray(small) + noise, 0, 255)
    return film


def encode(path: Path, film: NDArray[np.uint8], *, fps: int) -> None:
    """Write frames, uint8 (T, H, W, 3) with even sides, as H.264 in an mp4 file."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "ultrafast"}
        for frame in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_moving(
    root: Path, *, train: int, val: int, side: int = 64, frames: int = 24, seed: int = 0
) -> None:
    """Write videos as ``train/<motion>/*.mp4`` and ``val/<motion>/*.mp4``, 15 frames a second.

    Args:
        root: Folder to fill.
        train: Training videos of each class.
        val: Validation videos of each class.
        side: Width and height in pixels, even.
        frames: Frames of a video.
        seed: Seed of the videos.
    """
    for split, count in (("train", train), ("val", val)):
        for label, motion in enumerate(MOTIONS):
            folder = root / split / motion
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                rng = np.random.default_rng((seed, split == "val", label, i))
                film = draw_motion(motion, rng, side=side, frames=frames)
                encode(folder / f"{motion}_{i:04}.mp4", film, fps=15)
