"""Clips of a video: seeking and decoding sparsely against decoding the whole file and cutting."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.transforms.video_decode import FrameTimes, probe, read_frames, resample

GOAL = 5.0  # times as fast
HEIGHT, WIDTH, SECONDS, FPS = 256, 340, 10, 30
CLIP_FRAMES, FRAME_RATE = 16, 15.0
GOPS = (250, 60, 12)  # x264's default, as most copies of Kinetics have it; every 2 s; very short


def video_decode_benchmark(
    repeats: int = 5, videos: int = 2, seconds: int = SECONDS
) -> Iterator[dict[str, Any]]:
    """Measure random clips of 16 frames at 15 frames/s from videos of 340 x 256 at 30 frames/s.

    The videos are encoded on the spot by x264 at its defaults, with different distances between key
    frames. The baseline decodes all frames to RGB and takes the clip's, as the reference's
    ``read_video`` does; converting them as we do (one converter for all, without threads) makes it
    about twice as fast, and that ratio is told too. All decode on one thread and give the same
    bytes (checked), and time is the process's own on the CPU. How much is saved depends on the
    distance of key frames, as the frames from the one before the clip on have to be decoded; so the
    mean over random clips counts.

    Args:
        repeats: Random clips of each video.
        videos: Files of each kind.
        seconds: Length of the videos.

    Yields:
        One JSON-able row for each distance of key frames.
    """
    with tempfile.TemporaryDirectory() as folder:
        for gop in GOPS:
            files = []
            for seed in range(videos):
                path = Path(folder) / f"{gop}-{seed}.mp4"
                write_scene(path, gop=gop, seconds=seconds, seed=seed)
                files.append((path, probe(path)))
            yield _compare(gop, files, repeats)


def _compare(gop: int, files: list[tuple[Path, FrameTimes]], repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sparse, whole, quick = [], [], []
    for path, frames in files:
        order = resample(frames, FRAME_RATE)
        for _ in range(repeats):
            start = int(rng.integers(len(order) - CLIP_FRAMES + 1))
            clip = order[start : start + CLIP_FRAMES]
            seconds, ours = _timed(read_frames, path, frames, clip)
            sparse.append(seconds)
            seconds, theirs = _timed(_decode_and_cut, path, frames, clip)
            whole.append(seconds)
            seconds, _ = _timed(_decode_quickly_and_cut, path, frames, clip)
            quick.append(seconds)
            if not np.array_equal(ours, theirs):
                raise RuntimeError(f"frames {clip.tolist()} of {path} differ from a full decode's")
    ratio = statistics.mean(whole) / statistics.mean(sparse)
    return {
        "benchmark": "video_decode",
        "keyframe_every": gop,
        "keyframes": statistics.mean(len(frames.keyframes) for _, frames in files),
        "frames": len(files[0][1]),
        "clips": len(sparse),
        "sparse_clips_per_s": round(1 / statistics.mean(sparse), 1),
        "whole_clips_per_s": round(1 / statistics.mean(whole), 1),
        "speedup": round(ratio, 2),
        "speedup_over_our_conversion": round(statistics.mean(quick) / statistics.mean(sparse), 2),
        "speedup_worst_clip": round(min(w / s for w, s in zip(whole, sparse, strict=True)), 2),
        "goal": GOAL,
        "reached": ratio >= GOAL,
    }


def _timed(
    read: Callable[[Path, FrameTimes, NDArray[np.int32]], NDArray[np.uint8]],
    path: Path,
    frames: FrameTimes,
    clip: NDArray[np.int32],
) -> tuple[float, NDArray[np.uint8]]:
    start = time.process_time()
    pixels = read(path, frames, clip)
    return time.process_time() - start, pixels


def _decode_and_cut(path: Path, frames: FrameTimes, clip: NDArray[np.int32]) -> NDArray[np.uint8]:
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        pixels = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames_of_file: NDArray[np.uint8] = np.stack(pixels)
    return frames_of_file[clip]


def _decode_quickly_and_cut(
    path: Path, frames: FrameTimes, clip: NDArray[np.int32]
) -> NDArray[np.uint8]:
    return read_frames(path, frames, np.arange(len(frames)))[clip]


def write_scene(path: Path, *, gop: int, seconds: int = SECONDS, seed: int = 0) -> None:
    """Encode a camera that pans over a detailed scene with things that move, by x264's defaults.

    Args:
        path: The file.
        gop: Most frames from one key frame to the next.
        seconds: Length of the video.
        seed: Other seeds give other scenes.
    """
    import av
    import cv2

    rng = np.random.default_rng(seed)
    scene = np.zeros((2 * HEIGHT, 2 * WIDTH, 3))
    for cells in (4, 16, 64, 200):  # detail falls with its scale, as in photos
        noise = rng.normal(0, 1, (cells, cells, 3))
        scene += cv2.resize(noise, scene.shape[1::-1], interpolation=cv2.INTER_CUBIC) / cells**0.5
    scene = (128 + 45 * scene / scene.std()).clip(0, 255)
    speed = rng.uniform(-30, 30, (6, 2))  # pixels a second
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"g": str(gop)})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.thread_count = 1
        for i in range(seconds * FPS):
            at = i / FPS
            y = int(HEIGHT / 2 + HEIGHT / 3 * np.sin(at * 0.5))
            x = int(WIDTH / 2 + WIDTH / 3 * np.cos(at * 0.4))
            picture = scene[y : y + HEIGHT, x : x + WIDTH].copy()
            for thing, (down, right) in enumerate(speed):
                where = int(30 * thing + at * right + 70) % WIDTH, int(128 + at * down) % HEIGHT
                colour = scene[thing * 20, thing * 30].tolist()
                cv2.circle(picture, where, 14, colour, -1)
            picture += rng.normal(0, 2, (HEIGHT, WIDTH, 1))  # the camera's noise
            frame = av.VideoFrame.from_ndarray(
                picture.clip(0, 255).astype(np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
