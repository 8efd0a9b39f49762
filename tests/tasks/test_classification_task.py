"""The task's arithmetic, against formulas written out by hand."""

import functools
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from lightning_zoo.engine.session import hush
from lightning_zoo.errors import ZooError
from lightning_zoo.optim import Length, StepDecay, param_groups, reference_decay
from lightning_zoo.tasks import ClassificationTask
from lightning_zoo.tasks.base import IMAGENET_MEAN, IMAGENET_STD
from lightning_zoo.tasks.classification import erase

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def make(**changes: Any) -> ClassificationTask:
    args: dict[str, Any] = {"num_classes": 3, "optimizer": SGD} | changes
    return ClassificationTask(args.pop("model", "squeezenet1_1"), **args)


def batch(n: int = 4, side: int = 32, classes: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"image": image, "label": torch.arange(n) % classes, "id": [str(i) for i in range(n)]}


class Quiet(ClassificationTask):
    """Without a trainer there is nobody to log to."""

    def record_loss(self, loss: Tensor, samples: int, parts: object = None) -> None:
        self.recorded = (float(loss.detach()), samples)


def test_normalising_is_the_published_formula() -> None:
    images = batch()["image"]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (images.float() / 255 - mean) / std
    torch.testing.assert_close(make().prepare(images), expected, rtol=1e-5, atol=1e-6)
    found = make(channels_last=True).prepare(images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("outputs", "weight"), [(3, 0.3), (2, 0.4), (1, 0.3)])
def test_auxiliary_losses_are_added(outputs: int, weight: float) -> None:
    """GoogLeNet returns two auxiliary heads and Inception one; each counts with the weight."""
    logits = [torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(outputs)]

    class Heads(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return tuple(logits) if outputs > 1 else logits[0]

    task = Quiet("squeezenet1_1", num_classes=3, optimizer=SGD, aux_weight=weight)
    task.model = Heads()
    data = batch()
    main, *rest = [
        -sum(float(o[i].log_softmax(0)[data["label"][i]]) for i in range(4)) / 4 for o in logits
    ]
    assert float(task.training_step(data, 0)) == pytest.approx(main + weight * sum(rest), rel=1e-5)


def test_label_smoothing_by_hand() -> None:
    logits, label, s = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1]), 0.1
    logs = logits.log_softmax(1)[0]
    by_hand = -((1 - s) * logs[1] + s * logs.mean())
    assert float(make(label_smoothing=s).loss(logits, label)) == pytest.approx(float(by_hand))
    # a mixed target: the same smoothing on each part
    target = torch.tensor([[0.3, 0.7, 0.0]])
    mixed = -(((1 - s) * target + s / 3) * logs).sum()
    assert float(make(label_smoothing=s).loss(logits, target)) == pytest.approx(float(mixed))


def test_several_labels() -> None:
    task = make(multilabel=True)
    assert task.monitor == ("val/map", "max")
    logits, target = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    p = logits.sigmoid()[0]
    by_hand = -(p[0].log() + (1 - p[1]).log() + p[2].log()) / 3
    assert float(task.loss(logits, target)) == pytest.approx(float(by_hand), rel=1e-6)
    probs = task.eval().predict_step(batch())["probs"]
    assert probs.shape == (4, 3)
    assert not torch.allclose(probs.sum(1), torch.ones(4))


def test_erasing_happens_after_normalising() -> None:
    images = torch.randn(3, 3, 8, 8)
    boxes = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0], [6, 6, 9, 9]])
    slow = images.clone()
    for i, (y, x, h, w) in enumerate(boxes.tolist()):
        slow[i, :, y : y + h, x : x + w] = 0
    assert torch.equal(erase(images, boxes), slow)
    task = Quiet("squeezenet1_1", num_classes=3, optimizer=SGD)
    seen = []
    task.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    task.training_step(
        {**batch(3), "erase": torch.tensor([[0, 0, 32, 32], [0, 0, 0, 0], [0] * 4])}, 0
    )
    assert (seen[0][0] == 0).all()
    assert (seen[0][1] != 0).any()


@pytest.mark.parametrize("steps_per_epoch", [5, 8])
def test_average_follows_the_reference_rule(
    steps_per_epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the rule of torchvision's script, restated as a loop over numbers."""
    decay, every, epochs, size, warmup = 0.999, 3, 4, 16, 1
    task = make(ema_decay=decay, ema_every_steps=every, ema_warmup_epochs=warmup)
    task.configure(Length(steps_per_epoch, epochs), batch_size=size, lr_scale=1.0, seed=0)
    trainer = SimpleNamespace(global_step=0)
    monkeypatch.setattr(ClassificationTask, "trainer", trainer)
    monkeypatch.setattr(LightningModule, "optimizer_step", lambda *args: None)
    parameter = next(task.model.parameters())
    assert task.ema is not None
    averaged = next(task.ema.module.parameters())
    alpha = min(1.0, (1 - decay) * size * every / epochs)
    expected, updates = float(averaged.flatten()[0]), 0
    for epoch in range(epochs):
        for i in range(steps_per_epoch):
            now = math.sin(trainer.global_step)
            with torch.no_grad():
                parameter.fill_(now)
            task.optimizer_step(epoch, i, None)
            trainer.global_step += 1  # as Lightning does: see the next test
            if i % every == 0:
                expected = now if updates == 0 else expected + alpha * (now - expected)
                updates = 0 if epoch < warmup else updates + 1
            assert float(averaged.flatten()[0]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert set(task.networks()) == {"", "ema_"}


def test_the_average_follows_the_first_step_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a real run of three steps an epoch, every second one: the first and the third."""
    followed = []

    def note(self: AveragedModel, network: nn.Module) -> None:
        followed.append(len(steps) - 1)

    steps: list[int] = []
    monkeypatch.setattr(AveragedModel, "update_parameters", note)
    task = make(ema_decay=0.9, ema_every_steps=2)
    task.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    task.configure(Length(3, 2), batch_size=4, lr_scale=1.0, seed=0)
    plain = LightningModule.optimizer_step

    def step(self: LightningModule, *args: Any, **kwargs: Any) -> None:
        steps.append(self.trainer.global_step)
        plain(self, *args, **kwargs)

    monkeypatch.setattr(LightningModule, "optimizer_step", step)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, log_every_n_steps=50,
    )  # fmt: skip
    with warnings.catch_warnings():
        hush()
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        trainer.fit(task, DataLoader([batch(4, side=8)] * 3, batch_size=None))
    assert steps == [0, 1, 2, 3, 4, 5]
    assert followed == [0, 2, 3, 5]


def test_decay_of_one_update() -> None:
    # 1 - 0.99998 = 2e-5, times 1024 images x 32 steps / 600 epochs
    found = reference_decay(0.99998, batch_size=1024, every_steps=32, epochs=600)
    assert found == pytest.approx(1 - 2e-5 * 1024 * 32 / 600)
    assert reference_decay(0.5, batch_size=1024, every_steps=32, epochs=1) == 0.0


def test_parameter_groups_hold_each_parameter_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[3].weight.requires_grad_(False)
    groups = param_groups(model, norm_weight_decay=0.0, bias_weight_decay=0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    found = [sorted(names[id(p)] for p in group["params"]) for group in groups]
    assert found == [["0.weight"], ["1.bias", "1.weight"], ["0.bias", "3.bias"]]
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, 0.5]
    assert len(param_groups(model)) == 1


def test_linear_rule_scales_every_group() -> None:
    task = make(
        norm_weight_decay=0.0,
        model="mobilenet_v3_small",
        lr_schedule=lambda length: StepDecay(length, every_epochs=1, gamma=0.5),
    )
    task.configure(Length(10, 3), batch_size=512, lr_scale=2.0, seed=0)
    made = task.configure_optimizers()
    assert [g["lr"] for g in made["optimizer"].param_groups] == [0.2, 0.2]
    assert [g["initial_lr"] for g in made["optimizer"].param_groups] == [0.2, 0.2]


def test_mistakes() -> None:
    with pytest.raises(ZooError, match="unknown model 'squeezenet1_2'; did you mean squeezenet1_"):
        make(model="squeezenet1_2")
    with pytest.raises(ValueError, match="num_classes is None"):
        make(num_classes=None)


def test_validation_loss_has_no_smoothing() -> None:
    """So that it can be compared between recipes."""
    task = make(label_smoothing=0.3)
    task.eval()
    data = batch()
    task.validation_step(data, 0)
    with torch.no_grad():
        expected = F.cross_entropy(task(data["image"]), data["label"])
    assert float(task.val_loss.compute()) == pytest.approx(float(expected), rel=1e-6)
