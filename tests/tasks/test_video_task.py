"""The video task: normalising clips, what it minimises, clips and videos counted apart."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.tasks import VideoTask

SGD = functools.partial(torch.optim.SGD, lr=0.01)
SMALL = {"layers": (1, 1, 1, 1), "widths": (4, 4, 4, 4)}


def make(**changes: Any) -> VideoTask:
    args: dict[str, Any] = {"num_classes": 6, "optimizer": SGD, "model_args": SMALL} | changes
    return VideoTask("video_resnet", **args)


def batch(clips: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (clips, 3, 4, 16, 16), dtype=torch.uint8, generator=generator)
    return {
        "video": video,
        "label": torch.tensor([1, 1, 2, 3][:clips]),
        "id": ["a.mp4", "a.mp4", "b.mp4", "c.mp4"][:clips],
        "clip": torch.tensor([0, 1, 0, 0][:clips]),
    }


class Trainer:
    """As much of a trainer as a training step looks at."""

    global_step, log_every_n_steps = 0, 50


def test_clips_are_normalised_channel_by_channel() -> None:
    task, video = make(), batch()["video"]
    x = task.prepare(video)
    mean, std = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
    for channel in range(3):
        expected = (video[:, channel] / 255 - mean[channel]) / std[channel]
        assert torch.allclose(x[:, channel], expected, atol=1e-5)


def test_channels_last_changes_nothing_but_the_layout() -> None:
    torch.manual_seed(0)
    plain = make().eval()
    torch.manual_seed(0)
    other = make(channels_last=True).eval()
    assert other.prepare(batch()["video"]).is_contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        found, expected = other(batch()["video"]), plain(batch()["video"])
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    task, given = make(label_smoothing=0.1).eval(), batch()
    monkeypatch.setattr(LightningModule, "trainer", Trainer())
    loss = task.training_step(given, 0)
    expected = F.cross_entropy(task(given["video"]), given["label"], label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item())
    assert task.loss_count == 4


class Told(nn.Module):
    """Stands for a network: its logits are what it was told."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[: len(x)]


def test_clips_and_videos_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make()
    # the first clip of video a is wrong by a little, the second right by much; b right, c wrong
    probs = torch.full((4, 6), 0.02)
    probs[0, [2, 1]] = torch.tensor([0.5, 0.42])
    probs[1, 1], probs[2, 2], probs[3, 4] = 0.9, 0.9, 0.9
    task.model = Told(probs.log())
    logged: dict[str, float] = {}
    monkeypatch.setattr(task, "log_dict", lambda values, **_: logged.update(values))
    task.validation_step(batch(), 0)
    task.on_validation_epoch_end()
    assert float(logged["val/clip_acc@1"]) == pytest.approx(50.0)
    assert float(logged["val/acc@1"]) == pytest.approx(100 * 2 / 3)
    expected = F.cross_entropy(probs.log(), batch()["label"])
    assert float(logged["val/loss"]) == pytest.approx(float(expected), rel=1e-6)
    assert set(logged) == {"val/loss", "val/acc@1", "val/acc@5", "val/clip_acc@1", "val/clip_acc@5"}


def test_predictions_are_a_row_a_clip() -> None:
    task = make().eval()
    found = task.predict_step(batch())
    assert found["id"] == ["a.mp4", "a.mp4", "b.mp4", "c.mp4"]
    assert found["clip"].tolist() == [0, 1, 0, 0]
    assert found["probs"].shape == (4, 6)
    assert torch.allclose(found["probs"].sum(dim=1), torch.ones(4))


def test_a_model_of_another_task() -> None:
    with pytest.raises(ZooError, match="resnet18 is a classification model; expected one for vid"):
        VideoTask("resnet18", num_classes=2, optimizer=SGD)
