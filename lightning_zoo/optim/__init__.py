"""Learning-rate schedules, parameter groups and averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer

from lightning_zoo.optim.averaging import averaged_copy, reference_decay
from lightning_zoo.optim.finetuning import FineTuning, Thaw
from lightning_zoo.optim.param_groups import LR_FACTOR, param_groups
from lightning_zoo.optim.schedules import (
    Constant,
    CosineDecay,
    Length,
    MultiStepDecay,
    PolynomialDecay,
    Schedule,
    StepDecay,
)

# An optimizer that still waits for its parameters; a schedule that waits for the run's length.
OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
ScheduleCallable = Callable[[Length], Schedule]

__all__ = [
    "LR_FACTOR",
    "Constant",
    "CosineDecay",
    "FineTuning",
    "Length",
    "MultiStepDecay",
    "OptimizerCallable",
    "PolynomialDecay",
    "Schedule",
    "ScheduleCallable",
    "StepDecay",
    "Thaw",
    "averaged_copy",
    "param_groups",
    "reference_decay",
]
