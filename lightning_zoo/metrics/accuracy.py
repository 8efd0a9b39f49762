from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TopKAccuracy(Metric):
    """Share of samples whose label is among the ``k`` highest logits, in per cent, for several k.

    Counts are integers summed over ranks, so the result does not depend on how the samples were
    spread. A sample counts as wrong where its logit is NaN.

    Args:
        topk: The values of ``k``; those above the number of classes count every sample as right.
    """

    full_state_update = False
    higher_is_better = True
    correct: Tensor
    total: Tensor

    def __init__(self, topk: tuple[int, ...] = (1, 5), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.topk = topk
        zeros = torch.zeros(len(topk), dtype=torch.int64)
        self.add_state("correct", zeros, dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch: logits ``(N, C)`` float, labels ``(N,)`` int64."""
        most = min(max(self.topk), logits.shape[1])
        hits = logits.topk(most, dim=1).indices == labels[:, None]  # (N, most)
        hits &= ~logits.isnan().any(dim=1, keepdim=True)
        for i, k in enumerate(self.topk):
            self.correct[i] += hits[:, :k].any(dim=1).sum()
        self.total += labels.numel()

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"acc@1": per cent, ...}`` as float64 scalars; NaN where nothing was counted."""
        share = 100.0 * self.correct.double() / self.total.double()
        return {f"acc@{k}": share[i] for i, k in enumerate(self.topk)}
