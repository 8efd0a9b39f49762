from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

# Parameters by name that learn at one rate, and the factor on it.
Layer = tuple[float, Collection[str]]


def param_groups(
    model: nn.Module,
    *,
    norm_weight_decay: float | None = None,
    bias_weight_decay: float | None = None,
    lr_factors: Mapping[str, float] | None = None,
    layers: Sequence[Layer] = (),
) -> list[dict[str, Any]]:
    """Split the trainable parameters by how they learn and how their weights decay.

    Args:
        model: The network.
        norm_weight_decay: Weight decay of normalisation layers; None leaves the optimizer's.
        bias_weight_decay: Weight decay of the biases of other layers; None leaves the optimizer's.
        lr_factors: Factor on the learning rate by the name of a part, a direct child of the
            network; parts with a name here have groups of their own.
        layers: Parameters by name with a factor of their own, beside that of their part; those in
            no layer come first.

    Returns:
        Groups for a torch optimizer, none of them empty: of each layer the parts without a name in
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
    layer_of = {name: i for i, (_, names) in enumerate(layers, 1) for name in names}
    kinds: dict[tuple[int, str], list[list[nn.Parameter]]] = {
        (i, part): [[], [], []] for i in range(len(layers) + 1) for part in ("", *factors)
    }
    seen: set[int] = set()
    for path, module in model.named_modules():
        part = path.partition(".")[0]
        for name, parameter in module.named_parameters(recurse=False):
            layer = layer_of.get(f"{path}.{name}" if path else name, 0)
            rest, norms, biases = kinds[layer, part if part in factors else ""]
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
    for (i, part), (rest, norms, biases) in kinds.items():
        factor = factors.get(part, 1.0) * (layers[i - 1][0] if i else 1.0)
        own = {} if factor == 1.0 else {LR_FACTOR: factor}
        groups.append({"params": rest, **own})
        groups.append({"params": norms, "weight_decay": norm_weight_decay, **own})
        groups.append({"params": biases, "weight_decay": bias_weight_decay, **own})
    return [group for group in groups if group["params"]]
