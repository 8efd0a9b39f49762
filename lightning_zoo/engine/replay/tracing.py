"""Finds the first module of a network at which values stop being finite, forward or backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


@dataclass
class Call:
    """One call of a module.

    Attributes:
        name: The module's name in the network, ``""`` for the network itself.
        inputs: Whether its inputs were finite.
        outputs: Whether its outputs were.
        input_grads: Whether the gradients that it handed on were finite.
        output_grads: Whether the gradients that it was handed were; None where it got none.
    """

    name: str
    inputs: bool = True
    outputs: bool = True
    input_grads: bool = True
    output_grads: bool | None = None


class Trace:
    """Watches all modules of a network while it is entered.

    Args:
        network: The network.
        backward: Whether gradients are watched too. Inputs pass through views then, so that the
            gradient of each consumer of a value is seen by itself.
    """

    def __init__(self, network: nn.Module, *, backward: bool = False) -> None:
        self.network, self.backward = network, backward
        self.calls: list[Call] = []  # in the order in which they came to their end
        self._open: list[Call] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> Trace:
        for name, module in self.network.named_modules():
            before, after = self._before(name), self._after
            self._hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            self._hooks.append(module.register_forward_hook(after))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _before(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any) -> Any:
            call = Call(name, inputs=is_finite((args, kwargs)))
            self._open.append(call)
            if not self.backward:
                return None

            def watched(value: Any) -> Any:
                if not isinstance(value, Tensor) or not value.requires_grad:
                    return value
                value = value.view_as(value)
                value.register_hook(note_grad)
                return value

            def note_grad(grad: Tensor) -> None:
                call.input_grads &= is_finite(grad)

            return tree_map(watched, args), tree_map(watched, kwargs)

        return note

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._open.pop()
        call.outputs = is_finite(output)
        self.calls.append(call)
        if not self.backward:
            return

        def note_grad(grad: Tensor) -> None:
            call.output_grads = is_finite(grad) and call.output_grads is not False

        for value in tree_leaves(output):
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(note_grad)  # type: ignore[no-untyped-call]

    def first_forward(self) -> str | None:
        """Return the first module whose output is not finite while its inputs are."""
        for call in self.calls:  # a part comes to its end before the whole
            if call.inputs and not call.outputs:
                return call.name
        return None

    def first_backward(self) -> str | None:
        """Return the first module that turns finite gradients into others, inputs' or its own."""
        own = {
            name
            for name, module in self.network.named_modules()
            if any(p.grad is not None and not is_finite(p.grad) for p in module.parameters(False))
        }
        guilty = [
            call.name
            for call in reversed(self.calls)
            if call.output_grads and (not call.input_grads or call.name in own)
        ]
        if not guilty:
            return None
        found = guilty[0]
        while inner := [name for name in guilty if is_inside(name, found)]:
            found = inner[0]
        return found

    @property
    def input_is_finite(self) -> bool:
        """Whether all that the network itself was called with is finite."""
        return all(call.inputs for call in self.calls if call.name == "")


def is_inside(name: str, outer: str) -> bool:
    """Whether a module is a part of another."""
    return name != outer and (not outer or name.startswith(f"{outer}."))


def is_finite(values: Any) -> bool:
    """Whether all floating tensors within some values are finite."""
    return all(
        bool(torch.isfinite(value).all())
        for value in tree_leaves(values)
        if isinstance(value, Tensor) and value.is_floating_point()
    )


def largest(named: Sequence[tuple[str, Tensor]]) -> tuple[str, float] | None:
    """Return the name and size of the largest finite value of some tensors."""
    sizes = [(float(value.detach().abs().max()), name) for name, value in named if value.numel()]
    return (max(sizes)[1], max(sizes)[0]) if sizes else None
