"""Eager-mode quantization of ``torch.ao``: the one file of the project that imports it.

PyTorch deprecates it, but the published INT8 files are state dicts of the modules that it makes.
Its job here is to rebuild those modules, so that the files load and run; one's own models are
quantized by other means.

A quantized tensor is made and used by an *engine*, a library of kernels that PyTorch keeps in one
global setting, ``torch.backends.quantized.engine``. Here each network has its own: the setting is
changed for the time of a call and put back. As it is global, two threads that run networks of
different engines at the same time disturb each other.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import torch
import torch.ao.quantization
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.layers import ConvNormAct

ao: Any = torch.ao.quantization  # nothing in it is annotated

__all__ = ["ENGINES", "FloatFunctional", "Quantizable", "check_engine", "convert", "convert_qat",
           "on_engine", "prepare_qat", "supported_engines"]  # fmt: skip

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
"""Engines that run the networks; which of them a PyTorch has depends on its build and machine."""


def supported_engines() -> list[str]:
    """Return the engines that this PyTorch has."""
    return [name for name in ENGINES if name in torch.backends.quantized.supported_engines]


def check_engine(name: str) -> None:
    """Raise a :class:`ZooError` unless this PyTorch has the engine."""
    if name not in ENGINES:
        raise unknown("backend", str(name), ENGINES)
    there = supported_engines()
    if name not in there:
        raise ZooError(
            f"backend {name!r} is not in this PyTorch, which has {', '.join(there) or 'none'}; "
            + (f"pass backend={there[0]!r}" if there else "INT8 networks need another build")
        )


@contextlib.contextmanager
def on_engine(name: str | None) -> Iterator[None]:
    """Let PyTorch use an engine for a while; None leaves the setting alone."""
    setting = torch.backends.quantized
    before = setting.engine
    if name is None or name == before:
        yield
        return
    setting.engine = name
    try:
        yield
    finally:
        setting.engine = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what PyTorch says of its own deprecated functions, which only this file calls."""
    with warnings.catch_warnings():
        # until the published files have a reader of their own: github.com/pytorch/ao/issues/2259
        warnings.filterwarnings("ignore", r"torch\.ao\.quantization is deprecated")
        warnings.filterwarnings("ignore", r"torch\.quantize_per_tensor, torch\.quantize_per_chann")
        warnings.filterwarnings("ignore", r"Please use quant_min and quant_max to specify")
        # auxiliary heads, which evaluation does not call
        warnings.filterwarnings("ignore", "must run observer before calling calculate_qparams")
        yield


class Quantizable(nn.Module):
    """What makes a classifier quantizable; stands before the classifier in a class's bases.

    The network takes and returns float images and logits in either form; between ``quant`` and
    ``dequant`` the converted one computes with 8-bit integers, on a CPU alone. ReLU6 becomes ReLU:
    so the published networks were fine-tuned, and the range of the integers is a cap already.

    Attributes:
        engine: The library that runs the converted network; None before :func:`convert`.
        heads: Names of auxiliary heads, which training alone needs.
    """

    quant: nn.Module
    dequant: nn.Module
    engine: str | None = None
    heads: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quant = ao.QuantStub()
        self.dequant = ao.DeQuantStub()
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if type(child) in (nn.ReLU, nn.ReLU6):  # in place they would spoil an observer
                    setattr(module, name, nn.ReLU())

    def forward(self, images: Tensor) -> Any:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        return self.quantized(super().forward, images)

    def quantized(self, network: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Return what ``network`` returns for the images between the two stubs."""
        with on_engine(self.engine):
            return self.dequant(network(self.quant(images)))

    def to_engine(self, name: str) -> Self:
        """Let another engine run the converted network; return the network.

        Raises:
            ZooError: If this PyTorch has no such engine, or the network is not converted.
        """
        check_engine(name)
        if self.engine is None:
            raise ZooError(f"{type(self).__name__} is not converted yet; pass quantize=True")
        with on_engine(name):
            module: Any
            for module in self.modules():
                if hasattr(module, "set_weight_bias"):  # packed as the engine wants them
                    module.set_weight_bias(*module._weight_bias())
        self.engine = name
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load as any module does; weights are packed for the network's own engine."""
        with on_engine(self.engine), quiet():
            return super().load_state_dict(state_dict, *args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode.

        Raises:
            ZooError: If a converted network is asked to train.
        """
        if mode and self.engine is not None:
            raise ZooError(
                "an INT8 network cannot be trained; build it with quantize=False, train it, then: "
                "python -m lightning_zoo quantize RUN"
            )
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.engine is not None:
            probe = fn(torch.empty(0))
            if probe.device.type != "cpu" or probe.dtype != torch.float32:
                raise ZooError(
                    "an INT8 network runs on the CPU, on float32 images; for another device or "
                    "type build it with quantize=False"
                )
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        with on_engine(self.engine), quiet():  # copies are packed anew
            twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


def _fuse(network: nn.Module, function: Callable[..., Any]) -> None:
    """Join convolutions with the norm and the activation behind them, in place.

    The blocks say which in ``fusions``; of :class:`ConvNormAct` that is known.
    """
    modules: list[Any] = list(network.modules())
    for module in modules:
        if isinstance(module, ConvNormAct):
            names = ["0", "1"]
            if len(module) > 2 and type(module[2]) is nn.ReLU:
                names.append("2")
            function(module, [names], inplace=True)
        elif hasattr(module, "fusions"):
            function(module, module.fusions(), inplace=True)


def convert(network: Quantizable, engine: str, batches: Iterable[Tensor] | None = None) -> None:
    """Turn a float network into one of 8-bit integers, in place.

    Weights become qint8 with a scale for each output channel (qnnpack: one for all), activations
    quint8 of 7 bits (qnnpack: of 8, its kernels add up without saturation).

    Args:
        network: The float network; it ends in evaluation mode.
        engine: One of ``ENGINES``.
        batches: Normalised images ``(N, 3, H, W)`` to take the ranges of the activations from;
            None where a file brings them.

    Raises:
        ZooError: If this PyTorch has no such engine.
    """
    check_engine(engine)
    weight = ao.default_weight_observer
    if engine != "qnnpack":
        weight = ao.default_per_channel_weight_observer
    network.eval()
    with quiet(), on_engine(engine):
        _fuse(network, ao.fuse_modules)
        network.qconfig = ao.QConfig(activation=ao.default_observer, weight=weight)
        ao.prepare(network, inplace=True)
        with torch.no_grad():
            for batch in batches if batches is not None else [torch.rand(1, 3, 96, 96)]:
                network(batch)
        ao.convert(network, inplace=True)
    network.engine = engine


def prepare_qat(network: Quantizable, *, per_channel: bool) -> None:
    """Give a float network the fake quantization that it is fine-tuned with, in place.

    Args:
        network: The float network; it ends in training mode.
        per_channel: Whether weights have a scale for each output channel (then activations have 7
            bits), or one for all.
    """
    network.train()
    with quiet():
        _fuse(network, ao.fuse_modules_qat)
        network.qconfig = ao.get_default_qat_qconfig("fbgemm" if per_channel else "qnnpack")
        ao.prepare_qat(network, inplace=True)


def convert_qat(network: Quantizable, engine: str) -> None:
    """Turn a network of :func:`prepare_qat` into one of 8-bit integers, in place."""
    check_engine(engine)
    network.eval()
    with quiet(), on_engine(engine):
        ao.convert(network, inplace=True)
    network.engine = engine
