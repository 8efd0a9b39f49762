"""A learning rate by trying rising ones: the range test.

Paper: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017,
https://arxiv.org/abs/1506.01186.
Differs from the paper: the rate rises by the same factor at each step, as rates are compared by
their ratios.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_zoo.engine.fit import run_length
from lightning_zoo.engine.session import (
    build_data,
    build_task,
    build_trainer,
    count_devices,
    hush,
    join,
    plan_for,
)
from lightning_zoo.errors import NotFiniteError, ZooError
from lightning_zoo.recipe import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

# Of the trainer's arguments in a recipe, those that change a step; the others change the run.
OF_A_STEP = ("accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm",
             "deterministic", "benchmark")  # fmt: skip
SMOOTHED = 5  # steps whose median is one point of the curve
MARGIN = 4.0  # standard deviations of a point of the curve that are no difference
DIVERGED = 4.0  # times the lowest loss so far
BARS = " ▁▂▃▄▅▆▇█"
COLUMNS = 60


@dataclass(frozen=True)
class LrCurve:
    """Training losses at rising learning rates.

    Attributes:
        rates: Learning rate of each optimizer step.
        losses: Mean loss of each, before the step.
        own: The recipe's learning rate.
        why: What ended the test.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    own: float
    why: str

    @property
    def smoothed(self) -> tuple[float, ...]:
        """Median of each loss and its neighbours: no accident counts, and nothing lags."""
        return smooth(self.losses)

    @property
    def edge(self) -> int | None:
        """The last step at which the loss was as low as anywhere, but for its noise.

        Beyond it steps overshoot. None where the loss rose from the start.
        """
        curve = self.smoothed
        of_a_median = math.sqrt(math.pi / 2 / SMOOTHED) * noise(self.losses)
        limit = min(curve, default=0.0) + MARGIN * of_a_median
        last = max((i for i, loss in enumerate(curve) if loss <= limit), default=0)
        return last if last >= SMOOTHED else None

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at the edge, as a whole run needs; the recipe's where there is none.

        The lowest loss alone would not do: before the network learns at all, it is an accident.
        """
        return self.own if self.edge is None else round_rate(self.rates[self.edge] / 10)

    def table(self) -> str:
        """Return the curve as a line of bars, and what follows from it."""
        curve = self.smoothed
        if self.edge is None:
            found = f"the loss rose from the start: the learning rate stays {self.own:g}"
        else:
            found = (
                f"low up to {self.rates[self.edge]:.2g}; suggestion, a tenth of that: "
                f"{self.suggestion:g} (the recipe's is {self.own:g})"
            )
        first, last = f"{self.rates[0]:.0e}", f"{self.rates[-1]:.0e}"
        line = bars(curve)
        between = " " * max(1, len(line) - len(first) - len(last))
        return (
            f"loss by learning rate, {min(curve):.3g} to {max(curve):.3g}; {self.why}\n"
            f"  {line}\n  {first}{between}{last}\n{found}"
        )

    def plot(self, path: str | Path, *, size: tuple[int, int] = (720, 360)) -> Path:
        """Draw the curve and the suggestion to an image file.

        Args:
            path: The file; its suffix says the format.
            size: Width and height in pixels.
        """
        _draw(self, size).save(path)
        return Path(path)


def find_lr(
    recipe: Recipe,
    *,
    devices: int | str = "auto",
    steps: int = 80,
    low: float = 1e-6,
    high: float = 1.0,
) -> LrCurve:
    """Try rising learning rates on a recipe's own task and data, on one device.

    The step has the recipe's images (gradients accumulate). All layers learn, at their factors: the
    rate that is sought has to suit the whole network. The task is a fresh one; nothing of it, of
    the random numbers or on disk is left afterwards.

    Args:
        recipe: A checked recipe.
        devices: As for ``fit``; says which kind of device is used.
        steps: Optimizer steps at most.
        low: The first step's rate.
        high: The last step's rate.

    Raises:
        ZooError: If the range is empty, or the recipe cannot be run.
    """
    if steps < 2 * SMOOTHED or not 0 < low < high or not math.isfinite(high):
        raise ZooError(
            f"find_lr: steps is {steps}, low {low:g}, high {high:g}; expected at least "
            f"{2 * SMOOTHED} steps from a rate above 0 to a higher one"
        )
    own = recipe.get("model.optimizer.lr")
    if not isinstance(own, int | float):
        raise ZooError(f"{recipe.name} states no model.optimizer.lr to take the place of")
    hush()
    accelerator, _ = count_devices(devices, str(recipe.get("trainer.accelerator", "auto")))
    recipe = for_trial(recipe, max_steps=steps)
    rising = _Rising(rates(steps, low, high))
    with isolate_rng(), tempfile.TemporaryDirectory(prefix="lightning_zoo_") as folder:
        plan = plan_for(recipe, 1)
        data = build_data(recipe, plan, "fit", ledger=Path(folder, "ledger.jsonl"))
        task, config = build_task(recipe, num_classes=data.num_classes)
        join(task, data)
        task.lr_schedule = None
        per_epoch = plan.steps_per_epoch(data.num_train_samples, drop_last=data.drop_last)
        length = run_length(recipe, per_epoch, plan.accumulate)
        seed = config.get("seed_everything", 0)
        task.configure(length, batch_size=plan.size, lr_scale=1.0, seed=seed)
        if task.thaw is not None:
            task.thaw.steps = 0
        trainer = build_trainer(
            recipe, accelerator=accelerator, devices=1, plan=plan, callbacks=[rising],
            steps_per_epoch=length.steps_per_epoch, folder=Path(folder),
        )  # fmt: skip
        try:
            trainer.fit(task, datamodule=data)
        except NotFiniteError:
            rising.why = "the loss was no finite number at the end"
    return LrCurve(
        tuple(rising.rates[: len(rising.losses)]), tuple(rising.losses), float(own), rising.why
    )


def for_trial(recipe: Recipe, *, max_steps: int) -> Recipe:
    """Return a recipe that trains for some steps and does nothing else."""
    old = recipe.config["trainer"]
    trainer: dict[str, Any] = {name: old[name] for name in OF_A_STEP if name in old}
    trainer |= {
        "max_epochs": -1,
        "max_steps": max_steps,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    return dataclasses.replace(recipe, config={**recipe.config, "trainer": trainer})


def rates(steps: int, low: float, high: float) -> list[float]:
    """Return ``steps`` rates from ``low`` to ``high``, each the same multiple of the last."""
    return [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]


def smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """Return the median of each loss and its neighbours, of fewer towards the ends."""
    half = SMOOTHED // 2
    found = []
    for i in range(len(losses)):
        reach = min(half, i, len(losses) - 1 - i)
        found.append(statistics.median(losses[i - reach : i + reach + 1]))
    return tuple(found)


def noise(losses: Sequence[float]) -> float:
    """Return the standard deviation of a loss around its curve, from the median second difference.

    The second difference of independent values has six times their variance; half of a normal
    distribution lies within 0.6745 standard deviations.
    """
    second = [abs(a - 2 * b + c) for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    return statistics.median(second) / math.sqrt(6) / 0.6745 if second else 0.0


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the newest loss is no number, or the newest three are far above the lowest."""
    if not math.isfinite(losses[-1]):
        return True
    return len(losses) > 2 * SMOOTHED and min(losses[-3:]) > DIVERGED * min(smooth(losses))


def round_rate(rate: float) -> float:
    """Return a rate to two digits, as a person would write it."""
    return float(f"{rate:.1e}")


def bars(values: Sequence[float]) -> str:
    """Return values as bars of text, the logarithms of losses; long curves are thinned out."""
    if len(values) > COLUMNS:
        values = [values[round(i * (len(values) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
    heights = [math.log(max(v, 1e-12)) for v in values]
    low, span = min(heights), (max(heights) - min(heights)) or 1.0
    return "".join(BARS[1 + round((h - low) / span * (len(BARS) - 2))] for h in heights)


class _Rising(Callback):
    """Sets the rate of every step, notes its loss, and stops where the loss has diverged."""

    def __init__(self, rates: Sequence[float]) -> None:
        self.rates = list(rates)
        self.losses: list[float] = []
        self.why = "the highest rate was reached"
        self.parts: list[float] = []
        self.factors: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        self.factors = [group["lr"] / groups[0]["lr"] for group in groups]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = self.rates[trainer.global_step]
        for group, factor in zip(trainer.optimizers[0].param_groups, self.factors, strict=True):
            group["lr"] = rate * factor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.parts.append(float(loss))
        if trainer.global_step == len(self.losses):
            return  # the step is not over: gradients accumulate
        self.losses.append(sum(self.parts))  # Lightning has divided each by their number
        self.parts = []
        if not math.isfinite(self.losses[-1]):
            self.losses.pop()
            self.why = "the loss was no finite number at the end"
            trainer.should_stop = True
        elif has_diverged(self.losses):
            self.why = "the loss had diverged at the end"
            trainer.should_stop = True


def _draw(curve: LrCurve, size: tuple[int, int]) -> Image:
    from PIL import Image, ImageDraw

    width, height = size
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = 12, width - 12, 28, height - 28
    logs = [math.log10(rate) for rate in curve.rates]
    heights = [math.log10(max(v, 1e-12)) for v in curve.smoothed]
    low, span = min(heights), (max(heights) - min(heights)) or 1.0
    reach = (logs[-1] - logs[0]) or 1.0

    def x_of(log: float) -> float:
        return left + (log - logs[0]) / reach * (right - left)

    for power in range(math.ceil(logs[0]), math.floor(logs[-1]) + 1):
        x = x_of(power)
        draw.line([(x, top), (x, bottom)], fill=(220, 220, 220))
        draw.text((x + 2, bottom + 6), f"1e{power}", fill=(90, 90, 90))
    points = [
        (x_of(log), bottom - (h - low) / span * (bottom - top))
        for log, h in zip(logs, heights, strict=True)
    ]
    draw.line(points, fill=(30, 90, 200), width=2)
    x = x_of(math.log10(curve.suggestion))
    if left <= x <= right:
        draw.line([(x, top), (x, bottom)], fill=(200, 60, 30), width=2)
    draw.text((left, 8), f"suggestion {curve.suggestion:g}", fill=(200, 60, 30))
    return image
