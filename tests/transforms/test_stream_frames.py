"""All frames of a video one after another: what a full decode gives, and where it breaks off."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from videos import cut_file, full_decode, moving, write_video

from lightning_zoo.transforms.video_decode import VideoError, probe, stream_frames


def streamed(path: Path, every: int = 1) -> tuple[list[int], NDArray[np.uint8]]:
    places, frames = zip(*stream_frames(path, probe(path), every=every), strict=True)
    return list(places), np.stack(frames)


def remuxed(path: Path, target: Path) -> Path:
    """Write the same packets with the table of contents in front, as films for the web have it."""
    options = {"movflags": "faststart"}
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.ts"])
def test_a_full_decode(name: str, tmp_path: Path) -> None:
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name[2:], "libx264")
    path = write_video(tmp_path / name, moving(20), codec=codec)
    places, frames = streamed(path)
    assert places == list(range(20))
    np.testing.assert_array_equal(frames, full_decode(path))
    places, some = streamed(path, every=6)
    assert places == [0, 6, 12, 18]
    np.testing.assert_array_equal(some, frames[::6])


def test_frames_are_turned_as_players_do(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving(5), rotation=90)
    np.testing.assert_array_equal(streamed(path)[1], np.rot90(full_decode(path), axes=(1, 2)))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_what_is_cut_off_is_named_after_the_rest(name: str, tmp_path: Path) -> None:
    codec = "mpeg4" if name == "a.avi" else "libx264"
    whole = write_video(tmp_path / f"whole_{name}", moving(60), codec=codec, fps=15)
    if name == "a.mp4":
        whole = remuxed(whole, tmp_path / "fast.mp4")
    decoded = full_decode(whole)
    (tmp_path / name).write_bytes(whole.read_bytes())
    path = cut_file(tmp_path / name, 0.6)
    frames: list[NDArray[np.uint8]] = []
    expected = r"the file is cut off or damaged; \d+ of \d+ frames could be decoded$"
    with pytest.raises(VideoError, match=expected):
        frames.extend(frame for _, frame in stream_frames(path, probe(path)))
    assert 5 < len(frames) < 55
    np.testing.assert_array_equal(np.stack(frames), decoded[: len(frames)])
