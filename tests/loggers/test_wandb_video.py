"""Clips in W&B: the offline file and the videos that it names are read back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from wandb_files import Log

from lightning_zoo.drawing import batch_tiles
from lightning_zoo.loggers.wandb_images import encode_mp4, log_predictions

NAMES = ["archery", "bowling"]


def frames_of(path: Path) -> tuple[np.ndarray, float]:
    """Return the frames of a video, uint8 (T, H, W, 3), and how many of them make a second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
        return frames, float(stream.average_rate)


def clip(way: int) -> torch.Tensor:
    """Return a square that moves, uint8 (3, 16, 32, 32)."""
    video = torch.full((3, 16, 32, 32), 60, dtype=torch.uint8)
    for t in range(16):
        video[:, t, 8:20, t if way else 16 - t :][..., :12] = 200
    return video


def test_a_batch_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = Log(tmp_path)
    batch = {
        "video": torch.stack([clip(0), clip(1)]),
        "label": torch.tensor([0, 0]),
        "id": ["val/a.mp4", "val/b.mp4"],
        "clip": torch.tensor([2, 2]),
    }
    outputs = [{"probs": torch.tensor([[0.9, 0.1], [0.3, 0.7]])}]
    tiles = batch_tiles(batch, outputs, NAMES)
    log_predictions(log.logger, batch, outputs, tiles, NAMES, step=6, frame_rate=12.5)
    logged = log.close()
    assert logged["trainer/global_step"] == 6
    entry = logged["val/predictions"]
    assert entry["_type"] == "videos"
    assert entry["count"] == 2
    assert entry["captions"] == ["archery 90 % | truth: archery", "bowling 70 % | truth: archery"]
    for video, logged_video in zip(batch["video"], entry["videos"], strict=True):
        path = log.files / logged_video["path"]
        assert path.is_file(), "the file that the record names is there"
        frames, rate = frames_of(path)
        assert rate == 12.5
        assert frames.shape == (16, 32, 32, 3)
        expected = video.permute(1, 2, 3, 0).numpy().astype(float)
        assert np.abs(frames - expected).mean() < 3


def test_odd_sizes_and_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_mp4(np.full((1, 33, 47, 3), 120, np.uint8), 30000 / 1001))
    frames, rate = frames_of(path)
    assert frames.shape == (1, 32, 46, 3)
    assert rate == pytest.approx(30000 / 1001)
