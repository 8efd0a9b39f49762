from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_zoo.errors import unknown

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


# The key of a group by which the run multiplies the optimizer's learning rate.
LR_FACTOR = "lr_factor"


def param_groups(
    model: nn.Module,
    *,
    norm_weight_decay: float | None = None,
    bias_weight_decay: float | None = None,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Split the trainable parameters by how they learn and how their weights decay.

    Args:
        model: The network.
        norm_weight_decay: Weight decay of normalisation layers; None leaves the optimizer's.
        bias_weight_decay: Weight decay of the biases of other layers; None leaves the optimizer's.
        lr_factors: Factor on the learning rate by the name of a part, a direct child of the
            network; parts with a name here have groups of their own.

    Returns:
        Groups for a torch optimizer, none of them empty: the parts without a name in
        ``lr_factors``, then those with one, each in the order rest, norms, biases. Groups with a
        factor other than 1 carry it under ``"lr_factor"``.

    Raises:
        ZooError: If the network has no such part.
    """
    factors = dict(lr_factors or {})
    children = [name for name, _ in model.named_children()]
    for name in factors:
        if name not in children:
            raise unknown("part of the network", name, children)
    kinds: dict[str, list[list[nn.Parameter]]] = {n: [[], [], []] for n in ("", *factors)}
    seen: set[int] = set()
    for path, module in model.named_modules():
        part = path.partition(".")[0]
        rest, norms, biases = kinds[part if part in factors else ""]
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if norm_weight_decay is not None and isinstance(module, _NORMS):
                norms.append(parameter)
            elif bias_weight_decay is not None and name == "bias":
                biases.append(parameter)
            else:
                rest.append(parameter)
    groups: list[dict[str, Any]] = []
    for part, (rest, norms, biases) in kinds.items():
        own = {} if factors.get(part, 1.0) == 1.0 else {LR_FACTOR: factors[part]}
        groups.append({"params": rest, **own})
        groups.append({"params": norms, "weight_decay": norm_weight_decay, **own})
        groups.append({"params": biases, "weight_decay": bias_weight_decay, **own})
    return [group for group in groups if group["params"]]
