"""Learning-rate schedules as closed formulas of the optimizer step.

Each returns the factor on the recipe's learning rate. A closed formula needs no state: a run that
resumes in mid-epoch, or that runs on another number of devices, has the same rate at the same step.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Literal

from lightning_zoo.errors import ZooError

By = Literal["epoch", "step"]


@dataclass(frozen=True)
class Length:
    """How long a run is: optimizer steps of one epoch, and epochs."""

    steps_per_epoch: int
    epochs: int


class Schedule:
    """Linear warm-up, then the decay that the subclass defines.

    Args:
        length: The run's length; given when the run starts, not in a recipe.
        by: Whether the rate changes once an epoch or at every optimizer step.
        warmup_epochs: Epochs over which the rate rises before the decay begins; 0 for none.
        warmup_factor: Factor at the first step of the warm-up.
        warmup_steps: Optimizer steps over which the rate rises while the decay already runs, as the
            reference detection scripts do it; never more than an epoch has, less one. 0 for none.

    Raises:
        ZooError: If there are two warm-ups.
    """

    def __init__(
        self,
        length: Length,
        *,
        by: By = "epoch",
        warmup_epochs: float = 0,
        warmup_factor: float = 0.01,
        warmup_steps: int = 0,
    ) -> None:
        if warmup_epochs and warmup_steps:
            raise ZooError(
                f"warmup_epochs is {warmup_epochs} and warmup_steps is {warmup_steps}; "
                "expected one of the two"
            )
        self.length = length
        self.by = by
        unit = 1 if by == "epoch" else length.steps_per_epoch
        self.warmup = warmup_epochs * unit
        self.warmup_factor = warmup_factor
        self.warmup_steps = min(warmup_steps, length.steps_per_epoch - 1)
        self.total = length.epochs * unit  # epochs or steps, as `by` says

    def factor(self, step: int) -> float:
        """Return the factor on the learning rate at optimizer step ``step`` (from 0)."""
        now = step // self.length.steps_per_epoch if self.by == "epoch" else step
        if now < self.warmup:
            return self._rising(now / self.warmup)
        decay = self.decay(now - self.warmup, self.total - self.warmup)
        return decay * self._rising(step / self.warmup_steps) if step < self.warmup_steps else decay

    def _rising(self, share: float) -> float:
        return self.warmup_factor + (1 - self.warmup_factor) * share

    def decay(self, now: float, total: float) -> float:
        """Return the factor ``now`` epochs (or steps) after the warm-up, of ``total`` of them."""
        raise NotImplementedError


class Constant(Schedule):
    """The recipe's learning rate throughout."""

    def decay(self, now: float, total: float) -> float:
        """Return 1."""
        return 1.0


class StepDecay(Schedule):
    """Multiply by ``gamma`` every ``every_epochs`` epochs.

    Args:
        length: See :class:`Schedule`.
        every_epochs: Epochs between two changes.
        gamma: Factor of one change.
        warmup_epochs: See :class:`Schedule`.
        warmup_factor: See :class:`Schedule`.
    """

    def __init__(
        self,
        length: Length,
        *,
        every_epochs: int,
        gamma: float = 0.1,
        warmup_epochs: float = 0,
        warmup_factor: float = 0.01,
    ) -> None:
        super().__init__(length, warmup_epochs=warmup_epochs, warmup_factor=warmup_factor)
        self.every_epochs, self.gamma = every_epochs, gamma

    def decay(self, now: float, total: float) -> float:
        """Return gamma to the number of changes so far."""
        return self.gamma ** (int(now) // self.every_epochs)


class MultiStepDecay(Schedule):
    """Multiply by ``gamma`` at each of the ``milestones``.

    Args:
        length: See :class:`Schedule`.
        milestones: Epochs (from 0, counted from the run's start) at which the rate changes.
        gamma: Factor of one change.
        by: See :class:`Schedule`; it decides how a warm-up over epochs rises.
        warmup_epochs: See :class:`Schedule`.
        warmup_factor: See :class:`Schedule`.
        warmup_steps: See :class:`Schedule`.
    """

    def __init__(
        self,
        length: Length,
        *,
        milestones: list[int],
        gamma: float = 0.1,
        by: By = "epoch",
        warmup_epochs: float = 0,
        warmup_factor: float = 0.01,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(
            length,
            by=by,
            warmup_epochs=warmup_epochs,
            warmup_factor=warmup_factor,
            warmup_steps=warmup_steps,
        )
        unit = 1 if by == "epoch" else length.steps_per_epoch
        self.milestones, self.gamma = [unit * epoch for epoch in sorted(milestones)], gamma

    def decay(self, now: float, total: float) -> float:
        """Return gamma to the number of milestones passed."""
        return self.gamma ** bisect.bisect_right(self.milestones, now + self.warmup)


class CosineDecay(Schedule):
    """Half a cosine from the recipe's learning rate to ``end_factor`` of it.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, https://arxiv.org/abs/1608.03983.

    Args:
        length: See :class:`Schedule`.
        by: See :class:`Schedule`.
        end_factor: Factor that the last epoch (or step) comes close to.
        warmup_epochs: See :class:`Schedule`.
        warmup_factor: See :class:`Schedule`.
        warmup_steps: See :class:`Schedule`.
    """

    def __init__(
        self,
        length: Length,
        *,
        by: By = "epoch",
        end_factor: float = 0.0,
        warmup_epochs: float = 0,
        warmup_factor: float = 0.01,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(
            length,
            by=by,
            warmup_epochs=warmup_epochs,
            warmup_factor=warmup_factor,
            warmup_steps=warmup_steps,
        )
        self.end_factor = end_factor

    def decay(self, now: float, total: float) -> float:
        """Return the cosine's value."""
        progress = min(now / total, 1.0) if total > 0 else 1.0
        return self.end_factor + (1 - self.end_factor) * (1 + math.cos(math.pi * progress)) / 2


class PolynomialDecay(Schedule):
    """``(1 - step / total) ** power``, at every step.

    Args:
        length: See :class:`Schedule`.
        power: Exponent.
        warmup_epochs: See :class:`Schedule`.
        warmup_factor: See :class:`Schedule`.
    """

    def __init__(
        self,
        length: Length,
        *,
        power: float = 0.9,
        warmup_epochs: float = 0,
        warmup_factor: float = 0.01,
    ) -> None:
        super().__init__(
            length, by="step", warmup_epochs=warmup_epochs, warmup_factor=warmup_factor
        )
        self.power = power

    def decay(self, now: float, total: float) -> float:
        """Return the polynomial's value."""
        return max(0.0, 1 - now / total) ** self.power if total > 0 else 0.0
