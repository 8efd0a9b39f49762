"""From a folder of data to a measured model and a report, in one call.

statistics.py   sizes of images and objects
defaults.py     settings chosen from them, each with its reason
compose.py      the complete recipe
find_lr.py      a learning rate by trying rising ones
find_batch.py   a batch size by trying larger ones
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from lightning_zoo.batch import counted
from lightning_zoo.engine.finetune.compose import check_fit, compose, shown
from lightning_zoo.engine.finetune.defaults import Choice, Start, choose, follow_length
from lightning_zoo.engine.finetune.statistics import measure
from lightning_zoo.engine.fit import fit
from lightning_zoo.engine.session import Overrides, as_pairs, count_devices, hush
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, read_data
from lightning_zoo.formats.index import TaskName
from lightning_zoo.models import hub
from lightning_zoo.models.registry import ModelEntry, get_entry
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.runs import Run, find_run, newest_unfinished

__all__ = ["FinetunePlan", "FinetuneResult", "finetune", "plan_finetune"]


@dataclass(frozen=True)
class FinetunePlan:
    """What a fine-tuning run would do.

    Attributes:
        recipe: The complete recipe.
        index: The data.
        choices: The settings that were chosen, with their reasons; overridden ones are left out.
    """

    recipe: Recipe
    index: DataIndex
    choices: tuple[Choice, ...]

    def text(self) -> str:
        """Return what was decided, for the console."""
        index = self.index
        noun = "video" if index.task == "video" else "image"
        splits = ", ".join(f"{counted(len(index.of(s)), f'{s} {noun}')}" for s in index.splits)
        names = ", ".join(index.classes[:6]) + (" ..." if len(index.classes) > 6 else "")
        classes = counted(len(index.classes), "class", "es")
        lines = [f"data     {index.root}: {index.format}, {splits}, {classes} ({names})"]
        lines += [f"         {sentence}" for sentence in index.decisions]
        wrong = [p for p in index.problems if p.severity != "note"]
        if wrong:
            lines.append(
                f"         {counted(len(wrong), 'problem')}, the first in {wrong[0].where}: "
                f"{wrong[0].what}; see: python -m lightning_zoo data check {index.root}"
            )
        told = [choice for choice in self.choices if choice.why]
        lines += [
            f"{'chosen' if i == 0 else '':<9}--{c.key} {shown(c.value)}  ({c.why})"
            for i, c in enumerate(told)
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning came to.

    Attributes:
        run: The run's folder.
        metrics: Last figures by name, ``val/box_map50`` in per cent for instance.
        best: The best checkpoint.
        report: The HTML report; None where it was left out.
    """

    run: Path
    metrics: dict[str, float]
    best: Path
    report: Path | None


def plan_finetune(
    model: str,
    data: str | Path,
    overrides: Overrides = (),
    *,
    weights: str | None = None,
    format: str = "auto",
    val_share: float = 0.2,
    split_seed: int = 0,
    devices: int | str = "auto",
) -> FinetunePlan:
    """Look at the data and return the recipe; see :func:`finetune` for the arguments."""
    entry, pairs = _entry(model), as_pairs(overrides)
    how: dict[str, Any] = {"format": format, "val_share": val_share, "split_seed": split_seed}
    how |= {key[5:]: value for key, value in pairs if key.startswith("data.") and key[5:] in how}
    index = read_data(data, task=cast(TaskName, entry.task), **how)
    if Path(data).resolve() == index.root:
        index = dataclasses.replace(index, root=Path(data))  # for people: as they wrote it
    check_fit(entry, index)
    given = dict(pairs)
    if "model.weights" in given:
        weights = given["model.weights"] or "none"
    start, source = starting_weights(entry, weights)
    if start == "none" and any(key.startswith("model.finetuning") for key, _ in pairs):
        raise ZooError(
            f"--freeze_epochs holds layers that start from weights, and {entry.name} starts from "
            "none here; leave it out, or name --weights"
        )
    accelerator, _ = count_devices(devices, "auto")
    side = given.get("model.model_args.min_size")
    choices = choose(
        index,
        measure(index),
        entry,
        start=start,
        on_gpu=accelerator != "cpu",
        side=side if isinstance(side, int) and side > 0 else None,
    )
    settled = {c.key: c.value for c in choices} | given
    epochs, batch = settled["trainer.max_epochs"], settled["batch.size"]
    if isinstance(epochs, int) and isinstance(batch, int) and min(epochs, batch) > 0:
        steps = -(-len(index.of("train")) // batch)  # else the linter says what is wrong
        choices += follow_length(entry, epochs, steps)
    choices = [choice for choice in choices if choice.key not in given]
    recipe = compose(
        index,
        entry,
        choices,
        name=_run_name(entry, data),
        start=start,
        weights=source,
        read={"root": str(data), **how},
        command=shlex.join(["python", "-m", "lightning_zoo", *sys.argv[1:]])
        if sys.argv[1:2] == ["finetune"]
        else "lightning_zoo.finetune",
    )
    return FinetunePlan(recipe.with_overrides(pairs).check(), index, tuple(choices))


def finetune(
    model: str,
    data: str | Path,
    overrides: Overrides = (),
    *,
    weights: str | None = None,
    format: str = "auto",
    val_share: float = 0.2,
    split_seed: int = 0,
    batch: Literal["auto"] | None = None,
    find_lr: bool = False,
    resume: str | Path | None = None,
    devices: int | str = "auto",
    loggers: Sequence[str] | None = None,
    report: bool = True,
    out: str | Path = "runs",
    debug: bool = False,
    say: Callable[[str], None] = print,
) -> FinetuneResult:
    """Train a model of the zoo on one's own data, and write a report.

    The data's format is recognised (see :func:`lightning_zoo.formats.read_data`), the settings are
    chosen from the data, the model and the device, printed with their reasons, and written out as
    a complete recipe, ``<run>/recipe.yaml``. Classes that the starting weights know by name keep
    their part of the head.

    Args:
        model: Name of the network, see ``python -m lightning_zoo models ls``.
        data: Folder of the data.
        overrides: Keys of the recipe to set, ``{"trainer.max_epochs": 3}``.
        weights: ``"DEFAULT"`` or another published name, the path of a file, of a run or of its
            checkpoint, or ``"none"`` for random weights; None is DEFAULT where something is
            published, else a published backbone.
        format: Format of the data, ``"auto"`` to recognise it.
        val_share: Share of the training data that is kept for validation where it has no split.
        split_seed: Seed of that split.
        batch: ``"auto"`` tries which batch size fits; None takes the usual one.
        find_lr: Try rising learning rates first, and take the one that the curve suggests.
        resume: ``"auto"`` goes on with the newest unfinished run of this model and data; a run's
            folder goes on with that one. The settings are then those of its recipe.
        devices: Number of devices on this machine, or ``"auto"``.
        loggers: Of ``csv``, ``wandb``, ``tensorboard``; None takes the recipe's.
        report: Write ``<run>/report.html`` at the end.
        out: Folder of the run folders.
        debug: Let Lightning speak.
        say: What takes each line for people.

    Returns:
        The run's folder, figures and report.

    Raises:
        ZooError: If the data, the weights or the machine do not fit; nothing was begun then.
    """
    hush(debug)
    pairs = as_pairs(overrides)
    run = _run_to_resume(model, data, resume, Path(out), say)
    if run is not None:
        recipe = load_recipe(run.recipe_file).with_overrides(pairs).check()
        say(f"resume   {run.path}, with the settings of its recipe")
    else:
        plan = plan_finetune(
            model, data, pairs, weights=weights, format=format, val_share=val_share,
            split_seed=split_seed, devices=devices,
        )  # fmt: skip
        say(plan.text())
        recipe = plan.recipe
        if batch == "auto":
            recipe = _with_batch(recipe, devices, {key for key, _ in pairs}, say)
        if find_lr:
            recipe = _with_rate(recipe, devices, say)
    try:
        result = fit(
            recipe,
            resume=run.path if run is not None else None,
            devices=devices,
            loggers=loggers,
            out=out,
            debug=debug,
            advise=False,
        )
    except hub.NotDownloadedError as error:  # of a backbone, whose name only the network knows
        raise _missing(model, error) from None
    page = None
    if report:
        from lightning_zoo.report import make_report

        page = make_report(result.run, debug=debug)
        say(f"report   {page}")
    return FinetuneResult(result.run, result.metrics, result.best, page)


def starting_weights(entry: ModelEntry, weights: str | None) -> tuple[Start, str | None]:
    """Return what begins with weights, and which; a published file is fetched at once.

    Raises:
        ZooError: If the file is not there and cannot be had; the text says where to put it.
    """
    if weights in ("none", "null"):
        return "none", None
    if weights is None and not entry.weights:
        return ("backbone", None) if entry.task in ("detection", "segmentation") else ("none", None)
    name = weights or "DEFAULT"
    if (Path(name) / "run.json").is_file():
        name = str(Run(Path(name)).best)
    published, path = hub.weights_source(entry.name, entry, False, name)
    if published is not None and path is None:
        try:
            hub.fetch(published)
        except hub.NotDownloadedError as error:
            raise _missing(entry.name, error, published.file_size_mib) from None
    return "model", name


def _missing(model: str, error: hub.NotDownloadedError, mib: float | None = None) -> ZooError:
    size = f" ({mib:.0f} MiB)" if mib else ""
    return ZooError(
        f"{model} starts from {error.path.name}{size}, which is not in {error.path.parent} and "
        f"could not be downloaded: {error.reason}; put it there (from {error.url}), name a file of "
        "yours with --weights PATH, or start from random weights with --weights none"
    )


def _entry(model: str) -> ModelEntry:
    entry = get_entry(model)
    if entry.task == "quantization":
        raise ZooError(
            f"{entry.full_name} is an INT8 network; fine-tune {entry.name}, then: "
            "python -m lightning_zoo quantize runs/last"
        )
    return entry


def _run_to_resume(
    model: str,
    data: str | Path,
    resume: str | Path | None,
    out: Path,
    say: Callable[[str], None],
) -> Run | None:
    if resume is None:
        return None
    if str(resume) != "auto":
        return find_run(resume, out)
    name = _run_name(_entry(model), data)
    found = newest_unfinished(out, name)
    if found is None:
        say(f"nothing to resume for {name} in {out}/: a new run starts")
    return found


def _run_name(entry: ModelEntry, data: str | Path) -> str:
    path = Path(data).resolve()
    return f"{path.name if path.is_dir() else path.stem}_{entry.name}"


def _with_batch(
    recipe: Recipe, devices: int | str, given: set[str], say: Callable[[str], None]
) -> Recipe:
    from lightning_zoo.engine.finetune.find_batch import find_batch

    found = find_batch(recipe, devices=devices)
    say(found.table())
    changes: dict[str, Any] = {
        "batch.size": found.size,
        "batch.per_device": found.per_device,
    }
    return _changed(recipe, {key: v for key, v in changes.items() if key not in given})


def _with_rate(recipe: Recipe, devices: int | str, say: Callable[[str], None]) -> Recipe:
    from lightning_zoo.engine.finetune.find_lr import find_lr

    curve = find_lr(recipe, devices=devices)
    say(curve.table())
    return _changed(recipe, {"model.optimizer.lr": curve.suggestion})


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return the recipe with values that were found by trying, noted in its header."""
    notes = [f"{key} {value}: found by trying" for key, value in changes.items()]
    kept = tuple(line for line in recipe.header if line.split(" ")[0] not in changes)
    changed = recipe.with_overrides(changes.items())
    return dataclasses.replace(changed, header=(*kept, *notes))
