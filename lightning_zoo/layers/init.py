from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill a tensor in place from a normal distribution that is cut at two deviations.

    By the inverse of the distribution function: ``nn.init.trunc_normal_`` draws again whatever
    falls outside, which takes six times as long with so narrow bounds.
    """
    tensor.uniform_(-math.erf(math.sqrt(2)), math.erf(math.sqrt(2)))
    return tensor.erfinv_().mul_(std * math.sqrt(2)).clamp_(-2 * std, 2 * std)


def init_mobile_(model: nn.Module) -> None:
    """Draw the weights of a mobile network in place, biases zero.

    Convolutions are Kaiming normal (fan out), linear layers normal with deviation 0.01, norms one.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            if module.weight is not None:
                nn.init.ones_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
