"""Which layers learn how, and what stands still until when: of every family of the registry."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.models.registry import ModelEntry, registry
from lightning_zoo.optim import LR_FACTOR, FineTuning, Length, Thaw, param_groups
from lightning_zoo.optim.finetuning import stages

ENTRIES = list(registry().values())
# Stages of a classifier's trunk by the name that its models begin with; a hidden layer before the
# logits is one more.
TRUNKS = {
    "alexnet": 3, "vgg": 5, "res": 5, "wide": 5, "squeezenet": 4, "densenet": 5, "inception": 5,
    "googlenet": 5, "shufflenet": 4, "mobilenet_v2": 5, "mobilenet_v3": 5, "mnasnet": 5,
}  # fmt: skip
HIDDEN = ("alexnet", "vgg", "mobilenet_v3")


def slow_if_large(entry: ModelEntry) -> Any:
    many = ("201", "161", "169", "152", "101", "inception")
    marks = [pytest.mark.slow] if any(n in entry.name for n in many) else []
    return pytest.param(entry, marks=marks, id=entry.full_name)


def on_meta(entry: ModelEntry) -> tuple[nn.Module, set[str]]:
    """Return a network without values, and the names of its head's parameters."""
    weights = None if entry.task == "quantization" else entry.default

    def build(classes: int) -> nn.Module:
        with hub.structure_only(), torch.device("meta"):
            return models.get_model(entry.full_name, weights=weights, num_classes=classes)

    network, other = build(7), build(8)
    sizes = {name: p.shape for name, p in other.named_parameters()}
    return network, {n for n, p in network.named_parameters() if p.shape != sizes[n]}


@pytest.mark.parametrize("entry", [slow_if_large(e) for e in ENTRIES])
def test_stages_of_every_model(entry: ModelEntry) -> None:
    network, head = on_meta(entry)
    names = [name for name, _ in network.named_parameters()]
    found = stages(network, head)
    assert sorted(itertools.chain(*found)) == sorted(set(names) - head)
    aux = [n for n in names if n.startswith(("aux1.", "aux2.", "AuxLogits."))]
    if aux and found[-1][0] in aux:
        found = found[:-1]
    if entry.task in ("classification", "quantization"):
        begin = next(n for n in TRUNKS if entry.name.startswith(n))
        assert len(found) == TRUNKS[begin] + entry.name.startswith(HIDDEN)
    elif entry.task == "video":
        assert len(found) == 4  # they halve the resolution in the stem and in three of four layers
    elif not entry.name.startswith("ssd"):
        assert len(found) == 6  # five of the backbone, and all the rest
        assert all(n.startswith("backbone.") for stage in found[:-1] for n in stage)
        assert not any(n.startswith("backbone.body") for n in found[-1])
    # from the input to the output: in the order of the network
    inside = [n for stage in found[:-1] for n in stage]
    assert inside == [n for n in names if n in set(inside)]
    assert names.index(found[0][0]) <= 1  # SSD has a scale of its own before its features


def test_stages_of_a_dilated_network() -> None:
    """FCN's last two stages are dilated and halve nothing; they are stages all the same."""
    network, head = on_meta(models.get_entry("fcn_resnet50"))
    first = [stage[0].split(".")[1] for stage in stages(network, head)[:-1]]
    assert first == ["conv1", "layer1", "layer2", "layer3", "layer4"]


def test_rates_fall_towards_the_input() -> None:
    network, head = on_meta(models.get_entry("resnet18"))
    tuning = FineTuning(backbone_lr_factor=0.1, stage_factor=0.5)
    groups = param_groups(network, layers=tuning.layers(network, head))
    names = {id(p): n for n, p in network.named_parameters()}
    factor = {names[id(p)]: g.get(LR_FACTOR, 1.0) for g in groups for p in g["params"]}
    assert groups[0]["params"] == list(network.fc.parameters())  # the one whose rate is logged
    assert factor["fc.weight"] == 1.0
    for i, stage in enumerate(("layer4", "layer3", "layer2", "layer1")):
        of_stage = {f for n, f in factor.items() if n.startswith(stage)}
        assert of_stage == {0.1 * 0.5**i}
    assert factor["conv1.weight"] == factor["bn1.bias"] == 0.1 * 0.5**4
    assert len(factor) == len(names)
    # without a factor for each stage there is one layer
    assert len(FineTuning().layers(network, head)) == 1


def test_layers_with_weight_decay_of_their_own_and_parts() -> None:
    """Norms, biases and a part's own factor: each parameter once, its factors multiplied."""
    network = nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)),
            "classifier": nn.Conv2d(4, 2, 1),
            "aux_classifier": nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)),
        }
    )
    head = {"classifier.weight", "classifier.bias", "aux_classifier.1.weight",
            "aux_classifier.1.bias"}  # fmt: skip
    rest = [n for n, _ in network.named_parameters() if n not in head]
    groups = param_groups(
        network,
        norm_weight_decay=0.0,
        bias_weight_decay=0.5,
        lr_factors={"backbone": 2.0, "aux_classifier": 10.0},
        layers=[(0.1, rest)],
    )
    names = {id(p): n for n, p in network.named_parameters()}
    found = [
        ([names[id(p)] for p in g["params"]], g.get("weight_decay"), g.get(LR_FACTOR, 1.0))
        for g in groups
    ]
    assert found == [
        (["classifier.weight"], None, 1.0),
        (["classifier.bias"], 0.5, 1.0),
        (["aux_classifier.1.weight"], None, 10.0),
        (["aux_classifier.1.bias"], 0.5, 10.0),
        (["backbone.0.weight"], None, 0.2),
        (["backbone.1.weight", "backbone.1.bias"], 0.0, 0.2),
        (["backbone.0.bias"], 0.5, 0.2),
        (["aux_classifier.0.weight"], None, 1.0),
        (["aux_classifier.0.bias"], 0.5, 1.0),
    ]


def test_steps_of_parts_of_epochs() -> None:
    length = Length(steps_per_epoch=9, epochs=3)
    for epochs, steps in ((0, 0), (1, 9), (0.5, 5), (2.25, 21), (1 / 3, 3)):
        assert FineTuning(freeze_epochs=epochs).frozen_steps(length) == steps
    assert FineTuning(freeze_epochs=0.01).frozen_steps(length) == math.ceil(0.09)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.still = nn.Conv2d(4, 4, 1)
        self.still.requires_grad_(False)  # frozen by its builder
        self.new_norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.new_norm(self.still(self.norm(self.conv(x)))).mean((2, 3)))


HEAD = ("fc.weight", "fc.bias", "new_norm.weight", "new_norm.bias")


def train(network: Net, thaw: Thaw, step: int, optimizer: Any, *, toggle: bool) -> None:
    thaw.prepare(step, toggle=toggle)
    optimizer.zero_grad()
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(step))
    network(x).square().sum().backward()
    thaw.drop(step)
    norm = nn.utils.clip_grad_norm_(network.parameters(), 0.1)
    assert norm > 0.1  # so that what is clipped matters
    optimizer.step()


@pytest.mark.parametrize("toggle", [True, False])
@pytest.mark.parametrize("freeze_norms", [True, False])
def test_what_stands_still(toggle: bool, freeze_norms: bool) -> None:
    torch.manual_seed(0)
    network = Net()
    thaw = Thaw(network, HEAD, 2, freeze_norms=freeze_norms)
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad], 0.1, momentum=0.9, weight_decay=0.1
    )
    state = {n: v.clone() for n, v in network.state_dict().items()}
    for step in range(4):
        train(network, thaw, step, optimizer, toggle=toggle)
        now = network.state_dict()
        moved = {n for n in now if not torch.equal(now[n], state[n]) and "tracked" not in n}
        head = {*HEAD, "new_norm.running_mean", "new_norm.running_var"}
        if step < 2:
            assert moved == head
        else:
            norm = {f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
            assert moved == head | {"conv.weight", "conv.bias"} | (set() if freeze_norms else norm)
    assert not network.still.weight.requires_grad


def test_switching_gradients_off_and_dropping_them_is_the_same() -> None:
    """One device does the former and several the latter; clipping sees the same gradients."""
    states = []
    for toggle in (True, False):
        torch.manual_seed(0)
        network = Net()
        thaw = Thaw(network, HEAD, 2)
        optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 0.1)
        for step in range(4):
            train(network, thaw, step, optimizer, toggle=toggle)
        states.append(network.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("freeze_epochs", -1, "model.finetuning.freeze_epochs is -1; expected 0 or more"),
        ("freeze_epochs", float("nan"), "is nan; expected 0 or more"),
        ("backbone_lr_factor", -0.1, "backbone_lr_factor is -0.1; expected 0 or more"),
        ("stage_factor", 0, "stage_factor is 0; expected a number above 0"),
    ],
)
def test_numbers_out_of_range(name: str, value: float, expected: str) -> None:
    with pytest.raises(ZooError) as caught:
        FineTuning(**{name: value})
    assert expected in str(caught.value)


def test_batch_norms_get_their_momentum() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.01), nn.LayerNorm(4))
    FineTuning().set_momentum(network)
    assert network[1].momentum == 0.01
    FineTuning(norm_momentum=0.1).set_momentum(network)
    assert network[1].momentum == 0.1
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(ZooError, match=r"norm_momentum is .*; expected a number above 0"):
            FineTuning(norm_momentum=wrong)
