"""The video demo's data: every class moves as it is called, and the files hold what was drawn."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_zoo.engine.moving import MOTIONS, draw_motion, write_moving


def shape_of(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return frame.mean(axis=2) > 120  # ink is bright, ground is dark


def centre(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    ys, xs = np.nonzero(shape_of(frame))
    return np.array([xs.mean(), ys.mean()])


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_motions(motion: str, seed: int) -> None:
    film = draw_motion(motion, np.random.default_rng(seed), side=64, frames=12)
    assert film.shape == (12, 64, 64, 3)
    moved = centre(film[-1]) - centre(film[0])
    along = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    assert (np.abs(moved) > 12).tolist() == [a != 0 for a in along]
    assert all(a * b >= 0 for a, b in zip(along, moved, strict=True) if a)
    grown = shape_of(film[-1]).sum() / shape_of(film[0]).sum()
    assert (grown > 4) == (motion == "grow")
    if motion == "turn":
        assert 0.85 < grown < 1.2
        changed = (shape_of(film[0]) != shape_of(film[2])).mean()
        assert changed > 0.002


def test_files(tmp_path: Path) -> None:
    write_moving(tmp_path, train=2, val=1, side=32, frames=9)
    for split, count in (("train", 2), ("val", 1)):
        folders = sorted((tmp_path / split).iterdir())
        assert [folder.name for folder in folders] == list(MOTIONS)
        for folder in folders:
            files = sorted(folder.iterdir())
            assert len(files) == count
            with av.open(str(files[0])) as container:
                stream = container.streams.video[0]
                assert stream.average_rate == 15
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert np.stack(frames).shape == (9, 32, 32, 3)
            rng = np.random.default_rng((0, split == "val", MOTIONS.index(folder.name), 0))
            drawn = draw_motion(folder.name, rng, side=32, frames=9)
            assert np.abs(np.stack(frames).astype(int) - drawn).mean() < 8
