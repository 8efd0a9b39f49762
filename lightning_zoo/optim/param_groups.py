from __future__ import annotations

from typing import Any

from torch import nn

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


def param_groups(
    model: nn.Module,
    *,
    norm_weight_decay: float | None = None,
    bias_weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Split the trainable parameters by how their weights decay.

    Args:
        model: The network.
        norm_weight_decay: Weight decay of normalisation layers; None leaves the optimizer's.
        bias_weight_decay: Weight decay of the biases of other layers; None leaves the optimizer's.

    Returns:
        Groups for a torch optimizer, none of them empty, in the order rest, norms, biases.
    """
    rest: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
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
    groups: list[dict[str, Any]] = [{"params": rest}]
    groups.append({"params": norms, "weight_decay": norm_weight_decay})
    groups.append({"params": biases, "weight_decay": bias_weight_decay})
    return [group for group in groups if group["params"]]
