"""The segmentation task's arithmetic: losses by hand, void, groups, images of any size."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.optim import Length, param_groups
from lightning_zoo.tasks import SegmentationTask
from lightning_zoo.tasks.segmentation import cross_entropy, dice_loss, same_size

SGD = functools.partial(torch.optim.SGD, lr=0.01)
SMALL = {"backbone": "resnet18"}


def make(model: str = "fcn", **changes: Any) -> SegmentationTask:
    args: dict[str, Any] = {"num_classes": 3, "optimizer": SGD, "model_args": SMALL} | changes
    return SegmentationTask(model, **args)


class Pixelwise(nn.Module):
    """Stands for a network: logits are a linear map of a pixel's own values."""

    def __init__(self, classes: int, aux: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        self.classifier = nn.Conv2d(4, classes, 1)
        self.aux_classifier = nn.Conv2d(4, classes, 1) if aux else None

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        x = self.backbone(images)
        found = OrderedDict(out=self.classifier(x))
        if self.aux_classifier is not None:
            found["aux"] = self.aux_classifier(x)
        return found


class Trainer:
    """As much of a trainer as a training step looks at."""

    global_step, log_every_n_steps = 0, 50


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 8, 9), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, 3, (2, 8, 9), dtype=torch.uint8, generator=generator)
    mask[0, :3] = 255
    return {"image": image, "mask": mask, "id": ["a.jpg", "b.jpg"]}


def slow_cross_entropy(logits: Tensor, target: Tensor, weights: list[float]) -> float:
    total = counted = 0.0
    for n, y, x in torch.nonzero(target != 255).tolist():
        label = int(target[n, y, x])
        row = logits[n, :, y, x].double().tolist()
        total -= weights[label] * (row[label] - math.log(sum(map(math.exp, row))))
        counted += weights[label]
    return total / counted


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0]])
def test_cross_entropy(weights: list[float] | None) -> None:
    target = batch()["mask"].long()
    logits = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    given = None if weights is None else torch.tensor(weights)
    found = cross_entropy(logits, target, given)
    assert found.item() == pytest.approx(
        slow_cross_entropy(logits, target, weights or [1.0] * 3), rel=1e-5
    )
    theirs = F.cross_entropy(logits, target, weight=given, ignore_index=255)
    assert found.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_void_pixels_do_not_count() -> None:
    target = batch()["mask"].long()
    logits = torch.randn(2, 3, 8, 9)
    moved = logits.clone()
    moved[0, :, :3] += torch.randn(3, 3, 9)
    for loss in (cross_entropy, dice_loss):
        assert loss(logits, target).item() == pytest.approx(loss(moved, target).item(), abs=1e-7)


@pytest.mark.parametrize("loss", [cross_entropy, dice_loss])
def test_nothing_but_void_gives_zero_and_gradients(loss: Any) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), 255))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0.0
    weighted = cross_entropy(logits, torch.full((1, 4, 4), 255), torch.ones(3))
    assert weighted.item() == 0.0


def test_dice_by_hand() -> None:
    # two pixels of class 0, one of class 1, one void; class 2 is not shown and not counted
    target = torch.tensor([[[0, 0], [1, 255]]])
    probs = torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]])
    logits = probs.log().T.reshape(1, 3, 2, 2)
    first = 2 * (0.5 + 0.8) / ((0.5 + 0.8 + 0.3) + 2)
    second = 2 * 0.6 / ((0.25 + 0.1 + 0.6) + 1)
    assert dice_loss(logits, target).item() == pytest.approx(1 - (first + second) / 2)
    sure = F.one_hot(torch.tensor([[[0, 0], [1, 1]]]), 3).movedim(-1, 1) * 100.0
    assert dice_loss(sure, target).item() == pytest.approx(0.0, abs=1e-6)


def test_the_second_head_counts_half(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(dice_weight=0.25)
    task.model = Pixelwise(3, aux=True)
    monkeypatch.setattr(LightningModule, "trainer", Trainer())
    given = batch()
    loss = task.training_step(given, 0)
    target = given["mask"].long()
    outputs = task.model(task.prepare(given["image"]))
    expected = torch.zeros(())
    for name, weight in (("out", 1.0), ("aux", 0.5)):
        dice = dice_loss(outputs[name], target)
        expected = expected + weight * (cross_entropy(outputs[name], target) + 0.25 * dice)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert task.loss_count == 2


def test_groups_and_factors() -> None:
    task = make(backbone_lr_factor=0.1, model_args={**SMALL, "aux_loss": True})
    task.configure(Length(10, 1), batch_size=4, lr_scale=2.0, seed=0)
    optimizer = task.configure_optimizers()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"backbone": 0.002, "classifier": 0.02, "aux_classifier": 0.2}
    seen = set()
    for name, parameter in task.model.named_parameters():
        part = name.partition(".")[0]
        seen.add(part)
        assert rates[id(parameter)] == pytest.approx(expected[part]), name
    assert seen == set(expected)
    with pytest.raises(ZooError, match="unknown part of the network 'hed'; did you mean head"):
        param_groups(nn.ModuleDict({"head": nn.Linear(1, 1)}), lr_factors={"hed": 1.0})


def test_images_of_one_size_stand_together() -> None:
    sizes = [(4, 5), (5, 4), (4, 5), (4, 4)]
    assert same_size([torch.zeros(3, *size) for size in sizes]) == [[0, 2], [1], [3]]


def test_figures_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(8, 9), (9, 8), (8, 9), (7, 7)]
    images = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes
    ]
    masks = [torch.randint(0, 3, size, dtype=torch.uint8, generator=generator) for size in sizes]
    masks[1][:] = 255
    task = make()
    task.model = Pixelwise(3)
    task.class_names = ["ground", "cat", "dog"]
    seen = []
    for parts in ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[3, 0], [2, 1]]):
        logged: dict[str, float] = {}
        monkeypatch.setattr(task, "log_dict", lambda values, **_: logged.update(values))  # noqa: B023
        for rows in parts:
            one = {"image": [images[i] for i in rows], "mask": [masks[i] for i in rows],
                   "id": rows}  # fmt: skip
            with torch.no_grad():
                task.validation_step(one, 0)
        task.on_validation_epoch_end()
        seen.append({name: float(value) for name, value in logged.items()})
    assert seen[0] == pytest.approx(seen[1])
    assert seen[0] == pytest.approx(seen[2])
    assert set(seen[0]) == {"val/loss", "val/miou", "val/pixel_acc"}
    # by hand, over all pixels at once
    truth, found = [], []
    for image, mask in zip(images, masks, strict=True):
        found.append(task.predict_step({"image": [image], "id": [0]})["segmentation"][0].flatten())
        truth.append(mask.flatten())
    counted = torch.cat(truth) != 255
    labels, guesses = torch.cat(truth)[counted], torch.cat(found)[counted]
    ious = [
        ((labels == c) & (guesses == c)).sum() / ((labels == c) | (guesses == c)).sum()
        for c in range(3)
    ]
    assert seen[0]["val/miou"] == pytest.approx(100 * float(torch.stack(ious).mean()), rel=1e-5)
    assert seen[0]["val/pixel_acc"] == pytest.approx(
        100 * float((labels == guesses).float().mean()), rel=1e-5
    )
    assert [row["name"] for row in task.per_class] == ["ground", "cat", "dog"]


def test_predictions_have_the_images_sizes() -> None:
    task = make().eval()
    images = [torch.zeros(3, 40, 33, dtype=torch.uint8), torch.zeros(3, 32, 48, dtype=torch.uint8)]
    with torch.no_grad():
        found = task.predict_step({"image": images, "id": ["a", "b"]})
    assert found["id"] == ["a", "b"]
    assert [tuple(one.shape) for one in found["segmentation"]] == [(40, 33), (32, 48)]
    assert {one.dtype for one in found["segmentation"]} == {torch.uint8}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"class_weights": [1.0]}, "class_weights has 1 weights; expected one for each of the 3"),
        ({"dice_weight": -1.0}, "dice_weight is -1.0; expected 0 or more"),
        ({"num_classes": 256}, "num_classes is 256; expected 1 to 255"),
        ({"model": "resnet18"}, "resnet18 is a classification model; expected one for segmenta"),
    ],
)
def test_arguments(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ZooError, match=text):
        make(**changes)
