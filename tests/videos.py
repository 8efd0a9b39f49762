"""Small videos that tests encode on the spot, of many containers and codecs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


def moving(frames: int = 30, height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Return frames uint8 (T, H, W, 3) that all differ: blocks that move, a bar that grows.

    Args:
        frames: Number T of frames.
        height: Pixels.
        width: Pixels.
        seed: Other seeds give other colours.
    """
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    video = np.stack([np.roll(picture, (i, 2 * i), axis=(0, 1)) for i in range(frames)])
    for i in range(frames):
        video[i, : height // 4, : 1 + i * (width - 1) // max(frames - 1, 1)] = 255
    return video


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    fps: int | Fraction = 30,
    codec: str = "libx264",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    gop: int = 12,
    bframes: int = 2,
    rotation: int = 0,
    audio: bool = False,
    pix_fmt: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames uint8 (T, H, W, 3); the extension tells the container (mp4, mkv, avi, ...).

    Args:
        path: The file.
        frames: RGB, of any size (odd sizes need ``pix_fmt="yuv444p"``); T may be 0.
        fps: Frames a second of a constant rate.
        codec: PyAV's name of the encoder: libx264, mpeg4, libvpx, libvpx-vp9, mjpeg, ...
        pts: Time of each frame in ticks of ``time_base``, for a variable rate.
        time_base: Seconds of a tick (1 / fps).
        gop: Most frames from one key frame to the next.
        bframes: B-frames between two others, always so many (H.264 and MPEG-4).
        rotation: Degrees anticlockwise, a multiple of 90, that players turn the frames by.
        audio: Whether a silent track is added, of the video's length.
        pix_fmt: The encoder's pixel format (yuv420p).
        options: More options of the encoder.

    Returns:
        The path.
    """
    extra: dict[str, str] = {}
    if codec == "libx264":
        extra = {"bf": str(bframes), "b_strategy": "0", "preset": "veryfast", "threads": "1"}
    elif codec == "mpeg4":
        extra = {"bf": str(bframes)}
    elif codec in ("libvpx", "libvpx-vp9"):
        extra = {"deadline": "realtime", "cpu-used": "8", "threads": "1"}
    if pix_fmt is None:
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    tick = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            codec, rate=Fraction(fps), options={"g": str(gop), **extra, **(options or {})}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = tick
        if rotation:
            stream.set_display_rotation(rotation)
        sound: Any = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        container.start_encoding()  # writes a header also where no frame follows
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = i if pts is None else pts[i]
            frame.time_base = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _write_silence(container, sound, float(len(frames) / Fraction(fps)))
    return path


def write_audio(path: Path, seconds: float = 0.5) -> Path:
    """Write a file that holds sound alone."""
    with av.open(str(path), "w") as container:
        _write_silence(container, container.add_stream("aac", rate=8000, layout="mono"), seconds)
    return path


def _write_silence(container: Any, stream: Any, seconds: float) -> None:
    for i in range(max(1, int(seconds * 8000) // 1024)):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 8000, i * 1024, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def cut_file(path: Path, share: float) -> Path:
    """Cut a file off behind a share of its bytes, as a broken download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def full_decode(path: Path) -> NDArray[np.uint8]:
    """Return all frames of the first video stream, uint8 (T, H, W, 3), as PyAV gives them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
