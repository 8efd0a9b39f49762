"""The benchmarks of networks run on small shapes, and say what they promise."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from lightning_zoo.bench import networks, segmentation, video
from lightning_zoo.bench.networks import benchmark, published, row


def test_row() -> None:
    best = {"ours": 2.0, "ours_channels_last": 1.0, "torchvision": 4.0}
    found = row("video", "evaluation", "r3d_18", best, "s", 1.0)
    assert found["ratio"] == 0.5
    assert found["reached"]
    assert "ratio_of_best" not in found
    found = row("video", "x", "y", best | {"torchvision_channels_last": 0.5}, "s", 0.4)
    assert (found["ratio"], found["ratio_of_best"], found["reached"]) == (0.5, 2.0, False)
    assert "ratio" not in row("video", "x", "y", {"ours": 1.0}, "s", 1.0)


@pytest.mark.parametrize(
    ("subject", "name", "shape"),
    [
        (segmentation.SUBJECT, "lraspp_mobilenet_v3_large", (2, 3, 48, 48)),
        (video.SUBJECT, "mc3_18", (2, 3, 2, 16, 16)),
    ],
    ids=["segmentation", "video"],
)
def test_without_torchvision(
    subject: networks.Subject, name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "has_torchvision", lambda: False)
    assert name in published(subject.task)
    small = dataclasses.replace(subject, evaluation=shape, training=shape)
    threads = torch.get_num_threads()
    rows = list(benchmark(small, 1, threads=1, names=[name]))
    assert torch.get_num_threads() == threads
    assert [r["what"] for r in rows] == ["evaluation", "training step"]
    for found in rows:
        assert (found["benchmark"], found["model"]) == (subject.task, name)
        assert found["ours_s"] >= 0
        assert found["threads"] == 1
        assert "ratio" not in found
        assert json.loads(json.dumps(found))["shape"] == list(shape)


def test_loss_of_masks() -> None:
    logits = {"out": torch.zeros(1, 21, 30, 8), "aux": torch.zeros(1, 21, 30, 8)}
    expected = 1.5 * torch.log(torch.tensor(21.0))
    torch.testing.assert_close(segmentation.loss(logits), expected)
