"""The detection tasks' arithmetic: losses summed, crowds left out of them, everything measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.tasks import DetectionTask, KeypointTask

SGD = functools.partial(torch.optim.SGD, lr=0.01)
SMALL = {"backbone": "resnet18", "fpn_channels": 16, "representation_size": 16,
         "min_size": 64, "max_size": 96}  # fmt: skip


def make(model: str = "faster_rcnn", **changes: Any) -> DetectionTask:
    args: dict[str, Any] = {"num_classes": 3, "optimizer": SGD, "model_args": SMALL} | changes
    return (KeypointTask if model == "keypoint_rcnn" else DetectionTask)(model, **args)


def batch(masks: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=generator)
        for h, w in ((64, 80), (70, 64))
    ]
    targets = []
    for i, image in enumerate(images):
        target = {
            "boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 16.0, 60.0, 60.0]]),
            "labels": torch.tensor([1, 2]),
            "area": torch.tensor([1280.0, 1760.0]),
            "iscrowd": torch.tensor([0, i]),
            "id": i + 1,
        }
        if masks:
            target["masks"] = torch.zeros(2, *image.shape[1:], dtype=torch.uint8)
            target["masks"][:, 16:40, 20:36] = 1
        targets.append(target)
    return {"image": images, "target": targets, "id": [1, 2]}


class Losses(nn.Module):
    """Stands for a network: returns what it is told to, and keeps what it was given."""

    def __init__(self, losses: Mapping[str, float]) -> None:
        super().__init__()
        self.losses = {name: torch.tensor(v, requires_grad=True) for name, v in losses.items()}
        self.seen: Any = None

    def forward(self, images: list[Tensor], targets: Any, with_losses: bool = False) -> Any:
        self.seen = targets
        found = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
                 "scores": torch.zeros(0)}  # fmt: skip
        return (self.losses, [found] * len(images)) if with_losses else self.losses


class Trainer:
    """As much of a trainer as a training step looks at."""

    global_step, log_every_n_steps = 0, 50
    current_epoch = 3


def with_losses(monkeypatch: pytest.MonkeyPatch, losses: Mapping[str, float]) -> DetectionTask:
    task = make()
    task.model = Losses(losses)
    monkeypatch.setattr(LightningModule, "trainer", Trainer())
    monkeypatch.setattr(LightningModule, "current_epoch", 3)
    return task


def test_the_loss_is_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    task = with_losses(monkeypatch, {"loss_classifier": 1.5, "loss_box_reg": 0.25})
    loss = task.training_step(batch(), 0)
    assert loss.item() == 1.75
    assert loss.requires_grad
    assert (float(task.loss_sum), task.loss_count) == (3.5, 2)  # of two images


def test_a_loss_that_is_no_number_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    task = with_losses(monkeypatch, {"loss_classifier": float("nan"), "loss_box_reg": 0.25})
    with pytest.raises(ZooError) as caught:
        task.training_step(batch(), 0)
    for part in ("epoch 3", "loss_classifier nan", "images 1, 2", "--model.optimizer.lr"):
        assert part in str(caught.value)


def test_crowds_are_measured_and_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    task = with_losses(monkeypatch, {"a": 1.0, "b": 2.0})
    given = batch(masks=True)
    logged: dict[str, float] = {}
    monkeypatch.setattr(
        task,
        "log_dict",
        lambda values, **_: logged.update({k: float(v) for k, v in values.items()}),
    )
    task.class_names = ["__background__", "cat", "dog"]
    task.validation_step(given, 0)
    assert [len(t["boxes"]) for t in given["target"]] == [2, 2], "the batch was changed"
    task.on_validation_epoch_end()
    assert (logged["val/a"], logged["val/b"], logged["val/loss"]) == (1.0, 2.0, 3.0)
    assert logged["val/box_map"] == 0.0
    objects = {row["name"]: row["objects"] for row in task.per_class}
    assert objects == {"cat": 2, "dog": 1}  # the other dog is a crowd
    task.validation_step(given, 0)  # everything starts anew
    task.on_validation_epoch_end()
    assert logged["val/loss"] == 3.0


def test_crowds_do_not_change_the_losses() -> None:
    task = make("mask_rcnn").eval()
    given = batch(masks=True)
    losses = []
    for moved in (0.0, 8.0):
        given["target"][1]["boxes"][1] -= moved  # the crowd
        with torch.no_grad():
            task.validation_step(given, 0)
        losses.append(task.val_losses.compute())
        task.val_losses.reset()
    assert losses[0] == losses[1]
    given["target"][1]["boxes"][0] += 8.0  # an object
    with torch.no_grad():
        task.validation_step(given, 0)
    assert task.val_losses.compute() != losses[0]


@pytest.mark.parametrize(
    ("model", "needs", "monitor"),
    [
        ("faster_rcnn", "boxes", "val/box_map"),
        ("retinanet", "boxes", "val/box_map"),
        ("mask_rcnn", "masks", "val/mask_map"),
        ("keypoint_rcnn", "keypoints", "val/kp_map"),
    ],
)
def test_what_the_network_asks_for(model: str, needs: str, monitor: str) -> None:
    args = {k: v for k, v in SMALL.items() if k != "representation_size" or model != "retinanet"}
    task = make(model, model_args=args)
    assert task.needs == needs
    assert task.monitor == (monitor, "max")
    assert monitor.removeprefix("val/") in task.headline
    assert {"bbox"} < set(task.iou_types) or needs == "boxes"


def test_other_models_are_refused() -> None:
    with pytest.raises(ZooError, match="resnet18 is a classification model; expected one for det"):
        DetectionTask("resnet18", num_classes=3, optimizer=SGD)


def test_custom_keypoints(tmp_path: Any) -> None:
    path = tmp_path / "kite.yaml"
    path.write_text("names: [tip, left, right]\nsigmas: [0.1, 0.2, 0.2]\n")
    args = {**SMALL, "keypoint_layers": [16], "box_detections_per_img": 8, "box_score_thresh": 0.0}
    task = make("keypoint_rcnn", keypoints=str(path), model_args=args)
    assert len(task.skeleton) == 3
    assert task.sigmas == (0.1, 0.2, 0.2)
    task.eval()
    found = task.predict_step({"image": batch()["image"], "id": [1, 2]})["detections"]
    assert len(found[0]["keypoints"]) == 8
    assert found[0]["keypoints"].shape[1:] == (3, 3)


def test_validation_changes_nothing() -> None:
    """Losses in evaluation mode: no dropout, no batch norm's statistics, no random numbers."""
    args = {**SMALL, "mask_layers": [16], "mask_dim_reduced": 16, "box_detections_per_img": 8}
    task = make("mask_rcnn", model_args=args).eval()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        task.validation_step(batch(masks=True), 0)
    losses = task.val_losses.compute()
    assert sorted(losses) == [
        "loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    ]  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    task.val_losses.reset()
    with torch.no_grad():
        task.validation_step(batch(masks=True), 0)
    assert task.val_losses.compute() == losses
