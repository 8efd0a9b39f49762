from __future__ import annotations

from typing import Any

import pytest
import torch
from int8_networks import CLASSIFIERS, calibrated, images, network
from torch import Tensor, nn
from torch.fx import Interpreter
from torch.nn import functional

from lightning_zoo import int8
from lightning_zoo.int8 import kernels
from lightning_zoo.int8.kernels import Activation, Convolution, Scale
from lightning_zoo.int8.lowering import Lowering

pytest.importorskip("torchao", reason="quantizing needs the extra int8")
pytestmark = pytest.mark.skipif(
    "onednn" not in int8.available_engines(), reason="this torch has no oneDNN"
)

LAST = torch.channels_last
RELU, RELU6 = Activation("hardtanh", 0.0), Activation("hardtanh", 0.0, 6.0)


class Recorder(Interpreter):
    """Runs a program and keeps every value; those in ``given`` are taken, not computed."""

    def __init__(self, program: Any, given: dict[Any, Tensor] | None = None) -> None:
        super().__init__(program)
        self.given, self.found = given or {}, dict[Any, Any]()

    def run_node(self, n: Any) -> Any:
        value = super().run_node(n)
        self.found[n] = value.clone() if isinstance(value, Tensor) else value
        return (
            self.given[n].clone(memory_format=torch.preserve_format) if n in self.given else value
        )


# The families that are quick to trace
QUICK = ("mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_0")


class Small(nn.Module):
    """What the slow families have that the quick ones have not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.branch = nn.Conv2d(8, 8, (1, 7), padding=(0, 3))
        self.head = nn.Conv2d(16, 6, 1)
        self.fc = nn.Linear(6 * 4, 10)
        nn.init.uniform_(self.norm.weight, -1, 1)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        x = torch.cat([functional.avg_pool2d(x, 3, 1, 1), self.branch(x).relu()], 1)
        x = self.head(self.norm(x).relu())
        x = functional.adaptive_avg_pool2d(functional.avg_pool2d(x, 2), 2)
        return self.fc(functional.dropout(x.flatten(1), training=self.training))


def check_each_step(network: nn.Module, x: Tensor) -> None:
    """Compare every uint8 of a lowered program, made from the reference's, with the reference's."""
    prepared = int8.prepare(network, x[:2])
    with torch.no_grad():
        prepared(x)
    program = int8.convert(prepared)
    lowering = Lowering(program)
    lowered = lowering.run()
    x = x.flip(3)
    with torch.no_grad():
        reference = Recorder(program)
        logits = reference.run(x)
        names = {node.name: node for node in lowered.graph.nodes}
        pairs = {
            names[new.name]: reference.found[old]
            for old, new in lowering.ints.items()
            if new.name in names
        }
        given = {
            node: value.contiguous(memory_format=LAST) if value.ndim == 4 else value
            for node, value in pairs.items()
            if isinstance(value, Tensor)
        }
        steps = Recorder(lowered, given)
        found = steps.run(x)
        assert len(pairs) > 5
        off = 0
        for node, expected in pairs.items():
            difference = (steps.found[node].int() - expected.int()).abs()
            assert difference.max() <= 1, f"{node} is off by {difference.max()}"
            assert int(expected.max()) <= 127
            off += int((difference > 0).sum())
        # values that lie in the middle between two steps, to float32's precision
        assert off <= 1e-4 * sum(v.numel() for v in pairs.values())
        torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
        # what is overwritten in place is read by nobody afterwards
        found = lowered(x)
        for module in lowered.modules():
            if isinstance(module, Convolution):
                module.in_place = False
        assert torch.equal(lowered(x), found)
    kinds = {type(m).__name__ for m in lowered.modules()}
    assert "Convolution" in kinds
    floats = [n for n in lowered.graph.nodes if n.target is kernels.dequantize]
    assert len(floats) <= 1, "a step is left in float"


def test_what_the_slow_families_have() -> None:
    torch.manual_seed(0)
    check_each_step(Small().eval(), torch.randn(3, 3, 32, 32))


@pytest.mark.parametrize("name", QUICK)
def test_each_step_is_the_reference_s(name: str) -> None:
    check_each_step(network(name), images(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if n not in QUICK])
def test_each_step_of_the_others_is_the_reference_s(name: str) -> None:
    assert len(CLASSIFIERS) >= 37
    check_each_step(network(name), images(name))


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("activation", [Activation(), RELU, RELU6, Activation("hardswish")])
def test_convolution_is_that_of_whole_numbers(groups: int, activation: Activation) -> None:
    torch.manual_seed(groups)
    source, to = Scale(0.02, 30, 0, 127), Scale(0.05, 20, 0, 127)
    x = torch.randint(0, 128, (2, 8, 9, 7), dtype=torch.uint8)
    weight = torch.randint(-127, 128, (16, 8 // groups, 3, 3), dtype=torch.int8)
    scale, bias = torch.rand(16) / 100, torch.randn(16)
    where = ([2, 1], [1, 1], [1, 1], groups)
    module = Convolution(weight, scale, bias, where, source=source, to=to, activation=activation)
    found = module(x.contiguous(memory_format=LAST))
    sums = whole_convolution(x.long() - source.zero, weight.long(), groups)
    value = sums.double() * source.scale * scale.double().view(-1, 1, 1)
    value = value + bias.double().view(-1, 1, 1)
    if activation.kind == "hardswish":
        value = functional.hardswish(value)
    value = value.clamp(activation.low, activation.high)
    exact = value / to.scale + to.zero
    expected = exact.round().clamp(0, 127)
    difference = (found.double() - expected).abs()
    assert difference.max() <= 1
    assert bool(((exact - exact.floor() - 0.5).abs()[difference > 0] < 1e-4).all())
    assert found.max() <= 127


def whole_convolution(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve int64 with stride (2, 1) and padding 1, one output at a time."""
    count, size = weight.shape[0] // groups, weight.shape[1]
    padded = functional.pad(x, (1, 1, 1, 1))
    out = torch.zeros(len(x), weight.shape[0], (x.shape[2] + 1) // 2, x.shape[3], dtype=torch.int64)
    for o in range(weight.shape[0]):
        part = padded[:, o // count * size : (o // count + 1) * size]
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                window = part[:, :, 2 * i : 2 * i + 3, j : j + 3]
                out[:, o, i, j] = (window * weight[o]).sum((1, 2, 3))
    return out


@pytest.mark.parametrize("in_place", [False, True])
def test_sum_before_the_activation(in_place: bool) -> None:
    source, to, other = Scale(0.02, 0, 0, 127), Scale(0.05, 20, 0, 127), Scale(0.03, 11, 0, 127)
    x = torch.randint(0, 128, (2, 8, 5, 5), dtype=torch.uint8).contiguous(memory_format=LAST)
    added = torch.randint(0, 128, (2, 4, 5, 5), dtype=torch.uint8).contiguous(memory_format=LAST)
    weight = torch.randint(-127, 128, (4, 8, 1, 1), dtype=torch.int8)
    scale, where = torch.rand(4) / 100, ([1, 1], [0, 0], [1, 1], 1)
    module = Convolution(
        weight, scale, None, where, source=source, to=to, activation=RELU, added=other
    )
    module.in_place = in_place
    value = functional.conv2d(x * source.scale, weight * scale.view(-1, 1, 1, 1))
    value = (value + (added.float() - other.zero) * other.scale).relu()
    before = added.clone()
    found = module(x, added)
    assert torch.equal(added, before) is not in_place
    expected = (value / to.scale).round().add(to.zero).clamp(0, 127)
    assert (found - expected).abs().max() <= 1
    assert ((found - expected) != 0).float().mean() < 0.02


@pytest.mark.parametrize("groups", [2, 3])
def test_shuffle(groups: int) -> None:
    x = torch.randint(0, 128, (2, 12, 3, 5), dtype=torch.uint8).contiguous(memory_format=LAST)
    expected = x.reshape(2, groups, -1, 3, 5).transpose(1, 2).reshape(2, 12, 3, 5)
    assert torch.equal(kernels.shuffle(x, groups), expected)


def test_quantize_rounds_like_the_reference() -> None:
    import torch.ao.quantization.fx._decomposed

    x = torch.linspace(-5, 5, 3 * 16 * 16).reshape(1, 3, 16, 16)
    args = (0.0625, 60, 0, 127)
    expected = torch.ops.quantized_decomposed.quantize_per_tensor(x, *args, torch.uint8)
    assert torch.equal(kernels.quantize(x, 1 / args[0], *args[1:]), expected)


@pytest.mark.slow
@pytest.mark.skipif("inductor" not in int8.available_engines(), reason="there is no C++ compiler")
def test_inductor_gives_the_same() -> None:
    program = int8.convert(calibrated("squeezenet1_0", network("squeezenet1_0")))
    x = images("squeezenet1_0", 2)
    fast = int8.lower(program, "inductor")(x)
    with torch.no_grad():
        assert torch.equal(fast.argmax(1), program(x).argmax(1))
