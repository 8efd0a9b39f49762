"""Fine-tuning: what is new learns at once, what a file brought learns later and more slowly."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from torch import nn

from lightning_zoo.errors import ZooError
from lightning_zoo.optim.param_groups import Layer
from lightning_zoo.optim.schedules import Length

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class FineTuning:
    """How a network learns that began with weights of a file.

    Its head (all that the file did not bring; where it brought all, the tensors whose shape follows
    the number of classes) learns at the recipe's rate from the first step on. What the file brought
    stands still at first, its batch norms in evaluation mode, and then learns at rates of its own.
    A network without weights of a file learns as it would without this.

    Args:
        freeze_epochs: Epochs at the beginning in which what the file brought stands still; half an
            epoch is 0.5, and steps are rounded up. 0 lets everything learn from the start.
        backbone_lr_factor: Factor on the learning rate of what the file brought.
        stage_factor: Further factor for each stage towards the input, see :func:`stages`.
        freeze_norms: Whether batch norms that the file brought stay as they are for the whole run,
            weights and statistics: for batches of few images.
        norm_momentum: Momentum of the running statistics of all batch norms, with weights of a file
            or without; None leaves the network's own, which some made for very long runs.
        keep_known_classes: Whether classes that the file's head knows by name keep their rows, see
            :func:`lightning_zoo.models.transfer.keep_class_rows`.

    Raises:
        ZooError: If a number is out of its range.
    """

    def __init__(
        self,
        *,
        freeze_epochs: float = 1.0,
        backbone_lr_factor: float = 0.1,
        stage_factor: float = 1.0,
        freeze_norms: bool = False,
        norm_momentum: float | None = None,
        keep_known_classes: bool = True,
    ) -> None:
        if norm_momentum is not None and not 0 < norm_momentum <= 1:
            raise ZooError(
                f"model.finetuning.norm_momentum is {norm_momentum}; expected a number above 0, "
                "at most 1, or null"
            )
        for name, value, positive in (
            ("freeze_epochs", freeze_epochs, False),
            ("backbone_lr_factor", backbone_lr_factor, False),
            ("stage_factor", stage_factor, True),
        ):
            if not math.isfinite(value) or value < 0 or (positive and value == 0):
                expected = "a number above 0" if positive else "0 or more"
                raise ZooError(f"model.finetuning.{name} is {value}; expected {expected}")
        self.freeze_epochs = freeze_epochs
        self.backbone_lr_factor, self.stage_factor = backbone_lr_factor, stage_factor
        self.freeze_norms, self.keep_known_classes = freeze_norms, keep_known_classes
        self.norm_momentum = norm_momentum

    def set_momentum(self, network: nn.Module) -> None:
        """Give the batch norms of a network their momentum, where one is asked for."""
        for module in network.modules() if self.norm_momentum is not None else ():
            if isinstance(module, _BATCH_NORM):
                module.momentum = self.norm_momentum

    def frozen_steps(self, length: Length) -> int:
        """Return the optimizer steps at the beginning in which only the head learns."""
        return math.ceil(self.freeze_epochs * length.steps_per_epoch)

    def layers(self, network: nn.Module, head: Collection[str]) -> list[Layer]:
        """Return what the file brought, in layers of one factor each, from the output on.

        Args:
            network: The network.
            head: Names of its parameters that are new.
        """
        found: dict[float, list[str]] = {}
        for i, names in enumerate(reversed(stages(network, head))):
            factor = self.backbone_lr_factor * self.stage_factor**i
            found.setdefault(factor, []).extend(names)
        return list(found.items())


class Thaw:
    """Holds what a file brought still for the first steps of a run, and lets it go then.

    Its state follows from the step alone, so that a resumed run goes on as it would have.

    Args:
        network: The network; under ``freeze_norms`` its norms are frozen for good.
        head: Names of the parameters that learn from the start.
        steps: Optimizer steps until the others join in.
        freeze_norms: Whether the others' batch norms never do.
    """

    def __init__(
        self, network: nn.Module, head: Collection[str], steps: int, *, freeze_norms: bool = False
    ) -> None:
        self.steps, self.freeze_norms = steps, freeze_norms
        self.norms = list(_norms(network, head))
        if freeze_norms:
            for norm in self.norms:
                norm.requires_grad_(False)
        self.parameters = [
            p for n, p in network.named_parameters() if n not in head and p.requires_grad
        ]

    def prepare(self, step: int, *, toggle: bool) -> None:
        """Bring the network into the state that optimizer step ``step`` (from 0) trains in.

        Args:
            step: Optimizer steps so far.
            toggle: Whether gradients may be switched off, which saves time. DDP decides once which
                parameters have gradients, so there :meth:`drop` alone keeps them still.
        """
        learns = step >= self.steps
        for norm in self.norms:
            norm.train(learns and not self.freeze_norms)
        if toggle:
            for parameter in self.parameters:
                parameter.requires_grad_(learns)

    def drop(self, step: int) -> None:
        """Forget the gradients of what stands still at ``step``, before they are clipped.

        An optimizer leaves a parameter without a gradient as it is, its weight decay included.
        """
        if step < self.steps:
            for parameter in self.parameters:
                parameter.grad = None


def _norms(network: nn.Module, head: Collection[str]) -> Iterator[nn.Module]:
    for path, module in network.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if isinstance(module, _BATCH_NORM) and own and not set(own) & set(head):
            yield module


# ---------------------------------------------------------------------------------------------
# Stages


def stages(network: nn.Module, head: Collection[str]) -> list[list[str]]:
    """Return the parameters that are not in ``head`` by stage, from the input to the output.

    A stage begins where the resolution is halved, or would be, were the convolutions not dilated
    instead. It holds the children of the backbone (of a classifier: of the network) from there on;
    a child that halves it on its way, such as VGG's ``features``, is taken apart. What belongs to
    no backbone (pyramid, proposals, a head's hidden layers) is the last stage.

    Args:
        network: The network.
        head: Names of parameters to leave out.
    """
    backbone = getattr(network, "backbone", network)
    root = getattr(backbone, "body", backbone)
    prefix = next((f"{n}." for n, m in network.named_modules() if m is root and n), "")
    names = [n for n, _ in network.named_parameters()]
    found: list[list[str]] = [[]]
    dilated = 1
    for path, child in _children(root, prefix):
        inside = [n for n in names if n.startswith(f"{path}.")]
        if any(n in head for n in inside):
            continue  # the head's own hidden layers, an auxiliary head
        further = _largest(child, "dilation")
        if (_largest(child, "stride") > 1 or further > dilated) and found[-1]:
            found.append([])
        dilated = max(dilated, further)
        found[-1] += inside
    seen = {n for stage in found for n in stage}
    found.append([n for n in names if n not in seen and n not in head])
    return [stage for stage in found if stage]


def _children(root: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network in order; those of several resolutions are taken apart."""
    for name, child in root.named_children():
        parts = list(child.children())
        is_list = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if is_list and any(_largest(part, "stride") > 1 for part in parts[1:]):
            yield from _children(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _largest(module: nn.Module, what: str) -> int:
    """Return the largest stride or dilation of a module's layers, 1 where they have none."""
    sizes = [getattr(m, what, 1) for m in module.modules()]
    flat = [n for size in sizes for n in (size if isinstance(size, tuple) else (size,))]
    return max((n for n in flat if isinstance(n, int)), default=1)
