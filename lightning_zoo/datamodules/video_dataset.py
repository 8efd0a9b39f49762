"""Clips of labelled videos: which there are, and which of them an epoch takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.datamodules.base import Split, ZooDataset
from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.datamodules.video_index import VideoIndex
from lightning_zoo.transforms.video import EvalTransform, TrainTransform
from lightning_zoo.transforms.video_decode import read_frames, resample

Short = Literal["skip", "repeat"]

_CLIPS = 0xC11B  # sets the stream of clips apart from orders and samples


class VideoDataset(ZooDataset):
    """Clips: ``video`` uint8 (3, T, S, S), ``label``, ``id`` of the video, ``clip``.

    A video is resampled to the frame rate; its clips are all windows of ``clip_frames`` frames,
    with a step of 1. In training an epoch takes up to ``clips`` of each video, others in every
    epoch and none twice; evaluation always takes ``clips``, evenly spaced, and repeats some where a
    video has fewer. Clips of a video stand side by side: the sampler shuffles them. ``clip`` counts
    those taken, from 0, so that repeated ones count like others, as in the reference.

    Args:
        split: Split that the videos belong to.
        root: Folder that the names are relative to.
        names: Files, relative to the root, with forward slashes.
        labels: int64 (N).
        index: Frame times of those files.
        transform: Makes uint8 (3, T, S, S) of uint8 (T, H, W, 3) and a generator.
        clip_frames: Number T of frames of a clip.
        frame_rate: Frames a second; None takes every frame.
        clips: Clips of a video and epoch.
        short: What becomes of a video that is shorter than a clip: ``"skip"`` leaves it out,
            ``"repeat"`` lets its last frame stand.

    Attributes:
        problems: Name and reason of each video that is left out.
        num_short: How many of them are too short.
    """

    def __init__(
        self,
        split: Split,
        root: Path,
        names: Sequence[str],
        labels: NDArray[np.int64],
        index: VideoIndex,
        transform: TrainTransform | EvalTransform,
        *,
        clip_frames: int = 16,
        frame_rate: float | None = 15.0,
        clips: int = 5,
        short: Short = "skip",
    ) -> None:
        super().__init__(split)
        self.root = str(root)
        self.names = names
        self.labels = labels
        self.index = index
        self.transform = transform
        self.clip_frames = clip_frames
        self.frame_rate = frame_rate
        self.clips = clips
        self.problems = list(index.errors.items())
        self.num_short = 0
        windows = self._count_windows(short)
        self.videos = np.flatnonzero(windows)  # those that have a clip
        self.windows = windows[self.videos]
        taken = np.minimum(self.windows, clips) if split == "train" else clips
        self.ends = np.cumsum(np.broadcast_to(taken, len(self.videos)), dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def name(self, index: int) -> str:
        """Return the path, relative to the root, of the video that a clip is of."""
        return self.names[int(self.videos[self._locate(index)[0]])]

    def window(self, key: SampleKey) -> int:
        """Return the first frame, in the resampled video, of the clip that a key stands for.

        Another ``draw`` of a training key, which fills the last step of an epoch, is the next clip
        of the same video.
        """
        video, slot, taken = self._locate(key.index)
        windows = int(self.windows[video])
        if self.split != "train":
            return slot * (windows - 1) // max(1, self.clips - 1)  # floor of a linspace
        rng = np.random.default_rng((_CLIPS, self.seed, key.epoch, int(self.videos[video])))
        return int(rng.permutation(windows)[(slot + key.draw * taken) % windows])

    def load_key(self, key: SampleKey, rng: np.random.Generator) -> dict[str, Any]:
        """Return the clip of a key.

        Raises:
            DecodeError: If its frames cannot be read.
        """
        position, slot, _ = self._locate(key.index)
        video, start = int(self.videos[position]), self.window(key)
        frames, name = self.index.frames(video), self.names[video]
        order = resample(frames, self.frame_rate)
        places = np.minimum(np.arange(start, start + self.clip_frames), len(order) - 1)
        pixels = read_frames(f"{self.root}/{name}", frames, order[places])
        return {
            "video": self.transform(pixels, rng),
            "label": int(self.labels[video]),
            "id": name,
            "clip": slot,
        }

    def _locate(self, index: int) -> tuple[int, int, int]:
        """Return the video of a sample (in ``videos``), which of its samples, and their number."""
        video = int(np.searchsorted(self.ends, index, side="right"))
        start = int(self.ends[video - 1]) if video else 0
        return video, index - start, int(self.ends[video]) - start

    def _count_windows(self, short: Short) -> NDArray[np.int64]:
        """Return the clips of each video, int64 (N); note those that are too short."""
        lengths = self.index.lengths(self.frame_rate).astype(np.int64)
        windows = np.maximum(lengths - self.clip_frames + 1, 0)
        too_short = (windows == 0) & (lengths > 0)
        if short == "repeat":
            windows[too_short] = 1
            return windows
        rate = "" if self.frame_rate is None else f" at {self.frame_rate:g} a second"
        for video in np.flatnonzero(too_short).tolist():
            reason = f"{lengths[video]} frames{rate}, fewer than the {self.clip_frames} of a clip"
            self.problems.append((self.names[video], reason))
            self.num_short += 1
        return windows
