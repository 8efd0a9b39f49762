"""Findings in videos: which can be read to their end, how long they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_zoo.data_check.looking import Look, each, small_views
from lightning_zoo.formats.index import DataIndex, Problem

CLIP_FRAMES = 16  # what the networks for videos take at once


@dataclass(frozen=True, slots=True)
class VideoLook:
    """What is seen in one video.

    Attributes:
        look: Its size and hashes, the picture's from the frame in its middle.
        frames: Number of its frames.
        seconds: How long it is.
    """

    look: Look
    frames: int = 0
    seconds: float = 0.0


def look_at_videos(
    root: Path, files: list[str], *, workers: int, progress: bool
) -> dict[str, VideoLook]:
    """Return what is seen in each video; its first, middle and last frame are decoded.

    Frame times are kept where training looks for them.
    """
    from lightning_zoo.datamodules.video_index import build_index
    from lightning_zoo.transforms.video_decode import VideoError, read_frames

    index = build_index(root, files, workers=workers, progress=progress)

    def look(place: int) -> VideoLook:
        path = root / files[place]
        try:
            times = index.frames(place)
            ends = [0, len(times) // 2, len(times) - 1]
            middle = read_frames(path, times, ends)[1]
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").digest()
        except VideoError as error:
            return VideoLook(Look(error=error.reason))
        except OSError as error:
            return VideoLook(Look(error=error.strerror or str(error)))
        thumbnail, gradients = small_views(middle)
        seen = Look(
            width=middle.shape[1], height=middle.shape[0], file_hash=digest, pixel_hash=digest,
            gradients=gradients, thumbnail=thumbnail,
        )  # fmt: skip
        seconds = times.seconds
        step = seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 0.0
        return VideoLook(seen, len(times), float(seconds[-1] + step))

    found = each(look, range(len(files)), "reading videos", workers, progress)
    return dict(zip(files, found, strict=True))


def check_videos(index: DataIndex, videos: Mapping[str, VideoLook]) -> Iterator[Problem]:
    """Yield what is wrong with the videos."""
    for item in index.items:
        video = videos[item.file]
        if video.look.error:
            yield Problem("error", "video that cannot be read", item.file, video.look.error,
                          "mend it (`ffmpeg -i FILE -c copy NEW` helps often) or remove it, or "
                          "train with --data.on_error skip")  # fmt: skip
        elif video.frames < CLIP_FRAMES:
            yield Problem("note", "short video", item.file,
                          f"{video.frames} frames, {video.seconds:.2f} s",
                          f"a clip has {CLIP_FRAMES} frames: cut it longer, or train with a "
                          "smaller --data.clip_frames")  # fmt: skip
