"""A float classifier as a graph that observes, or simulates, INT8; and what becomes of it."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from lightning_zoo.errors import ZooError

aten = torch.ops.aten
NORM, CONV = aten.batch_norm.default, aten.conv2d.default
DROPOUT = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default}


class Prepared(nn.Module):
    """What :func:`prepare` returns: normalised images ``(N, 3, H, W)`` to logits.

    ``train()`` and ``eval()`` switch its batch norms and dropout, as of any module.

    Attributes:
        program: The graph, with an observer or fake quantiser behind each value that becomes INT8.
        qat: Whether it simulates INT8, to be trained.
        size: The height and width it takes, None where they are free.
        norms_frozen: Whether batch norms keep their running statistics in training too.
    """

    def __init__(
        self, program: GraphModule, *, qat: bool, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.program, self.qat, self.size, self.norms_frozen = program, qat, size, False
        self.train(qat)

    def train(self, mode: bool = True) -> Prepared:
        """Switch between training and evaluation; without ``qat`` it always evaluates."""
        super().train(mode)
        changed = False
        for node in self.program.graph.nodes:
            if node.target == NORM:
                changed |= _set_arg(node, 5, mode and self.qat and not self.norms_frozen)
            elif node.target in DROPOUT:
                changed |= _set_arg(node, 2, mode and self.qat)
        if changed:
            self.program.recompile()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``.

        Raises:
            ZooError: If the images have another size than the one that it was traced for.
        """
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            given, right = (" x ".join(map(str, s)) for s in (images.shape[2:], self.size))
            raise ZooError(
                f"images are {given} pixels; this network was traced for {right}: "
                "prepare it with an example of another size"
            )
        return self.program(images)


def prepare(network: nn.Module, example: Tensor, *, qat: bool = False) -> nn.Module:
    """Return a copy of a float classifier that notes, or simulates, what INT8 will need.

    The network is left as it was. Batch, height and width of what comes later are free.

    Args:
        network: A classifier of the zoo without auxiliary heads.
        example: Normalised float images ``(N, 3, H, W)``, N >= 2, of a usual size.
        qat: Simulate rounding, and train; else only observe, with batch norms folded in.

    Raises:
        ZooError: If torchao is missing, or the network cannot be traced.
    """
    quantizer = torchao_part()
    if not isinstance(example, Tensor) or example.ndim != 4 or len(example) < 2:
        found = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ZooError(f"example is {found}; expected a tensor (N, 3, H, W) with N of 2 or more")
    network = copy.deepcopy(network).cpu().train(qat)
    with quietly():
        try:
            exported, size = trace(network, example.cpu())
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ZooError(
                f"{type(network).__name__} cannot be traced for INT8 ({reason}); "
                "expected a classifier of the zoo without auxiliary heads"
            ) from None
        program = exported.module(check_guards=False)
        _plain(program)
        if qat:
            separate_norms(program)
        program = quantizer.prepare_pt2e(program, quantizer.ZooQuantizer(qat=qat))
    return Prepared(own(program), qat=qat, size=size)


def trace(
    network: nn.Module, example: Tensor
) -> tuple[torch.export.ExportedProgram, tuple[int, int] | None]:
    """Return a network as a graph, and the height and width it takes, None where they are free.

    A few networks tell small images by conditions on their sides that cannot be written down.
    """
    free = torch.export.Dim.AUTO
    try:
        shapes = ({0: free, 2: free, 3: free},)
        return torch.export.export(network, (example,), dynamic_shapes=shapes), None
    except Exception:
        exported = torch.export.export(network, (example,), dynamic_shapes=({0: free},))
        return exported, (example.shape[2], example.shape[3])


def observe(prepared: nn.Module, on: bool) -> None:
    """Let the observers follow what comes, or stay as they are; simulated rounding goes on.

    It stays so over ``train()`` and ``eval()``. Of ``qat`` it is part of the state dict.
    """
    quantizer = torchao_part()
    for module in prepared.modules():
        if isinstance(module, quantizer.FakeQuantizeBase):
            module.enable_observer(on)
        elif isinstance(module, quantizer.Watch):
            module.watching = on


def freeze_norms(prepared: nn.Module) -> None:
    """Let batch norms use and keep their running statistics from now on; gamma and beta train.

    It stays so over ``train()`` and ``eval()``, but is no part of the state dict.
    """
    network = _checked(prepared)
    network.norms_frozen = True
    network.train(network.training)


def calibrated(prepared: nn.Module) -> bool:
    """Whether the observers have seen images."""
    least = [b for name, b in prepared.named_buffers() if name.endswith("min_val")]
    return all(b.numel() > 0 and bool(torch.isfinite(b).all()) for b in least)


def convert(prepared: nn.Module) -> GraphModule:
    """Return the INT8 program: int8 weights, and quantise and dequantise around float operations.

    It evaluates, on the CPU, from normalised images ``(N, 3, H, W)`` to logits; ``prepared`` stays
    as it was.

    Raises:
        ZooError: If the observers have seen no images.
    """
    quantizer = torchao_part()
    network = copy.deepcopy(_checked(prepared)).cpu().eval()
    if not calibrated(network):
        raise ZooError(
            "this network has seen no images; run some through it before it is converted"
        )
    with quietly(), torch.no_grad():
        fold_norms(network.program)
        program = quantizer.convert_pt2e(network.program)
    return own(program).eval()


def separate_norms(program: GraphModule) -> None:
    """Let each convolution before a batch norm see its weights as they will be when folded.

    ``norm(conv(x, w) + b)`` becomes ``norm(conv(x, w * s, b * s) / s)`` with the running ``s =
    gamma / sqrt(var + eps)``: the same value, but ``w * s`` is what gets rounded.

    Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A
    whitepaper", section 3.2.2, https://arxiv.org/abs/1806.08342.
    """
    graph = program.graph
    for norm in [n for n in graph.nodes if n.target == NORM]:
        conv, gamma, _, _, var, _, _, eps = norm.args[:8]
        if conv.target != CONV or len(conv.users) > 1:
            continue
        weight, bias = conv.args[1], conv.args[2] if len(conv.args) > 2 else None
        with graph.inserting_before(conv):
            var, gamma = (graph.get_attr(n.target) for n in (var, gamma))
            std = graph.call_function(aten.sqrt.default, (_call(graph, aten.add.Scalar, var, eps),))
            scale = _call(graph, aten.div.Tensor, gamma, std)
            # a channel that is switched off has scale 0, by which nothing can be divided
            off = _call(graph, aten.eq.Scalar, scale, 0)
            scale = _call(graph, aten.masked_fill.Scalar, scale, off, 1.0)
            column = _call(graph, aten.reshape.default, scale, [-1, 1, 1, 1])
            conv.update_arg(1, _call(graph, aten.mul.Tensor, weight, column))
            if bias is not None:
                conv.update_arg(2, _call(graph, aten.mul.Tensor, bias, scale))
        with graph.inserting_before(norm):
            row = _call(graph, aten.reshape.default, scale, [1, -1, 1, 1])
            norm.update_arg(0, _call(graph, aten.div.Tensor, conv, row))
    _plain(program)


def fold_norms(program: GraphModule) -> None:
    """Fold batch norms into the convolutions before them; one that stands alone becomes a x + b.

    torchao would look for both with patterns that it traces anew each time: half a minute.
    """
    graph = program.graph
    for number, norm in enumerate([n for n in graph.nodes if n.target == NORM]):
        value = norm.args[0]
        gamma, beta, mean, var = (_tensor(program, n) for n in norm.args[1:5])
        scale = gamma / torch.sqrt(var + norm.args[7])
        shift = beta - mean * scale
        with graph.inserting_before(norm):
            if value.target == aten.div.Tensor:
                conv = value.args[0]
                weight = conv.args[1].args[0].args[0]  # of fake quantiser of product
                old = conv.args[2] if len(conv.args) > 2 else None
                if old is not None:
                    shift = shift + _tensor(program, old.args[0]) * scale
                folded = _tensor(program, weight) * scale.reshape(-1, 1, 1, 1)
                with graph.inserting_before(conv.args[1]):
                    weights = _constant(program, f"folded_weight_{number}", folded)
                    conv.args[1].update_arg(0, weights)
                    bias = _constant(program, f"folded_bias_{number}", shift)
                conv.args = (*conv.args[:2], bias, *conv.args[3:])
                new = conv
            else:
                a = _constant(program, f"norm_scale_{number}", scale.reshape(1, -1, 1, 1))
                b = _constant(program, f"norm_shift_{number}", shift.reshape(1, -1, 1, 1))
                new = _call(graph, aten.add.Tensor, _call(graph, aten.mul.Tensor, value, a), b)
        norm.replace_all_uses_with(new)
        graph.erase_node(norm)
    _plain(program)


def torchao_part() -> ModuleType:
    """Return the module that imports torchao.

    Raises:
        ZooError: If torchao is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ZooError(
            "quantizing needs the package torchao; install it with: "
            "pip install 'lightning_zoo[int8]'"
        )
    with quietly():
        from lightning_zoo.int8 import quantizer

    return quantizer


@contextlib.contextmanager
def quietly(*, everything: bool = False) -> Iterator[None]:
    """Keep from the console what torchao and the tracer have to say to their developers.

    torchao reports extensions for GPUs that cannot be loaded here, and both use calls that torch
    has deprecated; nobody who quantises a network can do anything about it.

    Args:
        everything: All warnings: what is wrong with a file is said in one error.
    """
    names = ("torchao", "torch.utils._pytree", "torch.export", "torch._dynamo", "torch.fx")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch(ao)?\.")
        if everything:
            warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _plain(program: GraphModule) -> None:
    """Drop what counts batches, checks of shapes, and what nobody reads; then compile."""
    graph = program.graph
    for node in reversed(list(graph.nodes)):
        counter = node.target == aten.add_.Tensor and node.args[1] == 1
        if not node.users and (counter or node.op == "get_attr" or node.name == "_guards_fn"):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()
    program._forward_pre_hooks.clear()
    program.recompile()


def own(program: GraphModule) -> GraphModule:
    """Return the graph as a plain module that takes a tensor and returns one.

    Those of torch and torchao refuse train() and eval(), and are slow to copy for what they know.
    """
    _plain(program)
    graph, copies = Graph(), dict[Node, Node]()
    result = graph.graph_copy(program.graph, copies)
    graph.output(result[0] if isinstance(result, tuple | list) else result)
    for node in graph.nodes:
        node.meta = {}
    own = GraphModule(program, graph, "Program")
    own.meta = dict(program.meta)  # where torchao notes that it prepared this one
    return own


def _set_arg(node: Node, index: int, value: bool) -> bool:
    changed = node.args[index] is not value
    node.update_arg(index, value)
    return changed


def _call(graph: Any, target: Any, *args: Any) -> Node:
    return graph.call_function(target, args)


def _tensor(program: GraphModule, node: Any) -> Tensor:
    found: Any = program
    for name in node.target.split("."):
        found = getattr(found, name)
    return found.detach()


def _constant(program: GraphModule, name: str, value: Tensor) -> Node:
    program.register_buffer(name, value)
    return program.graph.get_attr(name)


def _checked(prepared: nn.Module) -> Prepared:
    if not isinstance(prepared, Prepared):
        raise ZooError(f"expected what prepare() returned, not a {type(prepared).__name__}")
    return prepared
