"""What runs an INT8 program."""

from __future__ import annotations

import functools
import shutil

import torch
import torch._inductor.config
from torch import Tensor, nn
from torch.fx import GraphModule

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.int8.lowering import lower_onednn
from lightning_zoo.int8.prepared import quietly

ENGINES = {
    "onednn": "oneDNN's int8 kernels, called by name; needs nothing but torch",
    "inductor": "torch.compile, which takes seconds and a C++ compiler",
    "reference": "the program as it is: float operations between roundings, slow",
}


def lower(program: nn.Module, engine: str = "onednn") -> nn.Module:
    """Return what computes a program on the CPU: float32 images ``(N, 3, H, W)`` to logits.

    Args:
        program: Of :func:`~lightning_zoo.int8.convert` or :func:`~lightning_zoo.int8.load`.
        engine: A name of ``ENGINES``.

    Raises:
        ZooError: If there is no such engine, or not here.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if not isinstance(program, GraphModule):
        raise ZooError(f"expected what convert() or load() returned, not {type(program).__name__}")
    if any(node.op == "call_module" for node in program.graph.nodes):
        raise ZooError("this program is lowered already; lower what convert() or load() returned")
    if engine not in available_engines():
        needs = "a C++ compiler" if engine == "inductor" else "torch with oneDNN, on x86 or ARM"
        raise ZooError(
            f"engine {engine} needs {needs}; here there is: {', '.join(available_engines())}"
        )
    if engine == "onednn":
        return lower_onednn(program)
    return Compiled(program) if engine == "inductor" else program


@functools.cache
def available_engines() -> list[str]:
    """Return the engines that work here, the one for general use first."""
    found = []
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if has_onednn and hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        found.append("onednn")
    if _has_compiler():
        found.append("inductor")
    return [*found, "reference"]


class Compiled(nn.Module):
    """A program compiled by inductor, for each shape of images when it first comes."""

    def __init__(self, program: GraphModule) -> None:
        super().__init__()
        self.program = program
        with quietly(everything=True):
            self._run = torch.compile(program, dynamic=False)
        self._shapes: set[torch.Size] = set()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``."""
        with torch.no_grad():
            if images.shape in self._shapes:
                return self._run(images)
            self._shapes.add(images.shape)
            # weights packed once; as an option of compile() it comes too late for int8
            with quietly(everything=True), torch._inductor.config.patch(freezing=True):
                return self._run(images)


def _has_compiler() -> bool:
    """Whether there is a compiler for inductor to start; torch would start it here to find out."""
    from torch._inductor import config

    names = config.cpp.cxx  # a name, or several in their order
    return any(
        name is not None and shutil.which(name) is not None
        for name in ((names,) if isinstance(names, str) else names)
    )
