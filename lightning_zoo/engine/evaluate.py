from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_zoo.batch import BatchPlan
from lightning_zoo.callbacks import RankWatch
from lightning_zoo.engine.session import (
    RANK_TIMEOUT,
    Overrides,
    as_pairs,
    build_data,
    build_task,
    build_trainer,
    count_devices,
    count_nodes,
    hush,
    join,
    plan_for,
    shared_folder,
)
from lightning_zoo.engine.world import launched
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.runs import Run, find_run, read_checkpoint

# The first process tells those that it starts where broken files are named.
LEDGER_VARIABLE = "LIGHTNING_ZOO_LEDGER"


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        metrics: Figures by name, accuracies in per cent.
        expected: The recipe's reference figures, by the same names; empty where it states none.
        tolerance: How far a figure may lie below its reference.
        skipped: Broken files that were left out.
        per_class: Of detectors and segmentation, one row a class: label, name, how many objects or
            pixels, and its figures.
    """

    metrics: dict[str, float]
    expected: dict[str, float]
    tolerance: float
    skipped: tuple[str, ...] = ()
    per_class: tuple[dict[str, Any], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every figure with a reference is at most ``tolerance`` from it, or better."""
        return bool(self.expected) and all(
            self.metrics.get(name, math.nan) >= value - self.tolerance
            for name, value in self.expected.items()
        )


def validate(
    what: str | Path | None = None,
    overrides: Overrides = (),
    *,
    recipe: str | Path | Recipe | None = None,
    weights: str | None = None,
    devices: int | str = "auto",
    out: str | Path = "runs",
    debug: bool = False,
) -> EvalResult:
    """Measure a run, a checkpoint or published weights on the validation split.

    Args:
        what: A run (folder, ``last`` or a recipe's name) or a checkpoint.
        overrides: Keys of the recipe to replace.
        recipe: Without ``what``: the recipe whose data and task are used.
        weights: With ``recipe``: published name or file of the weights to measure.
        devices: Number of devices, or ``"auto"``.
        out: Folder of the run folders.
        debug: Let Lightning speak.
    """
    return evaluate(
        "validate", what, overrides, recipe=recipe, weights=weights, devices=devices, out=out,
        debug=debug,
    )  # fmt: skip


def test(
    what: str | Path | None = None,
    overrides: Overrides = (),
    *,
    recipe: str | Path | Recipe | None = None,
    weights: str | None = None,
    devices: int | str = "auto",
    out: str | Path = "runs",
    debug: bool = False,
) -> EvalResult:
    """Measure on the test split; see :func:`validate`."""
    return evaluate(
        "test", what, overrides, recipe=recipe, weights=weights, devices=devices, out=out,
        debug=debug,
    )  # fmt: skip


def evaluate(
    stage: str,
    what: str | Path | None,
    overrides: Overrides,
    *,
    recipe: str | Path | Recipe | None,
    weights: str | None,
    devices: int | str,
    out: str | Path,
    debug: bool,
) -> EvalResult:
    """Measure on the split of ``stage`` (``validate`` or ``test``); see :func:`validate`."""
    hush(debug)
    chosen, checkpoint = resolve(what, recipe, weights, Path(out))
    chosen = chosen.with_overrides(as_pairs(overrides)).check()
    accelerator, count = count_devices(devices, str(chosen.get("trainer.accelerator", "auto")))
    # evaluation has no optimizer step: any number of devices will do
    batch = chosen.config["batch"]
    processes = count * count_nodes(chosen)
    chosen = chosen.with_overrides([("batch.size", batch["per_device"] * processes)])
    plan = plan_for(chosen, count)
    with shared_folder(LEDGER_VARIABLE) as folder:
        data = build_data(chosen, plan, stage, ledger=folder / "ledger.jsonl")
        metrics, config, rows = _measure(chosen, checkpoint, data, stage, accelerator, count, plan)
        skipped = tuple(entry["file"] for entry in _of_all_processes(data.read_ledger()))
    reference = config.get("reference") or {}
    split = "val" if stage == "validate" else "test"
    expected = {f"{split}/{k}": float(v) for k, v in (reference.get("metrics") or {}).items()}
    tolerance = float(reference.get("tolerance", 0.0))
    return EvalResult(metrics, expected, tolerance, skipped, tuple(rows))


def _of_all_processes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ledgers of all processes that a launcher started; others share one file."""
    world = launched()
    if world is None:
        return entries
    found: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(found, entries)
    return [entry for part in found for entry in part]


def _measure(
    chosen: Recipe,
    checkpoint: Path | None,
    data: Any,
    stage: str,
    accelerator: str,
    devices: int,
    plan: BatchPlan,
) -> tuple[dict[str, float], dict[str, Any], list[dict[str, Any]]]:
    """Return the figures by name, the resolved recipe, and the rows of single classes."""
    task, config = build_task(
        chosen, num_classes=data.num_classes, structure_only=checkpoint is not None
    )
    join(task, data)
    if checkpoint is not None:
        load_task(task, checkpoint)
    watch = RankWatch(chosen.get("run.rank_timeout", RANK_TIMEOUT))
    trainer = build_trainer(
        chosen, accelerator=accelerator, devices=devices, plan=plan, callbacks=[watch], loggers=()
    )
    run = getattr(trainer, stage)
    found = run(task, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in found[0].items()}
    return metrics, config, getattr(task, "per_class", [])


def resolve(
    what: str | Path | None,
    recipe: str | Path | Recipe | None,
    weights: str | None,
    out: Path,
) -> tuple[Recipe, Path | None]:
    """Return the recipe and the checkpoint that are meant; no checkpoint for published weights.

    Raises:
        ZooError: If nothing is named, too much is, or it is not there.
    """
    if (what is None) == (recipe is None):
        raise ZooError(
            "name what to measure: a run or checkpoint (validate runs/last), or a recipe with "
            "weights (validate --recipe resnet50 --weights DEFAULT)"
        )
    if recipe is not None:
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        if weights is None:
            raise ZooError(
                f"--recipe {chosen.name} alone has nothing to measure; add --weights DEFAULT, "
                "--weights FILE, or name a run instead"
            )
        return chosen.with_overrides([("model.weights", weights)]), None
    if weights is not None:
        raise ZooError("--weights goes with --recipe; a run brings its own")
    path = Path(str(what))
    if path.suffix == ".ckpt":
        return recipe_of(path), path
    run: Run = find_run(path, out)
    if not run.best.is_file():
        raise ZooError(
            f"{run.path} has no checkpoint yet; train it with: "
            f"python -m lightning_zoo fit --recipe {run.state().recipe}"
        )
    return load_recipe(run.recipe_file).check(), run.best


def recipe_of(checkpoint: Path) -> Recipe:
    """Return the recipe that a checkpoint of ours carries.

    Raises:
        ZooError: If the file is missing, damaged or somebody else's.
    """
    ours = read_checkpoint(checkpoint).get("lightning_zoo")
    if not isinstance(ours, dict):
        raise ZooError(
            f"{checkpoint} was not made by lightning_zoo; give it to a recipe instead: "
            f"fit --model.weights {checkpoint}, validate --recipe NAME --weights {checkpoint}"
        )
    return Recipe(checkpoint.stem, checkpoint, ours["recipe"]).check()


def load_task(task: Any, checkpoint: Path) -> list[str]:
    """Load a checkpoint's weights into a task, strictly, and return its class names."""
    content = read_checkpoint(checkpoint)
    try:
        task.load_state_dict(content["state_dict"])
    except (KeyError, RuntimeError) as error:
        # torch names every tensor, one a line after a headline; two will do
        lines = [line.strip() for line in str(error).splitlines()]
        reason = " ".join(lines[1:3]) if len(lines) > 1 else lines[0]
        more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
        raise ZooError(f"{checkpoint} does not fit the recipe: {reason}{more}") from None
    return list(content.get("lightning_zoo", {}).get("class_names", []))
