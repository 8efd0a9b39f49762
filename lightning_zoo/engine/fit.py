from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_zoo.batch import BatchPlan, counted
from lightning_zoo.callbacks import (
    SIGNALS,
    Checkpoints,
    Console,
    NotFiniteRecord,
    PredictionPictures,
    RankWatch,
    RunRecord,
    StopOnSignal,
)
from lightning_zoo.engine.evaluate import recipe_of
from lightning_zoo.engine.session import (
    RANK_TIMEOUT,
    Overrides,
    as_pairs,
    build_data,
    build_task,
    build_trainer,
    count_devices,
    count_nodes,
    from_first,
    hush,
    is_first,
    join,
    plan_for,
    spared_by_the_collector,
    unfit_for_cpu,
)
from lightning_zoo.engine.smoke import shrink
from lightning_zoo.errors import Stopped, ZooError, unknown
from lightning_zoo.loggers import MetricsCsv, build_loggers
from lightning_zoo.models.registry import real_classes
from lightning_zoo.optim import Length
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.recipe.lint import LOGGERS
from lightning_zoo.run_lock import RunLock
from lightning_zoo.runs import (
    Run,
    RunState,
    create_run,
    find_run,
    newest_unfinished,
    read_checkpoint,
)

# The first process tells those that it starts which folder is theirs.
RUN_VARIABLE = "LIGHTNING_ZOO_RUN"
CHECKPOINT_STEPS = 1000
# With another value of one of these, a recipe's reference figures say nothing about the run.
WHAT_IS_MEASURED = ("model.class_path", "model.model", "model.num_classes", "data.class_path")


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        run: The run's folder.
        metrics: Last figures by name, ``val/acc@1`` in per cent for instance.
        best: The best checkpoint.
        skipped: Broken files that were skipped, by path; they stand in the run's ledger.
    """

    run: Path
    metrics: dict[str, float]
    best: Path
    skipped: tuple[str, ...] = ()


def fit(
    recipe: str | Path | Recipe,
    overrides: Overrides = (),
    *,
    smoke: bool = False,
    resume: str | Path | None = None,
    devices: int | str = "auto",
    loggers: Sequence[str] | None = None,
    lr_rule: str = "fixed",
    out: str | Path = "runs",
    debug: bool = False,
    advise: bool = True,
) -> FitResult:
    """Train what a recipe says and leave a run folder behind.

    Args:
        recipe: A recipe's name, the path of a recipe's file, or a loaded recipe.
        overrides: Keys to replace, ``{"model.optimizer.lr": 0.01}``.
        smoke: Shrink the run to two steps on generated data.
        resume: ``"auto"`` continues the newest run of the recipe that did not finish and has
            saved, if there is one; a run folder or a checkpoint continues that one.
        devices: Number of devices on this machine, or ``"auto"``: every GPU, or the CPU.
        loggers: Of ``csv``, ``wandb``, ``tensorboard``; None takes the recipe's.
        lr_rule: ``"fixed"`` keeps the images of a step by accumulating gradients; ``"linear"``
            takes one forward pass a step and scales the learning rate.
        out: Folder of the run folders.
        debug: Let Lightning speak.
        advise: Say at the end what to do next.

    Returns:
        The run's folder and its figures.

    Raises:
        ZooError: If the recipe, the data or the machine does not fit; nothing was begun then.
        Stopped: If SIGTERM or SIGUSR1 came; the last step is saved.
        KeyboardInterrupt: If Ctrl-C was pressed; the last step is saved too.
    """
    hush(debug)
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = _own(chosen, chosen.with_overrides(as_pairs(overrides)).check())
    for name in loggers or ():
        if name not in LOGGERS:
            raise unknown("--logger", name, LOGGERS)
    wanted = loggers if loggers is not None else chosen.get("run.loggers", [])
    if "tensorboard" in wanted and importlib.util.find_spec("tensorboard") is None:
        raise ZooError(
            "--logger tensorboard needs the package tensorboard; install it with: "
            "pip install tensorboard"
        )
    with contextlib.ExitStack() as stack:
        if smoke:  # every process of the run makes the same files for itself
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lightning_zoo_"))
            _, count = count_devices(devices, str(chosen.get("trainer.accelerator", "auto")))
            devices_in_all = count * count_nodes(chosen)
            chosen = shrink(chosen, Path(folder), devices=devices_in_all).check()
        # of a smoke run there is nothing to measure: its data is gone
        return _fit(chosen, resume, devices, loggers, lr_rule, Path(out), advise and not smoke)


def _fit(
    recipe: Recipe,
    resume: str | Path | None,
    devices: int | str,
    loggers: Sequence[str] | None,
    lr_rule: str,
    out: Path,
    advise: bool,
) -> FitResult:
    accelerator, count = count_devices(devices, str(recipe.get("trainer.accelerator", "auto")))
    plan = plan_for(recipe, count, lr_rule)
    with contextlib.ExitStack() as stack:
        checkpoint, run_before = from_first(lambda: _find_resume(recipe, resume, out, stack))
        if checkpoint is not None:
            if not checkpoint.is_file():
                raise ZooError(
                    f"{checkpoint} is not there on {platform.node()}; --out must name a folder "
                    "that all machines share"
                )
            recipe_of(checkpoint)  # refuses a damaged file before a run is begun
        return _train(
            stack, recipe, accelerator, count, plan, checkpoint, run_before, loggers, out, advise
        )


def _train(
    stack: contextlib.ExitStack,
    recipe: Recipe,
    accelerator: str,
    devices: int,
    plan: BatchPlan,
    checkpoint: Path | None,
    run_before: Run | None,
    loggers: Sequence[str] | None,
    out: Path,
    advise: bool,
) -> FitResult:
    data = build_data(recipe, plan, "fit")
    task, config = build_task(
        recipe, num_classes=data.num_classes, structure_only=checkpoint is not None
    )
    join(task, data)
    length = run_length(
        recipe,
        plan.steps_per_epoch(data.num_train_samples, drop_last=data.drop_last),
        plan.accumulate,
    )
    if checkpoint is not None:
        _check_length(length, checkpoint)
    seed = config.get("seed_everything", 0)
    task.configure(length, batch_size=plan.size, lr_scale=plan.lr_scale, seed=seed)

    data.make_sampler(data.datasets["train"], plan)  # refuses too few samples, before a run begins
    first = is_first()
    run = _open(run_before, recipe, config, out, stack)
    data.configure(plan, seed=seed, ledger=run.ledger)
    settings = {
        "checkpoint_steps": CHECKPOINT_STEPS,
        "pictures": 16,
        "rank_timeout": RANK_TIMEOUT,
        **config.get("run", {}),
    }
    names = loggers if loggers is not None else settings.get("loggers", ["csv"])
    logged = {**config, "batch_arithmetic": plan.explain(unit=task.unit)}
    made = build_loggers(names, run, title=recipe.name, config=logged) if first else []
    if first:
        unfit = unfit_for_cpu(recipe, accelerator, plan.devices)
        _introduce(recipe, config, run, plan, length, data, task, names, checkpoint, unfit)
    for logger in made:
        if isinstance(logger, MetricsCsv) and checkpoint is not None:
            logger.forget_after(int(read_checkpoint(checkpoint)["global_step"]))
    metric, mode = task.monitor
    checkpoints = Checkpoints(
        run.checkpoints, monitor=metric, mode=mode, every_steps=settings["checkpoint_steps"]
    )
    watch = RankWatch(settings["rank_timeout"], on_end=run.fail)
    trainer = build_trainer(
        recipe,
        accelerator=accelerator,
        devices=devices,
        plan=plan,
        callbacks=[
            NotFiniteRecord(run, config, data.class_names),
            watch,
            Console(plan.per_device * plan.devices, unit=task.unit),
            RunRecord(run, config, data.class_names),
            PredictionPictures(run, settings["pictures"]),
            checkpoints,
            StopOnSignal(checkpoints, tell=watch.tell_signal),
        ],
        loggers=made,
        steps_per_epoch=length.steps_per_epoch,
        folder=run.path,
    )
    started_by_us = RUN_VARIABLE not in os.environ
    os.environ[RUN_VARIABLE] = str(run.path)  # for the processes that the trainer starts
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    stack.enter_context(spared_by_the_collector())
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except (Stopped, SystemExit) as leave:
        # Lightning answers a second Ctrl-C by leaving Python in silence
        on_ctrl_c = isinstance(leave.__context__, KeyboardInterrupt)
        if isinstance(leave, SystemExit) and not on_ctrl_c:
            raise
        if not first and not started_by_us:
            # Lightning kills the first process when one that it started ends with an error
            raise SystemExit(0) from None
        if first:
            print(_how_to_go_on(run))  # noqa: T201
        if on_ctrl_c or (isinstance(leave, Stopped) and leave.number == signal.SIGINT):
            raise KeyboardInterrupt from None
        raise
    finally:
        if started_by_us:
            del os.environ[RUN_VARIABLE]
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for logger in made:
            _finish(logger)
    result = _conclude(run, data, trainer.is_global_zero)
    if trainer.is_global_zero and advise:
        _advise(run, recipe, "VIDEOS" if task.unit == "clip" else "PHOTOS")
    return result


def _check_length(length: Length, checkpoint: Path) -> None:
    """Refuse a run that is over before it goes on."""
    done = int(read_checkpoint(checkpoint)["global_step"])
    if done > length.steps_per_epoch * length.epochs:
        raise ZooError(
            f"{checkpoint} has made {counted(done, 'step')} and the run would end after "
            f"{length.epochs} x {length.steps_per_epoch}; raise --trainer.max_epochs, or start a "
            "new run without --resume"
        )


def _how_to_go_on(run: Run) -> str:
    if not run.last.is_file():
        return "stopped before the first checkpoint; the same command starts anew"
    return "go on from here with the same command and --resume auto"


def _own(recipe: Recipe, changed: Recipe) -> Recipe:
    """Return the changed recipe, without a reference that was measured on other data or classes."""
    if all(changed.get(key) == recipe.get(key) for key in WHAT_IS_MEASURED):
        return changed
    config = {name: part for name, part in changed.config.items() if name != "reference"}
    return dataclasses.replace(changed, config=config)


def _open(
    run: Run | None,
    recipe: Recipe,
    config: dict[str, Any],
    out: Path,
    stack: contextlib.ExitStack,
) -> Run:
    """Return the folder of a run that starts, or of one that goes on; the first process makes it.

    Args:
        run: The run that goes on, locked already; None for a new one.
        recipe: Its recipe.
        config: The resolved recipe.
        out: Folder of the run folders.
        stack: Gives the lock back at the end.
    """
    if RUN_VARIABLE in os.environ:  # started by the first process
        return Run(Path(os.environ[RUN_VARIABLE]))

    def make() -> Run:
        if run is None:
            new = create_run(out, recipe.name, config, recipe.header)
            stack.enter_context(RunLock(new.path))
            return new
        run.clear_leftovers()
        run.update(
            status="running",
            finished=None,
            error=None,
            process=os.getpid(),
            host=platform.node(),
            command=sys.argv,
        )
        return run

    made = from_first(make)
    if not made.recipe_file.is_file():
        raise ZooError(
            f"the run folder {made.path} is not there on {platform.node()}; --out must name a "
            "folder that all machines share"
        )
    return made


def run_length(recipe: Recipe, steps_per_epoch: int, accumulate: int) -> Length:
    """Return the run's optimizer steps an epoch and its epochs, the trainer's limits heeded."""
    limit = recipe.get("trainer.limit_train_batches")
    if isinstance(limit, float):
        steps_per_epoch = max(1, int(steps_per_epoch * accumulate * limit) // accumulate)
    elif isinstance(limit, int):
        steps_per_epoch = min(steps_per_epoch, -(-limit // accumulate))
    epochs, steps = recipe.get("trainer.max_epochs"), recipe.get("trainer.max_steps", -1)
    if epochs is None or epochs < 0:
        epochs = -(-steps // steps_per_epoch)
    return Length(steps_per_epoch, epochs)


def _find_resume(
    recipe: Recipe, resume: str | Path | None, out: Path, stack: contextlib.ExitStack
) -> tuple[Path | None, Run | None]:
    """Return the checkpoint to go on from and the run that it belongs to, locked."""
    if resume is None:
        return None, None
    if RUN_VARIABLE in os.environ:
        run = Run(Path(os.environ[RUN_VARIABLE]))  # the first process has looked already
        last = Path(resume) if Path(resume).is_file() else run.last
        return (last if last.is_file() else None), run
    if str(resume) == "auto":
        found = newest_unfinished(out, recipe.name)
        if found is None:
            print(f"nothing to resume for {recipe.name} in {out}/: a new run starts")  # noqa: T201
            return None, None
        stack.enter_context(RunLock(found.path))
        return found.last, found
    path = Path(resume)
    if path.is_file():
        folder = path.resolve().parent.parent
        if not (folder / "run.json").is_file():
            return path, None
        stack.enter_context(RunLock(folder))
        return path, Run(folder)
    run = find_run(resume, out)
    if not run.last.is_file():
        raise ZooError(f"{run.path} has no checkpoint to resume from; start anew without --resume")
    stack.enter_context(RunLock(run.path))
    return run.last, run


def _introduce(
    recipe: Recipe,
    config: dict[str, Any],
    run: Run,
    plan: Any,
    length: Length,
    data: Any,
    task: Any,
    loggers: Sequence[str],
    checkpoint: Path | None,
    unfit: Mapping[str, str],
) -> None:
    """Say what is about to happen, in a few lines."""
    say = print
    params = sum(p.numel() for p in task.model.parameters())
    names = data.class_names
    classes = len(names) if task.counts_background else len(real_classes(names))
    say(
        f"recipe   {recipe.name}: {recipe.model}, {params / 1e6:.1f} M parameters, "
        f"{counted(classes, 'class', 'es')}, "
        f"{counted(data.num_train_samples, f'training {task.unit}')}"
    )
    reference = config.get("reference") or {}
    known = {k: reference[k] for k in ("devices", "per_device") if k in reference}
    say(f"batch    {plan.explain(known if len(known) == 2 else None, unit=task.unit)}")
    say(f"length   {counted(length.epochs, 'epoch')} x {counted(length.steps_per_epoch, 'step')}")
    if plan.size >= 2 * data.num_train_samples:
        say(
            f"note     a step takes every {task.unit} {plan.size / data.num_train_samples:.1f} "
            f"times; --batch.size {plan.per_device} makes more steps of an epoch"
        )
    for sentence in unfit.values():
        say(f"CPU      {sentence}")
    for name in recipe.foreign:
        say(f"trusted  {name}: code of its own runs (--trust)")
    report = getattr(task.model, "load_report", None)
    for i, line in enumerate(task.explain_finetuning() or ([str(report)] if report else [])):
        say(f"{'' if i else 'weights':<9}{line}")
    say(f"run      {run.path} ({', '.join(dict.fromkeys(['csv', *loggers]))})")
    if checkpoint is not None:
        say(f"resumed  from {checkpoint}")


def _finish(logger: Any) -> None:
    """Close a logger; W&B writes its files to the end."""
    from lightning.pytorch.loggers import WandbLogger

    if isinstance(logger, WandbLogger):
        from lightning_zoo.loggers.wandb import finish

        finish(logger)


def _advise(run: Run, recipe: Recipe, inputs: str) -> None:
    """Say what to do next; of INT8, the table takes the place of validation."""
    verb = "quantize" if recipe.is_int8 else "validate"
    print(f"next: python -m lightning_zoo {verb} {run.path}")  # noqa: T201
    print(f"      python -m lightning_zoo predict {run.path} {inputs} --out out/")  # noqa: T201


def _conclude(run: Run, data: Any, first: bool) -> FitResult:
    state: RunState = run.state()
    skipped = tuple(entry["file"] for entry in data.read_ledger())
    if first:
        if skipped:
            print(f"{counted(len(skipped), 'file')} left out, see {run.ledger}")  # noqa: T201
        print(f"best checkpoint: {run.best}")  # noqa: T201
    return FitResult(run.path, state.results, run.best, skipped)
