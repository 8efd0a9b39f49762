from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SampleMean(Metric):
    """Mean over samples of a value given as batch means; summed in float64, over ranks too."""

    full_state_update = False
    sum: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, mean: Tensor, samples: int) -> None:
        """Add the mean (scalar) of a batch of ``samples`` samples."""
        self.sum += mean.detach().double() * samples
        self.count += samples

    def compute(self) -> Tensor:
        """Return the mean as a float64 scalar, NaN where nothing was added."""
        return self.sum / self.count
