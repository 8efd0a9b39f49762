"""The gradients of the few anchors in the loss are those of the whole head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.models.detection.rpn import RegionProposalNetwork, RPNHead, neighbourhoods


def test_neighbourhoods_by_hand() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    zero = torch.tensor([0, 0])
    found = neighbourhoods(x, zero, torch.tensor([0, 6])).view(2, 3, 3)
    assert found[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 4, 5]]
    assert found[1].tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]


def test_single_anchors_are_those_of_the_maps() -> None:
    torch.manual_seed(0)
    head = RPNHead(8, 3).double()
    maps = [torch.randn(2, 8, h, w, dtype=torch.float64) for h, w in ((6, 7), (3, 4), (1, 1))]
    logits, deltas = head(maps)
    flat_logits = torch.cat([m.permute(0, 2, 3, 1).reshape(2, -1) for m in logits], dim=1)
    flat_deltas = torch.cat([m.permute(0, 2, 3, 1).reshape(2, -1, 4) for m in deltas], dim=1)
    everything = torch.randperm(flat_logits.shape[1])
    chosen = [everything, everything[:5]]
    for i, (logit, delta) in enumerate(head.at(maps, chosen)):
        torch.testing.assert_close(logit, flat_logits[i, chosen[i]])
        torch.testing.assert_close(delta, flat_deltas[i, chosen[i]])
    (_, _), (none, nothing) = head.at(maps, [everything, everything[:0]])
    assert (none.shape, nothing.shape) == ((0,), (0, 4))


def losses_and_gradients(model: nn.Module) -> dict[str, Any]:
    model.zero_grad()
    torch.manual_seed(1)
    images = [torch.rand(3, 90, 120), torch.rand(3, 100, 80)]
    some = {
        "boxes": torch.tensor([[10.0, 10, 60, 70], [20, 40, 75, 85]]),
        "labels": torch.tensor([1, 2]),
    }
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model([image.double() for image in images], [some, none])
    torch.stack(list(losses.values())).sum().backward()
    return {k: v.detach() for k, v in losses.items()} | {
        n: p.grad for n, p in model.named_parameters()
    }


def test_losses_and_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = models.detection.faster_rcnn(
        backbone="squeezenet1_1", num_classes=3, fpn_channels=8, representation_size=8,
        min_size=128, max_size=160, anchor_sizes=[16, 32, 64, 96], rpn_batch_size_per_image=16,
    ).double().train()  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    asked = []
    decide = RegionProposalNetwork._loss_takes_few
    monkeypatch.setattr(
        RegionProposalNetwork,
        "_loss_takes_few",
        lambda self, maps: asked.append(decide(self, maps)) or asked[-1],
    )
    few = losses_and_gradients(model)
    assert asked == [True]
    monkeypatch.setattr(RegionProposalNetwork, "_loss_takes_few", lambda self, maps: False)
    every = losses_and_gradients(model)
    assert few.keys() == every.keys()
    for name, value in every.items():
        torch.testing.assert_close(few[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_hooks_are_not_passed_by() -> None:
    model = models.detection.faster_rcnn(
        backbone="squeezenet1_1", num_classes=3, fpn_channels=8, representation_size=8,
        anchor_sizes=[16, 32, 64, 96], rpn_batch_size_per_image=16,
    )  # fmt: skip
    maps = [torch.zeros(1, 8, 20, 20)]
    assert model.rpn._loss_takes_few(maps)
    handle = model.rpn.head.cls_logits.register_forward_hook(lambda *a: None)
    assert not model.rpn._loss_takes_few(maps)
    handle.remove()
    assert not model.rpn._loss_takes_few([torch.zeros(1, 8, 4, 4)])  # all are as cheap
