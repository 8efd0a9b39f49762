"""Which validation samples are drawn after every epoch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_zoo.callbacks.pictures import one_clip_each, sample_batch, split_batch
from lightning_zoo.datamodules.samplers import SampleKey


class Samples:
    """A data set whose samples are their own places."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def __getitem__(self, key: SampleKey) -> int:
        assert key.epoch == 0
        return key.index


def picked(names: list[str], count: int, target: str | None) -> Any:
    data = SimpleNamespace(
        datasets={"val": Samples(names)}, target=target, collate_eval=lambda samples: samples
    )
    return sample_batch(data, count)


def test_images_are_spread_evenly() -> None:
    names = [f"{i}.jpg" for i in range(10)]
    assert picked(names, 4, None) == [0, 2, 5, 7]
    assert picked(names, 99, "segmentation") == list(range(10))


def test_clips_are_of_different_videos() -> None:
    """The middle clip of each; nothing repeats, although every video has five clips."""
    names = [f"{video}.mp4" for video in range(8) for _ in range(5)]
    assert picked(names, 4, "video") == [2, 12, 22, 32]
    assert picked(names, 16, "video") == [2 + 5 * video for video in range(8)]


def test_the_middle_clip() -> None:
    assert one_clip_each(["a", "a", "a", "b", "c", "c"]) == [1, 3, 5]
    assert one_clip_each([]) == []


def test_no_validation_split() -> None:
    assert sample_batch(SimpleNamespace(datasets={}), 4) is None


@pytest.mark.parametrize("key", ["mask", "target"])
def test_batches_of_lists_go_one_at_a_time(key: str) -> None:
    images = [torch.zeros(3, 4, 5), torch.zeros(3, 5, 4)]
    parts = split_batch({"image": images, key: ["first", "second"], "id": ["a", "b"]})
    assert [part["image"][0].shape for part in parts] == [(3, 4, 5), (3, 5, 4)]
    assert [part[key] for part in parts] == [["first"], ["second"]]
