"""The benchmark runs and proves that what it compares is equal."""

import json

import numpy as np
import pytest

from lightning_zoo.bench import video_decode
from lightning_zoo.bench.video_decode import video_decode_benchmark, write_scene
from lightning_zoo.transforms.video_decode import probe


def test_rows(monkeypatch):
    monkeypatch.setattr(video_decode, "GOPS", (20,))
    (row,) = video_decode_benchmark(repeats=2, videos=1, seconds=2)
    assert (row["keyframe_every"], row["keyframes"], row["frames"], row["clips"]) == (20, 3, 60, 2)
    assert row["speedup"] > 0
    assert row["reached"] == (row["speedup"] >= row["goal"])
    assert json.loads(json.dumps(row)) == row


def test_frames_that_differ(monkeypatch, tmp_path):
    write_scene(tmp_path / "a.mp4", gop=20, seconds=2)
    frames = probe(tmp_path / "a.mp4")
    monkeypatch.setattr(video_decode, "_decode_and_cut", lambda path, frames, clip: np.zeros(3))
    with pytest.raises(RuntimeError, match=r"frames \[.*\] of .*a\.mp4 differ from a full decode"):
        video_decode._compare(20, [(tmp_path / "a.mp4", frames)], repeats=1)
