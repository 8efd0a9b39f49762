from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_zoo.errors import ZooError
from lightning_zoo.ops import decode_boxes, encode_boxes, sigmoid_focal_loss

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def test_focal_loss_by_its_formula() -> None:
    logits, targets = torch.tensor([[-1.0, 0.0, 2.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    expected = []
    for x, t in zip(logits[0].tolist(), targets[0].tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        p_t, weight = (p, 0.25) if t else (1 - p, 0.75)
        expected.append(-weight * (1 - p_t) ** 2 * math.log(p_t))
    loss = sigmoid_focal_loss(logits, targets)
    torch.testing.assert_close(loss, torch.tensor([expected]))
    assert sigmoid_focal_loss(logits, targets, reduction="sum").item() == pytest.approx(
        sum(expected)
    )
    mean = sigmoid_focal_loss(logits, targets, reduction="mean").item()
    assert mean == pytest.approx(sum(expected) / 3)
    plain = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=0)
    torch.testing.assert_close(
        plain, F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    )


def test_focal_loss_of_extremes() -> None:
    logits = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0.0, 1.0]), reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.isfinite().all()
    assert sigmoid_focal_loss(logits.detach().half(), torch.ones(2)).dtype == torch.float32
    assert sigmoid_focal_loss(torch.zeros(0, 3), torch.zeros(0, 3), reduction="sum") == 0
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    target = (torch.arange(6) % 2).double()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, target), (x,))
    with pytest.raises(ZooError, match="unknown reduction 'men'; did you mean mean"):
        sigmoid_focal_loss(logits, logits, reduction="men")


def test_coding_by_hand() -> None:
    proposals, reference = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 15, 40]])
    deltas = encode_boxes(reference, proposals, (1, 1, 1, 1))
    torch.testing.assert_close(deltas, torch.tensor([[0.5, 0.5, 0.0, math.log(2)]]))
    weighted = encode_boxes(reference, proposals, WEIGHTS)
    torch.testing.assert_close(weighted, deltas * torch.tensor(WEIGHTS))


def test_decoding_undoes_coding() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.rand(20, 4, generator=g) * 100 for _ in range(2))
    for boxes in (a, b):
        boxes[:, 2:] += boxes[:, :2] + 1
    deltas = encode_boxes(a, b, WEIGHTS)
    torch.testing.assert_close(decode_boxes(deltas, b, WEIGHTS), a, rtol=1e-4, atol=1e-4)
    three = decode_boxes(deltas.repeat(1, 3), b, WEIGHTS).view(20, 3, 4)
    assert torch.equal(three[:, 0], three[:, 2])
    torch.testing.assert_close(three[:, 1], a, rtol=1e-4, atol=1e-4)


def test_growth_is_limited() -> None:
    huge = decode_boxes(torch.full((1, 4), 100.0), torch.tensor([[0.0, 0, 16, 16]]), (1, 1, 1, 1))
    torch.testing.assert_close(huge[:, 2] - huge[:, 0], torch.tensor([1000.0]))
    assert decode_boxes(torch.zeros(0, 8), torch.zeros(0, 4), WEIGHTS).shape == (0, 8)
    assert encode_boxes(torch.zeros(0, 4), torch.zeros(0, 4), WEIGHTS).shape == (0, 4)
