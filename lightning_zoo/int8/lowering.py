"""From a program of quantise and dequantise around float operations to one of int8 kernels."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from lightning_zoo.int8 import kernels
from lightning_zoo.int8.kernels import Activation, Convolution, Gate, Linear, Scale

aten = torch.ops.aten
ACTIVATIONS: dict[Any, Callable[[tuple[Any, ...]], Activation]] = {
    aten.relu.default: lambda _: Activation("hardtanh", 0.0),
    aten.hardtanh.default: lambda args: Activation("hardtanh", *map(float, args[1:3] or (-1, 1))),
    aten.hardswish.default: lambda _: Activation("hardswish"),
}
ACTIVATIONS |= {getattr(aten, f"{t._schema.name[6:]}_").default: f for t, f in ACTIVATIONS.items()}
CONV, LINEAR = aten.conv2d.default, aten.linear.default
ADD = (aten.add.Tensor, aten.add_.Tensor)
MUL = (aten.mul.Tensor, aten.mul_.Tensor)
DROPOUT = (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default)
# What moves values and touches none; a chunk is a list
MOVE = (aten.view.default, aten.reshape.default, aten.transpose.int, operator.getitem)


def lower_onednn(program: GraphModule) -> GraphModule:
    """Return a module that computes what ``program`` does with int8 kernels.

    Weights are packed for these kernels here. What is not known stays float, between quick
    conversions. Results differ from the program's where a sum lies within float32's precision of
    the middle between two steps.
    """
    return Lowering(program).run()


class Lowering:
    """One program's way; ``ints`` and ``floats`` are the new nodes of the old ones."""

    def __init__(self, program: GraphModule) -> None:
        self.old = program
        self.graph = Graph()
        self.root = nn.Module()
        self.ints: dict[Node, Node] = {}
        self.floats: dict[Node, Node] = {}
        self.channels: dict[Node, int] = {}

    def run(self) -> GraphModule:
        """Return the new program."""
        for node in self.old.graph.nodes:
            if node.op == "placeholder":
                self.floats[node] = self.graph.placeholder(node.name)
                self.channels[node] = 3
            elif is_op(node, "quantize_per_tensor"):
                self.ints[node] = self.as_int(node)
            elif node.op == "output":
                (result,) = node.all_input_nodes
                self.graph.output(self.as_float(result))
        for node in reversed(self.graph.nodes):
            if not node.users and node.op.startswith(("call", "get")):
                self.graph.erase_node(node)
        self.root.eval()
        lowered = GraphModule(self.root, self.graph, "Int8")
        overwrite_where_nobody_reads(lowered)
        lowered.requires_grad_(False)
        return lowered

    def as_int(self, q: Any) -> Node:
        """Return the uint8 value of a quantise node."""
        to, value = scale_of(q), plain(q.args[0])
        activation = Activation()
        before = value
        if value.target in ACTIVATIONS and len(value.users) == 1:
            activation, before = ACTIVATIONS[value.target](value.args), plain(value.args[0])
        self.note_channels(q, before)
        only = len(before.users) == 1
        if only and before.target in (CONV, LINEAR) and self.is_int8(before):
            return self.weighted(before, to, activation)
        if only and before.target in ADD and len(before.all_input_nodes) == 2:
            found = self.summed(before, to, activation) or self.affine(before, to, activation)
            if found is not None:
                return found
        if activation.kind == "none" and value.op == "call_function":
            found = self.moved(value, to) or self.pooled(value, to) or self.gated(value, to)
            if found is not None:
                return found
        numbers = (self.as_float(value), 1.0 / to.scale, to.zero, to.low, to.high)
        return self.graph.call_function(kernels.quantize, numbers)

    def as_float(self, node: Any) -> Node:
        """Return the float value of a node; no more of them are computed than are read."""
        if node in self.floats:
            return self.floats[node]
        if is_op(node, "dequantize_per_tensor"):
            source = scale_of(node)
            args: tuple[Any, ...] = (self.ints[node.args[0]], source.scale, source.zero)
            new = self.graph.call_function(kernels.dequantize, args)
        elif node.target in DROPOUT:
            new = self.as_float(node.args[0])
        elif node.target in (CONV, LINEAR) and self.is_int8(node):
            new = self.weighted(node, None, Activation())
        elif is_global_mean(node) and is_op(node.args[0], "dequantize_per_tensor"):
            source = scale_of(node.args[0])
            keep = node.target != aten.mean.dim or (len(node.args) > 2 and bool(node.args[2]))
            args = (self.ints[node.args[0].args[0]], source.scale, source.zero, keep)
            new = self.graph.call_function(kernels.mean, args)
        elif node.op == "get_attr":
            new = self.constant(tensor_of(self.old, node))
        else:
            new = self.graph.node_copy(node, self.as_float)
        self.floats[node] = new
        return new

    def weighted(self, node: Any, to: Scale | None, activation: Activation) -> Node:
        """Return a convolution or linear layer."""
        source = scale_of(node.args[0])
        weight, scale, bias = self.weights(node)
        x = self.ints[node.args[0].args[0]]
        module: nn.Module
        if node.target == LINEAR:
            module = Linear(weight, scale, bias, source=source, to=to, activation=activation)
        else:
            where = geometry(node)
            module = Convolution(
                weight, scale, bias, where, source=source, to=to, activation=activation
            )
        return self.call(module, x)

    def summed(self, node: Any, to: Scale, activation: Activation) -> Node | None:
        """Return a convolution and the sum with something uint8, where a node is that."""
        if activation.kind == "hardswish" or activation.high < float("inf"):
            return None
        for conv, other in (node.args[:2], node.args[1::-1]):
            known = conv.target == CONV and len(conv.users) == 1 and self.is_int8(conv)
            if known and is_op(other, "dequantize_per_tensor"):
                weight, scale, bias = self.weights(conv)
                module = Convolution(
                    weight,
                    scale,
                    bias,
                    geometry(conv),
                    source=scale_of(conv.args[0]),
                    to=to,
                    activation=activation,
                    added=scale_of(other),
                )
                x, added = self.ints[conv.args[0].args[0]], self.ints[other.args[0]]
                return self.call(module, x, added)
        return None

    def affine(self, node: Any, to: Scale, activation: Activation) -> Node | None:
        """Return ``x * a + b`` with numbers for each channel: a batch norm that stands alone."""
        product, shift = node.args[:2]
        if product.target not in MUL or shift.op != "get_attr" or len(product.users) > 1:
            return None
        x, a = product.args[:2]
        if not is_op(x, "dequantize_per_tensor") or a.op != "get_attr":
            return None
        factor, bias = (tensor_of(self.old, n).reshape(-1) for n in (a, shift))
        weight = torch.full((len(factor), 1, 1, 1), 1, dtype=torch.int8)
        weight[factor < 0] = -1
        where = ([1, 1], [0, 0], [1, 1], len(factor))
        module = Convolution(
            weight, factor.abs(), bias, where, source=scale_of(x), to=to, activation=activation
        )
        return self.call(module, self.ints[x.args[0]])

    def moved(self, node: Any, to: Scale) -> Node | None:
        """Return what only moves values, where their scale stays the same."""
        parts = node.args[0] if node.target == aten.cat.default else [node.args[0]]
        if node.target == operator.getitem and parts[0].target == aten.chunk.default:
            parts = [parts[0].args[0]]
        same = all(
            isinstance(p, Node) and is_op(p, "dequantize_per_tensor") and scale_of(p) == to
            for p in parts
        )
        if not same:
            return None
        values = [self.ints[p.args[0]] for p in parts]
        if node.target == aten.cat.default:
            return self.graph.call_function(torch.cat, (values, *node.args[1:]))
        if node.target == aten.max_pool2d.default:
            size, stride, padding, dilation, ceil = (*node.args[1:], *[None] * 4)[:5]
            if dilation not in (None, [1, 1]):
                return None
            args = (values[0], size, stride or size, padding or [0, 0], bool(ceil))
            return self.graph.call_function(kernels.max_pool, args)
        if node.target == operator.getitem:
            chunk = node.args[0]
            whole = self.graph.call_function(torch.chunk, (values[0], *chunk.args[1:]))
            return self.graph.call_function(operator.getitem, (whole, node.args[1]))
        if node.target not in MOVE:
            return None
        if (groups := self.shuffled(node)) is not None:
            start = node.args[0].args[0].args[0].args[0].args[0].args[0].args[0]
            return self.graph.call_function(kernels.shuffle, (self.ints[start.args[0]], groups))
        return self.graph.node_copy(
            node, lambda n: values[0] if n is node.args[0] else self.as_float(n)
        )

    def shuffled(self, node: Any) -> int | None:
        """Return the groups of a channel shuffle that ends here: view, transpose, reshape."""
        if node.target != aten.reshape.default:
            return None
        transpose: Any = plain_source(node.args[0])
        if transpose.target != aten.transpose.int or transpose.args[1:] != (1, 2):
            return None
        view: Any = plain_source(transpose.args[0])
        if view.target != aten.view.default or len(view.args[1]) != 5:
            return None
        groups = view.args[1][1]
        return groups if is_op(view.args[0], "dequantize_per_tensor") else None

    def pooled(self, node: Any, to: Scale) -> Node | None:
        """Return average pooling as a convolution with equal weights."""
        if node.target != aten.avg_pool2d.default:
            return None
        x, size, stride, padding, ceil, with_padding = (*node.args, *[None] * 5)[:6]
        channels = self.count(x)
        known = is_op(x, "dequantize_per_tensor") and len(node.args) < 7 and channels
        if not known or ceil or (with_padding is False and padding not in (None, [0, 0])):
            return None
        area = size[0] * size[-1]
        weight = torch.ones(channels, 1, size[0], size[-1], dtype=torch.int8)
        scale = torch.full((channels,), 1.0 / area)
        where = (list(stride or size), list(padding or [0, 0]), [1, 1], channels)
        module = Convolution(weight, scale, None, where, source=scale_of(x), to=to)
        return self.call(module, self.ints[x.args[0]])

    def gated(self, node: Any, to: Scale) -> Node | None:
        """Return squeeze-and-excitation's product."""
        if node.target not in MUL or len(node.all_input_nodes) != 2:
            return None
        gates = (aten.hardsigmoid.default, aten.hardsigmoid_.default, aten.sigmoid.default)
        for gate, x in (node.args[:2], node.args[1::-1]):
            channels = self.count(x)
            if gate.target in gates and channels and is_op(x, "dequantize_per_tensor"):
                module = Gate(channels, source=scale_of(x), to=to)
                return self.call(module, self.as_float(gate), self.ints[x.args[0]])
        return None

    def note_channels(self, q: Any, value: Any) -> None:
        """Note how many channels a value has, as far as that is known."""
        count: int | None = None
        if value.target == CONV and self.is_int8(value):
            count = len(self.weights(value)[0])
        elif value.target in ADD:
            count = max((self.count(n) for n in value.all_input_nodes), default=0)
        elif value.target == aten.cat.default:
            counts = [self.count(n) for n in value.args[0]]
            count = sum(counts) if all(counts) else None
        elif value.all_input_nodes and value.target not in MOVE:
            count = max(self.count(n) for n in value.all_input_nodes)
        if count:
            for reader in (q, *q.users):
                self.channels[reader] = count

    def count(self, node: Any) -> int:
        """Return the channels of a value, 0 where that is unknown."""
        if node.target == CONV and self.is_int8(node):
            return len(self.weights(node)[0])
        return self.channels.get(node, 0)

    def is_int8(self, node: Any) -> bool:
        """Whether both sides of a convolution or linear layer are quantised."""
        x, weight = node.args[:2]
        return is_op(x, "dequantize_per_tensor") and is_op(weight, "dequantize_per_channel")

    def weights(self, node: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return int8 weights, their scales and the float bias."""
        weight = node.args[1]
        bias = node.args[2] if len(node.args) > 2 else None
        values = [tensor_of(self.old, n) for n in weight.args[:2]]
        return values[0], values[1].float(), None if bias is None else tensor_of(self.old, bias)

    def call(self, module: nn.Module, *args: Node) -> Node:
        """Return a call of a new module."""
        name = f"{type(module).__name__.lower()}_{len(self.graph.nodes)}"
        self.root.add_module(name, module)
        return self.graph.call_module(name, args)

    def constant(self, value: Tensor) -> Node:
        """Return a tensor that belongs to the program."""
        name = f"constant_{len(self.graph.nodes)}"
        self.root.register_buffer(name, value)
        return self.graph.get_attr(name)


def overwrite_where_nobody_reads(program: GraphModule) -> None:
    """Let a sum overwrite what it adds to, where nobody reads that afterwards."""
    order = {node: n for n, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        if node.op == "call_module" and len(node.args) == 2:
            module = program.get_submodule(node.target)
            x, added = node.args
            if isinstance(module, Convolution) and added.op == "call_module":
                module.in_place = x is not added and all(
                    order[u] <= order[node] for u in added.users
                )


def is_op(node: Any, name: str) -> bool:
    """Whether a node is an operation of ``torch.ops.quantized_decomposed``."""
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return schema is not None and schema.name == f"quantized_decomposed::{name}"


def is_global_mean(node: Any) -> bool:
    """Whether a node is the mean over height and width."""
    if node.target == aten.mean.dim:
        return sorted(d % 4 for d in node.args[1]) == [2, 3]
    return node.target == aten.adaptive_avg_pool2d.default and list(node.args[1]) in ([1], [1, 1])


def scale_of(node: Any) -> Scale:
    """Return the scale of a quantise or dequantise node."""
    scale, zero, low, high = node.args[1:5]
    return Scale(float(scale), int(zero), int(low), int(high))


def geometry(conv: Any) -> tuple[list[int], list[int], list[int], int]:
    """Return stride, padding, dilation and groups of a convolution."""
    given = conv.args[3:]
    stride, padding, dilation = (
        list(given[n]) if len(given) > n else default
        for n, default in enumerate(([1, 1], [0, 0], [1, 1]))
    )
    return stride, padding, dilation, given[3] if len(given) > 3 else 1


def plain(node: Any) -> Node:
    """Return what a value is without dropout, which does nothing here."""
    while node.target in DROPOUT:
        node = node.args[0]
    return node


def plain_source(node: Any) -> Node:
    """Return what was quantised to the value that a dequantise node gives back."""
    return node.args[0].args[0] if is_op(node, "dequantize_per_tensor") else node


def tensor_of(program: GraphModule, node: Any) -> Tensor:
    """Return the tensor that a ``get_attr`` node names."""
    found: Any = program
    for name in str(node.target).split("."):
        found = getattr(found, name)
    return found.detach()
