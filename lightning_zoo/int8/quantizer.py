"""Which values of a network become 8-bit, told to torchao's PT2E; the one module that imports it.

Weights of convolutions and linear layers are int8, symmetric, one scale a channel. Activations are
uint8 in 0..127: kernels for CPUs without VNNI add two products in 16 bits, which 255 would
overflow. A value is quantised once, where its chain ends (convolution, norm, sum, activation), and
whoever reads it reads the quantised one, so that a lowered program and its reference agree. What
only moves values (max pooling, concatenation, views) keeps the scale of what it moves.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import (
    FakeQuantize,
    FakeQuantizeBase,
    FusedMovingAvgObsFakeQuantize,
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

__all__ = ["FakeQuantizeBase", "Watch", "ZooQuantizer", "convert_pt2e", "prepare_pt2e"]

aten = torch.ops.aten
HEAVY = {aten.conv2d.default, aten.linear.default}
NORM = {aten.batch_norm.default}
ADD = {aten.add.Tensor, aten.add_.Tensor}
# What a batch norm reads when it was one with its convolution, see `separate_norms`
CONVOLVED = {aten.conv2d.default, aten.div.Tensor}
MUL = {aten.mul.Tensor, aten.mul_.Tensor}
GATE = {aten.hardsigmoid.default, aten.hardsigmoid_.default, aten.sigmoid.default}
MEAN = {aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default, aten.mean.dim}
CAT = {aten.cat.default}
MOVE = {
    aten.max_pool2d.default,
    aten.view.default,
    aten.reshape.default,
    aten.transpose.int,
    aten.chunk.default,
    aten.slice.Tensor,
    operator.getitem,
}


# No floor for scales worth the name: activations of a small network are small
EPS = 2.0**-23


class Watch:
    """What lets an observer be switched off, as a fake quantiser can be."""

    watching = True

    def forward(self, x: Tensor) -> Tensor:
        """Note the range of a value and return it as it is."""
        return super().forward(x) if self.watching else x  # type: ignore[misc]


class Activations(Watch, HistogramObserver):  # type: ignore[misc]
    """Looks for the range that loses least."""


class Weights(Watch, PerChannelMinMaxObserver):  # type: ignore[misc]
    """Takes the whole range of each channel."""


class ZooQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates an exported classifier.

    Args:
        qat: Fake quantisation with moving averages, for training; else observers alone.
    """

    def __init__(self, *, qat: bool) -> None:
        super().__init__()
        activation: Any = Activations.with_args(eps=EPS)
        weight: Any = Weights.with_args(eps=EPS)
        if qat:
            activation = FusedMovingAvgObsFakeQuantize.with_args(
                observer=MovingAverageMinMaxObserver, eps=EPS
            )
            # the fused one takes another scale for symmetric weights than conversion does
            weight = FakeQuantize.with_args(
                observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, eps=EPS
            )
        self.activation = QuantizationSpec(
            torch.uint8, activation, quant_min=0, quant_max=127, qscheme=torch.per_tensor_affine
        )
        self.weight = QuantizationSpec(
            torch.int8,
            weight,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write into each node of an exported graph what is quantised of it."""
        groups = Groups()
        chosen = choose(model.graph.nodes, groups)
        for node in model.graph.nodes:
            weights = {}
            if node.target in HEAVY:
                weights = {node.args[1]: self.weight}
            spec: Any = None
            if node in chosen:
                root = groups.root(node)
                spec = self.activation if root is node else SharedQuantizationSpec(root)
            if weights or spec is not None:
                node.meta["quantization_annotation"] = QuantizationAnnotation(
                    input_qspec_map=weights, output_qspec=spec, _annotated=True
                )
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing can be wrong: what is unknown stays float."""


class Groups:
    """Values that share a scale; the root of a group is the first one in the graph's order."""

    def __init__(self) -> None:
        self.order: dict[Node, int] = {}
        self.parent: dict[Node, Node] = {}

    def root(self, node: Node) -> Node:
        """Return the value whose scale this one has."""
        self.order.setdefault(node, len(self.order))
        while (parent := self.parent.get(node)) is not None:
            node = parent
        return node

    def join(self, nodes: Iterable[Node]) -> None:
        """Let values share one scale."""
        roots = sorted({self.root(node) for node in nodes}, key=self.order.__getitem__)
        for other in roots[1:]:
            self.parent[other] = roots[0]


def choose(nodes: Iterable[Node], groups: Groups) -> set[Node]:
    """Return the values to be quantised, and note in ``groups`` which share a scale."""
    chosen: set[Node] = set()
    behind: set[Node] = set()  # what lies behind a first convolution
    for node in nodes:
        inputs = node.all_input_nodes
        if node.target not in HEAVY and not any(i in behind for i in inputs):
            continue
        behind.add(node)
        groups.root(node)
        if node.target in HEAVY | MEAN or (
            node.target in NORM and inputs[0].target not in CONVOLVED
        ):
            chosen.add(inputs[0])
        elif node.target in CAT:
            chosen.update(inputs, [node])
            groups.join([*inputs, node])
        elif node.target is aten.max_pool2d.default:
            chosen.update([inputs[0], node])
            groups.join([inputs[0], node])
        elif node.target in MOVE and inputs[0] in chosen:
            chosen.add(node)
            groups.join([inputs[0], node])
        elif node.target in ADD and len(inputs) == 2:
            # the sum is one with the later of its convolutions
            free = [i for i in inputs if len(i.users) == 1 and i.target in HEAVY | NORM]
            last = max(free, key=groups.order.__getitem__, default=None)
            chosen.update(i for i in inputs if i is not last)
        elif node.target in MUL and len(inputs) == 2:
            chosen.update(i for i in inputs if i.target not in GATE)
    # a chunk is a list: its parts are quantised
    return {n for n in chosen if n.target is not aten.chunk.default}
