"""Focal loss: cross entropy that looks away from what is easy. Paper: https://arxiv.org/abs/1708.02002."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.errors import unknown


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """Return the focal loss of logits, computed in float32 at least.

    Args:
        inputs: Logits of any shape.
        targets: 0 or 1 for each logit, of the same shape.
        alpha: Weight of the positives in [0, 1], ``1 - alpha`` for the negatives; below 0: none.
        gamma: How much less well-classified examples count; 0 gives plain cross entropy.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.

    Raises:
        ZooError: If the reduction is none of these.
    """
    if reduction not in ("none", "mean", "sum"):
        raise unknown("reduction", reduction, ("none", "mean", "sum"))
    if inputs.dtype.itemsize < 4:
        inputs = inputs.float()
    targets = targets.to(inputs.dtype)
    p = inputs.sigmoid()
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = loss * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss
