"""What is known of one forward pass, so that a loss that is no finite number can be explained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 8  # samples and parameters that a sentence names


@dataclass
class Evidence:
    """What one forward pass was computed from; the network's state is that before it.

    Attributes:
        batch: The batch as the task was given it.
        batch_idx: Its position in the epoch on this rank.
        loss: The loss, a scalar.
        terms: Its terms by name; empty where it has one alone.
        epoch: Epoch, from 0.
        step: Optimizer steps that were made before it.
        seed: What dropout and mixing were drawn from; None where nobody seeded them.
        earlier: Samples of the same optimizer step that went before, a list a forward pass.
        what: ``"loss"``, or ``"gradient"`` where the loss was finite and gradients were not.
        parameters: Names of the parameters with such gradients.
    """

    batch: Mapping[str, Any]
    batch_idx: int
    loss: Tensor
    terms: Mapping[str, Tensor]
    epoch: int = 0
    step: int = 0
    seed: int | None = None
    earlier: Sequence[Sequence[Any]] = ()
    what: str = "loss"
    parameters: Sequence[str] = field(default_factory=tuple)

    @property
    def ids(self) -> list[str | int]:
        """Ids of the batch's samples."""
        return plain_ids(self.batch["id"])

    def text(self, unit: str) -> str:
        """Return the sentence on it; ``unit`` is what a batch counts."""
        where = f"epoch {self.epoch}, step {self.step}"
        samples = f"{unit}s {listed(self.ids)}"
        advice = "lower --model.optimizer.lr, or go on from the last checkpoint with --resume auto"
        if self.what == "gradient":
            return (
                f"the loss is {self.loss.item():g} and its gradient is not finite in {where} "
                f"({listed(self.parameters)}; {samples}); {advice}"
            )
        terms = ", ".join(f"{name} {value.item():g}" for name, value in self.terms.items())
        found = terms or f"{self.loss.item():g}"
        return f"the loss is no finite number in {where} ({found}; {samples}); {advice}"


class BuffersBefore:
    """Copies of a network's buffers, so that what one forward pass did to them can be undone.

    Batch norm's running values and the ranges of observers change in the forward pass itself.
    """

    def __init__(self) -> None:
        self._network: nn.Module | None = None
        self._owners: list[tuple[dict[str, Tensor | None], str]] = []
        # by dtype: a GPU copies those of one dtype in a single launch
        self._kept: list[tuple[list[int], list[Tensor]]] = []
        self._shapes: list[torch.Size] = []

    def keep(self, network: nn.Module) -> None:
        """Copy the buffers as they are now."""
        if network is not self._network:
            self._network = network
            self._owners = [
                (module._buffers, name)
                for module in network.modules()
                for name, buffer in module._buffers.items()
                if buffer is not None
            ]
            self._shapes = []
        if not self._owners:
            return
        live = self._live()
        # observers take the shape of what they see, at the first batch
        if [buffer.shape for buffer in live] != self._shapes:
            self._shapes = [buffer.shape for buffer in live]
            self._kept = []
            kinds = [(buffer.dtype, buffer.device) for buffer in live]
            for kind in dict.fromkeys(kinds):
                places = [i for i, other in enumerate(kinds) if other == kind]
                self._kept.append((places, [live[i].detach().clone() for i in places]))
            return
        with torch.no_grad():
            for places, kept in self._kept:
                torch._foreach_copy_(kept, [live[i] for i in places])

    def put_back(self) -> None:
        """Give the buffers the values that were kept."""
        live = self._live()
        with torch.no_grad():
            for places, kept in self._kept:
                for i, value in zip(places, kept, strict=True):
                    live[i].resize_(value.shape).copy_(value)

    def _live(self) -> list[Tensor]:
        return [buffers[name] for buffers, name in self._owners]  # type: ignore[misc]


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every value of some floating tensors is finite."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    # norms take the least time by far; they may overflow where all values are finite
    norms = [torch.stack(torch._foreach_norm(group)).sum().item() for group in groups.values()]
    if all(map(math.isfinite, norms)):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def not_finite(named: Iterable[tuple[str, Tensor | None]]) -> tuple[str, ...]:
    """Return the names of the tensors with a value that is not finite."""
    return tuple(
        name for name, tensor in named if tensor is not None and not bool(tensor.isfinite().all())
    )


def plain_ids(ids: Any) -> list[str | int]:
    """Return ids of samples as plain numbers and texts."""
    if isinstance(ids, Tensor):
        ids = ids.tolist()
    return [one if isinstance(one, int) else str(one) for one in ids]


def listed(names: Sequence[Any]) -> str:
    """Return names with commas, the first few of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more
