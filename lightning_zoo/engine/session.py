"""The steps that fitting and evaluating share: devices, data, task, trainer, quiet."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_zoo.batch import BatchPlan, check_devices, counted, plan_batches
from lightning_zoo.callbacks import AtomicCheckpointIO
from lightning_zoo.engine.world import adopt_slurm, launched
from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.recipe import Recipe
from lightning_zoo.recipe.build import build
from lightning_zoo.recipe.trust import DATA, TASK

T = TypeVar("T")
Overrides = Mapping[str, Any] | Iterable[tuple[str, Any]]

# Seconds without progress on any rank that end a run; torch waits as long for a collective.
RANK_TIMEOUT = 1800

# What CocoDataModule can be asked for.
COCO_TARGETS = ("boxes", "masks", "keypoints")

# Lines of Lightning's that say nothing a person can act on here.
NOISE = (
    ".*does not have many workers.*",  # workers are the recipe's choice
    ".*Starting from v1.9.0, `tensorboardX`.*",  # csv is our own logger
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # lightning 2.6.6 on torch 2.13
    ".*sync_dist=True.*",  # our metrics are already summed over ranks
    ".*Found .* module\\(s\\) in eval mode.*",  # the averaged copy stays in eval mode
)


def as_pairs(overrides: Overrides) -> list[tuple[str, Any]]:
    """Return overrides as pairs of dotted key and value."""
    return list(overrides.items()) if isinstance(overrides, Mapping) else list(overrides)


def hush(debug: bool = False) -> None:
    """Keep Lightning's adverts and advice off the console; ``debug`` lets them through."""
    level = logging.INFO if debug else logging.WARNING
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(level)
    if not debug:
        for text in NOISE:
            warnings.filterwarnings("ignore", message=text)


@contextlib.contextmanager
def spared_by_the_collector() -> Iterator[None]:
    """Let garbage collection pass over all objects that are there now.

    A full round writes to each of them; on the pages that a loader's workers share with this
    process that would make a copy of every page, once, somewhere in the middle of a run.
    """
    if gc.get_freeze_count():  # somebody else's decision, and unfreeze would undo it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def count_devices(devices: int | str, accelerator: str) -> tuple[str, int]:
    """Return the accelerator and how many of its devices one machine contributes.

    Args:
        devices: A number, or ``"auto"``: every GPU, or one process on the CPU.
        accelerator: The recipe's ``trainer.accelerator``.

    Raises:
        ZooError: If there are fewer devices than asked for, or a launcher started other processes.
    """
    asked = check_devices(devices)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator == "auto":
        accelerator = "cuda" if gpus else "cpu"
    there = gpus if accelerator in ("cuda", "gpu") else None
    adopt_slurm()
    if "RANK" in os.environ:  # a launcher has started all processes already, maybe a single one
        started = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if asked not in (None, started):
            raise ZooError(
                f"--devices is {asked}, and the launcher started "
                f"{counted(started, 'process', 'es')} on this machine; leave --devices out, or "
                "set the launcher's own option"
            )
        asked = started
    if asked is None:
        return accelerator, there or 1
    if there is not None and asked > there:
        raise ZooError(f"--devices is {asked}, this machine has {there} of kind {accelerator}")
    return accelerator, asked


def count_nodes(recipe: Recipe) -> int:
    """Return the machines that train together: the launcher's, else this one alone.

    Raises:
        ZooError: If the recipe names another number.
    """
    asked = int(recipe.get("trainer.num_nodes", 1))
    world = launched()
    nodes = 1 if world is None else world.nodes
    if asked not in (1, nodes):
        raise ZooError(
            f"trainer.num_nodes is {asked}, and {counted(nodes, 'machine')} started this run; "
            "leave the key out and start it on all of them, see: python -m lightning_zoo launch "
            f"--recipe {recipe.name} --nodes {asked}"
        )
    return nodes


def plan_for(recipe: Recipe, devices: int, lr_rule: str = "fixed") -> BatchPlan:
    """Spread the recipe's batch over ``devices`` of each of its machines."""
    batch = recipe.config["batch"]
    total = devices * count_nodes(recipe)
    return plan_batches(batch["size"], batch["per_device"], total, lr_rule=lr_rule)


def from_first(make: Callable[[], T]) -> T:
    """Let the first of the processes that a launcher started decide, and tell the others.

    Args:
        make: Called on the first process alone, or on the only one.

    Raises:
        ZooError: What ``make`` raised, on the first process; the others leave without a word.
    """
    world = launched()
    if world is None:
        return make()
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group()
    answer: list[Any] = [None, False]
    error: ZooError | None = None
    if world.rank == 0:
        try:
            answer = [make(), False]
        except ZooError as caught:
            answer, error = [None, True], caught
    dist.broadcast_object_list(answer, src=0)
    if error is not None:
        raise error
    if answer[1]:
        raise SystemExit(2)
    return answer[0]


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    world = launched()
    return (getattr(rank_zero_only, "rank", 0) if world is None else world.rank) == 0


@contextlib.contextmanager
def shared_folder(variable: str) -> Iterator[Path]:
    """Yield a temporary folder; processes started meanwhile get the same one, by ``variable``."""
    if variable in os.environ:
        yield Path(os.environ[variable])
        return
    with tempfile.TemporaryDirectory(prefix="lightning_zoo_") as folder:
        os.environ[variable] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(variable, None)


def build_data(recipe: Recipe, plan: BatchPlan, stage: str, ledger: Path | None = None) -> Any:
    """Build the recipe's data module and set it up for one stage."""
    data = build(recipe.config["data"], (DATA,))
    data.configure(plan, seed=recipe.config.get("seed_everything", 0), ledger=ledger)
    data.setup(stage)
    return data


def build_task(
    recipe: Recipe, *, num_classes: int, structure_only: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Build the task for data of ``num_classes`` classes.

    Args:
        recipe: The recipe.
        num_classes: Number of classes in the data.
        structure_only: A checkpoint will bring all values, so that no file of weights is read.

    Returns:
        The task, and the resolved recipe in which the number of classes stands.

    Raises:
        ZooError: If the recipe names another number of classes than the data has.
    """
    config = copy.deepcopy(recipe.config)
    args = config["model"].setdefault("init_args", {})
    if args.get("num_classes") is None:
        args["num_classes"] = num_classes
    elif args["num_classes"] != num_classes:
        raise ZooError(
            f"model.num_classes is {args['num_classes']} and the data in "
            f"{recipe.get('data.root')!r} has {num_classes} classes; "
            "use --model.num_classes null to take the data's"
        )
    seed_everything(config.get("seed_everything", 0), verbose=False)
    with hub.structure_only() if structure_only else contextlib.nullcontext():
        return build(config["model"], (TASK,)), config


def join(task: Any, data: Any) -> None:
    """Tell the task the names of the data's classes.

    Raises:
        ZooError: If the data does not hold what the task learns from.
    """
    if getattr(task, "multilabel", data.multilabel) != data.multilabel:
        found = "several labels" if data.multilabel else "one label"
        raise ZooError(
            f"the data has {found} an image; use --model.multilabel {str(data.multilabel).lower()}"
        )
    needs, target = getattr(task, "needs", None), getattr(data, "target", None)
    if needs != target and not (needs == "boxes" and target in COCO_TARGETS):
        if needs not in COCO_TARGETS or target not in COCO_TARGETS:
            raise ZooError(f"{type(task).__name__} cannot learn from {type(data).__name__}")
        raise ZooError(
            f"data.target is {target!r} and the model needs {needs}; use --data.target {needs}"
        )
    if needs == "keypoints" and len(data.skeleton) != len(task.skeleton):
        raise ZooError(
            f"data.keypoints has {len(data.skeleton)} keypoints and model.keypoints "
            f"{len(task.skeleton)}; name the same skeleton in both"
        )
    task.class_names = data.class_names


def unfit_for_cpu(recipe: Recipe, accelerator: str, processes: int) -> dict[str, str]:
    """Return the trainer's arguments that a CPU cannot heed, and a sentence on each to be said."""
    if accelerator != "cpu":
        return {}
    trainer, found = recipe.config["trainer"], {}
    if str(trainer.get("precision")).startswith("16-"):
        found["precision"] = f"trainer.precision {trainer['precision']} is for GPUs: float32 here"
    if trainer.get("sync_batchnorm"):
        found["sync_batchnorm"] = (
            "trainer.sync_batchnorm is for GPUs: each process normalises over its own batch"
            if processes > 1
            else "trainer.sync_batchnorm has nothing to join in one process"
        )
    return found


def build_trainer(
    recipe: Recipe,
    *,
    accelerator: str,
    devices: int,
    plan: BatchPlan,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    steps_per_epoch: int = 50,
    folder: Path | None = None,
) -> Trainer:
    """Build Lightning's trainer with the recipe's arguments and those that are ours to give."""
    args: dict[str, Any] = {
        "log_every_n_steps": max(1, min(50, steps_per_epoch)),
        "num_sanity_val_steps": 1,
    }
    args |= recipe.config["trainer"]
    args["accelerator"] = accelerator
    args["num_nodes"] = count_nodes(recipe)
    for name in unfit_for_cpu(recipe, accelerator, plan.devices):
        del args[name]
    plugins: list[Any] = [AtomicCheckpointIO()]
    if launched() is not None:
        plugins.append(TorchElasticEnvironment())
    elif "SLURM_NTASKS" in os.environ and "RANK" not in os.environ:
        plugins.append(LightningEnvironment())  # in a SLURM job, but started by hand
    return Trainer(
        **args,
        devices=devices,
        accumulate_grad_batches=plan.accumulate,
        callbacks=list(callbacks),
        logger=list(loggers),
        plugins=plugins,
        default_root_dir=folder or os.curdir,
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
