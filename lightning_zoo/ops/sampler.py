"""A random choice of positives and negatives for the loss, in a fixed proportion."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_balanced(
    labels: Tensor,
    batch_size: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose at most ``batch_size`` of one image's boxes; return masks (N,) bool of both kinds.

    Positives are limited to ``int(batch_size * positive_fraction)``, negatives fill the rest.

    Args:
        labels: (N,), at least 1 for positives, 0 for negatives, below 0 for neither.
        batch_size: How many boxes to choose in all.
        positive_fraction: The largest share of positives.
        generator: Source of randomness on the device of ``labels``; None takes the global one.
    """
    positives, negatives = labels >= 1, labels == 0
    num_positives = int(batch_size * positive_fraction)
    positive = _choose(positives, num_positives, generator)
    negative = _choose(negatives, batch_size - positive.sum(), generator)
    return positive, negative


def _choose(candidates: Tensor, count: int | Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a mask of at most ``count`` of the candidates."""
    if candidates.device.type == "cpu":
        index = torch.where(candidates)[0]
        chosen = torch.randperm(len(index), generator=generator)[: int(count)]
        return torch.zeros_like(candidates).index_fill_(0, index[chosen], True)
    # elsewhere without telling the host how many there are, which would wait for the device
    keys = torch.rand(candidates.shape, device=candidates.device, generator=generator)
    order = torch.where(candidates, keys, 2.0).argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return candidates & (rank < count)
