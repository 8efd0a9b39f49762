from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
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


class NamedMeans:
    """Means over samples of several values, by name; exact over ranks, even one without a sample.

    The names need not be known before, which a metric of torchmetrics would ask for.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.samples = 0

    def update(self, means: Mapping[str, Tensor], samples: int) -> None:
        """Add the means (scalars) of a batch of ``samples`` samples; nothing waits for a device."""
        for name, mean in means.items():
            value = mean.detach().double() * samples
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.samples += samples

    def compute(self) -> dict[str, float]:
        """Return the means over all ranks, sorted by name; every rank has to call this."""
        mine = {name: float(value) for name, value in self.sums.items()}, self.samples
        gathered = [mine]
        if dist.is_available() and dist.is_initialized():
            gathered = [mine] * dist.get_world_size()
            dist.all_gather_object(gathered, mine)
        total = sum(samples for _, samples in gathered)
        names = sorted({name for sums, _ in gathered for name in sums})
        return {n: sum(sums.get(n, 0.0) for sums, _ in gathered) / total for n in names}

    def reset(self) -> None:
        """Start anew."""
        self.sums, self.samples = {}, 0
