from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_zoo.drawing import Tile, draw_tile
from lightning_zoo.drawing.video import FRAMES, video_tile
from lightning_zoo.engine.predict.classification import Prediction, make_prediction
from lightning_zoo.engine.predict.results import Pixels
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.transforms.video import EvalTransform
from lightning_zoo.transforms.video_decode import probe, read_frames, resample

CLIPS = 5  # evenly spaced over a video, as the published accuracies of videos were measured


@dataclass(frozen=True)
class Clips:
    """What is read of one video.

    Attributes:
        clips: uint8 ``(N, 3, T, S, S)``, for the network.
        frames: uint8 RGB ``(M, H, W, 3)`` from its start to its end, for the contact sheet.
    """

    clips: Tensor
    frames: NDArray[np.uint8]


@dataclass(frozen=True)
class VideoPrediction(Prediction):
    """What a classifier of videos says of one."""

    def plot(self) -> Image.Image:
        """Return some of the video's frames, from start to end, with its classes below."""
        times = probe(self.file)
        count = min(FRAMES, len(times))
        places = [i * len(times) // count for i in range(count)]
        return draw_tile(sheet_tile(read_frames(self.file, times, places), self))


def sheet_tile(frames: Pixels, result: Prediction) -> Tile:
    """Return frames ``(M, H, W, 3)`` as a contact sheet with the most probable classes below."""
    names, scores = zip(*result.top, strict=True)
    return video_tile(frames, scores, names)


@dataclass
class VideoClassifier:
    """A network with all that it takes to use it.

    Attributes:
        probabilities: Returns ``(N, classes)`` for uint8 clips ``(N, 3, T, S, S)``.
        transform: Makes a uint8 tensor ``(3, T, S, S)`` of frames, uint8 ``(T, H, W, 3)``.
        class_names: Name of each class.
        clip_frames: Frames T of a clip.
        frame_rate: Frames a second; None takes every frame.
        count: Clips of a video, evenly spaced.
        batch: Videos at once.
    """

    probabilities: Callable[[Tensor], Tensor]
    transform: Any
    class_names: Sequence[str]
    clip_frames: int
    frame_rate: float | None
    count: int = CLIPS
    batch: int = 1

    def read(self, file: Path) -> Clips:
        """Return the clips of a video; the last frame of one that is too short stands still.

        Raises:
            DecodeError: If the file cannot be read.
        """
        times = probe(file)
        order = resample(times, self.frame_rate)
        last = len(order) - 1
        starts = np.linspace(0, max(0, last + 1 - self.clip_frames), self.count).astype(int)
        places = np.minimum(starts[:, None] + np.arange(self.clip_frames), last)  # (N, T)
        seen = np.unique(places).tolist()
        count = min(FRAMES, len(seen))
        shown = {seen[i * len(seen) // count] for i in range(count)}
        clips: list[Tensor] = []
        sheet: dict[int, NDArray[np.uint8]] = {}
        for row in places:
            frames = read_frames(file, times, order[row])
            sheet |= {p: f.copy() for p, f in zip(row.tolist(), frames, strict=True) if p in shown}
            clips.append(self.transform(frames))
        return Clips(torch.stack(clips), np.stack([sheet[place] for place in sorted(sheet)]))

    def __call__(self, videos: Sequence[tuple[Path, Clips]]) -> list[VideoPrediction]:
        """Return a prediction for each pair of file and clips: the mean of the clips' softmax."""
        found = []
        for file, video in videos:
            row = self.probabilities(video.clips).mean(dim=0).tolist()
            one = make_prediction(file, row, self.class_names, video.frames.shape[1:3])
            found.append(VideoPrediction(**vars(one)))
        return found

    def tile(self, video: Clips, result: Prediction) -> Tile:
        """Return the contact sheet with the most probable classes below."""
        return sheet_tile(video.frames, result)

    def pictures(self, video: Clips, result: Prediction) -> dict[str, Image.Image]:
        """Return the contact sheet in its own size."""
        return {"": draw_tile(self.tile(video, result))}


def published_video_classifier(entry: ModelEntry, weights: str) -> VideoClassifier:
    """Return a network of the zoo with its published weights, or those of a file."""
    facts = entry.get_weights(weights if weights in entry.weights else None)
    model = entry.load_builder()(weights=weights).eval()
    pre = facts.preprocessing
    assert pre is not None
    assert isinstance(pre.resize, tuple)
    assert pre.crop is not None
    assert pre.clip_frames is not None
    mean = torch.tensor(pre.mean).view(1, 3, 1, 1, 1)
    std = torch.tensor(pre.std).view(1, 3, 1, 1, 1)

    def probabilities(clips: Tensor) -> Tensor:
        with torch.inference_mode():
            return model((clips.float() / 255 - mean) / std).softmax(dim=1)

    return VideoClassifier(
        probabilities, EvalTransform(pre.resize, pre.crop), facts.class_names, pre.clip_frames,
        pre.frame_rate,
    )  # fmt: skip


def video_classifier_of_run(task: Any, data: Any, class_names: Sequence[str]) -> VideoClassifier:
    """Return the network that a run trained."""

    def probabilities(clips: Tensor) -> Tensor:
        numbers = torch.arange(len(clips))
        with torch.inference_mode():
            return task.predict_step({"video": clips, "id": [], "clip": numbers}, 0)["probs"]

    return VideoClassifier(
        probabilities, data.eval_transform, class_names, data.clip_frames, data.frame_rate,
        data.eval_clips,
    )  # fmt: skip
