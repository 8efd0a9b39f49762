"""The first module forward and backward, the samples of a batch, and what is odd about them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_zoo.callbacks.finite import plain
from lightning_zoo.engine.replay.suspects import culprits, look, part_of, with_objects
from lightning_zoo.engine.replay.tracing import Trace, largest
from lightning_zoo.tasks.finite import BuffersBefore, all_finite, not_finite

NAN, INF = float("nan"), float("inf")


class Root(nn.Module):
    """Turns a negative value into nan."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Block(nn.Module):
    """A residual block whose two branches take the same input."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class Negative(nn.Module):
    """Its own arithmetic makes nan, none of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) - 100).log()


def forward(network: nn.Module, x: Tensor) -> str | None:
    with Trace(network) as trace:
        network(x)
    return trace.first_forward()


def backward(network: nn.Module, x: Tensor) -> str | None:
    with Trace(network, backward=True) as trace:
        network(x).sum().backward()
    return trace.first_backward()


def test_first_module_forward() -> None:
    x = torch.ones(2, 4)
    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity(), Negative()), nn.Identity())
    assert forward(network, x) == "1.1"
    assert forward(network, x + 200) is None
    assert forward(network, x * NAN) is None
    assert forward(nn.Sequential(nn.Identity(), Root()), -x) == "1"
    assert forward(Root(), -x) == ""
    # an input that the module itself overwrites
    network = nn.Sequential(Root(), nn.ReLU(inplace=True))
    assert forward(network, -x) == "0"


def test_first_module_backward() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    assert backward(nn.Sequential(nn.Identity(), nn.Sequential(Root()), nn.Identity()), x) == "1.0"
    # two branches have one input: the gradient of each is seen by itself
    for guilty in ("left", "right"):
        parts = {"left": nn.Identity(), "right": nn.Identity(), guilty: Root()}
        assert backward(Block(**parts), x) == guilty
        assert backward(nn.Sequential(nn.Identity(), Block(**parts)), x) == f"1.{guilty}"
    assert backward(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), x) is None
    # where nothing before it learns, a module's own parameters show it
    network = nn.Sequential(nn.Identity(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        network[1].weight.fill_(1e-38)
    assert backward(network, torch.full((2, 4), 3e38)) == "1"
    # from a loss whose own gradient is not finite, no module is to blame
    with Trace(nn.Linear(4, 4), backward=True) as trace:
        (trace.network(x).sum() * 0).sqrt().backward()
    assert trace.first_backward() is None


def test_a_trace_changes_nothing_and_leaves_nothing() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    network(x).sum().backward()
    before = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    backward(network, x)
    after = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("bad", [{0}, {3}, {1, 4}, {0, 1, 2, 3}])
def test_culprits(bad: set[int]) -> None:
    calls = []

    def is_bad(keep: Any) -> bool:
        calls.append(list(keep))
        return bool(bad & set(keep))

    assert culprits(5, is_bad) == sorted(bad)
    assert len(calls) <= 6


def test_culprits_that_need_others() -> None:
    # batch norm cannot take one sample, and two of them together are bad
    def together(keep: Any) -> bool | None:
        return None if len(keep) == 1 else {1, 2} <= set(keep)

    assert culprits(4, together) == [1, 2]
    assert culprits(4, lambda keep: True) == []  # every one of them
    assert culprits(1, lambda keep: bool(keep)) == [0]
    assert culprits(3, lambda keep: len(keep) == 3) == []  # all of them together


def test_parts_of_a_batch() -> None:
    batch = {"image": torch.arange(6).view(3, 2), "id": ["a", "b", "c"], "label": [5, 6, 7]}
    part = part_of(batch, [2, 2])
    assert part["image"].tolist() == [[4, 5], [4, 5]]
    assert (part["id"], part["label"]) == (["c", "c"], [7, 7])
    target = {"boxes": torch.arange(12.0).view(3, 4), "labels": torch.tensor([1, 2, 3]), "id": 9}
    one = with_objects({"target": [target, target], "id": [1, 2]}, 1, [0, 2])["target"]
    assert one[0] is target
    assert (one[1]["labels"].tolist(), one[1]["boxes"].shape, one[1]["id"]) == ([1, 3], (2, 4), 9)


def test_odd_objects() -> None:
    boxes = [[1, 1, 9, 9], [3, 3, 3, 5], [NAN, 0, 1, 1], [0, 0, 1e6, 1], [1, 1, 1.001, 4]]
    target = {
        "boxes": torch.tensor([*boxes, [2, 2, 8, 8], [2, 2, 8, 8]]),
        "labels": torch.tensor([1, 1, 2, 1, 2, 3, 0]),
        "masks": torch.ones(7, 16, 16, dtype=torch.uint8),
        "keypoints": torch.ones(7, 2, 3),
    }
    target["masks"][0] = 0
    target["keypoints"][5, 1, 0] = INF
    target["keypoints"][6, 1, 0] = 1e9
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    batch = {"image": [image], "target": [target], "id": [4]}
    found = [(odd.item, odd.text) for odd in look(batch, 3)]
    assert found == [
        (0, "its mask is empty"),
        (1, "its box has no area"),
        (2, "its box is not finite"),
        (3, "its box reaches far out of the image of 16 x 16 pixels"),
        (4, "its box is thinner than a hundredth of a pixel"),
        (5, "its label is 3; expected 1 to 2"),
        (5, "its keypoints are not finite"),
        (6, "its label is 0; expected 1 to 2"),
        (6, "its keypoints lie far out of the image"),
    ]


def test_odd_samples() -> None:
    image = torch.zeros(3, 3, 4, 4)
    image[1, 0, 2, 2] = NAN
    batch = {"image": image, "label": torch.tensor([0, 2, 3]), "id": list("abc")}
    found = [(odd.sample, odd.text) for odd in look(batch, 3)]
    assert found == [
        (1, "1 of 48 values of the image are not finite"),
        (2, "label 3; expected 0 to 2"),
    ]
    rows = torch.tensor([[0.0, 1.0], [0.0, NAN], [2.0, 0.0]])
    many = look({"image": image.byte(), "label": rows, "id": list("abc")}, 2, multilabel=True)
    assert [odd.sample for odd in many] == [1, 2]
    masks = torch.tensor([[[0, 1]], [[255, 2]], [[7, 9]]], dtype=torch.uint8)
    (odd,) = look({"image": image.byte(), "mask": masks, "id": list("abc")}, 3)
    assert (odd.sample, odd.text) == (2, "labels 7, 9 in the mask; expected 0 to 2 or 255")


def test_all_finite() -> None:
    tensors = [torch.randn(5), torch.randn(3, 3).double(), torch.zeros(0)]
    assert all_finite(tensors)
    assert all_finite([])
    assert all_finite([torch.full((9,), 3e38)]), "the norm overflows, the values do not"
    for value in (NAN, INF, -INF):
        bad = [*tensors, torch.tensor([0.0, value])]
        assert not all_finite(bad)
        assert not_finite([("a", tensors[0]), ("b", bad[-1]), ("c", None)]) == ("b",)
    assert largest([("a", torch.tensor([1.0, -3.0])), ("b", torch.tensor(2.0))]) == ("a", 3.0)


def test_buffers_are_put_back() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2))
    network.register_buffer("range", torch.zeros(0))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    kept = BuffersBefore()
    for _ in range(2):  # the second time into the copies of the first
        kept.keep(network)
        network(torch.randn(3, 4) * NAN)
        network.range.resize_(5).fill_(NAN)
        assert bool(network[0].running_mean.isnan().all())
        kept.put_back()
        for name, buffer in network.named_buffers():
            assert torch.equal(buffer, before[name]), name
    network = nn.Sequential(nn.BatchNorm1d(4))  # another network
    kept.keep(network)
    network(torch.randn(3, 4))
    kept.put_back()
    assert int(network[0].num_batches_tracked) == 0


def test_a_batch_is_kept_as_plain_data(tmp_path: Any) -> None:
    numpy = pytest.importorskip("numpy")
    batch = {"a": [torch.ones(2), (1, "x", None)], "b": numpy.ones(2), "c": numpy.int64(3),
             "d": {"e": tmp_path, "f": True, "g": 0.5}}  # fmt: skip
    torch.save(plain(batch), tmp_path / "batch.pt")
    found = torch.load(tmp_path / "batch.pt", weights_only=True)
    assert found["a"][1] == (1, "x", None)
    assert (found["b"].tolist(), found["c"]) == ([1.0, 1.0], 3)
    assert found["d"] == {"e": str(tmp_path), "f": True, "g": 0.5}
