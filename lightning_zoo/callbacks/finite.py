"""Keeps what a loss that is no finite number was computed from, for the verb ``replay``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_zoo import __version__, nonfinite
from lightning_zoo.errors import NotFiniteError
from lightning_zoo.runs import Run, dump, write_text
from lightning_zoo.tasks.finite import Evidence

ABOUT = (
    "A loss or gradient of this step was not finite. batch.pt is the batch as the task was given "
    "it, state.pt the network before the step; both load with torch.load(weights_only=True). "
    "python -m lightning_zoo replay FOLDER says which module, sample and annotation it came from."
)


class NotFiniteRecord(Callback):
    """Writes a folder (see :mod:`lightning_zoo.nonfinite`) when a loss is no finite number.

    It stands before the callbacks that note how a run ended: the error names the folder then.

    Args:
        run: The run's folder.
        config: The resolved recipe.
        class_names: Names of the classes, in the order of the logits.
    """

    def __init__(self, run: Run, config: dict[str, Any], class_names: Sequence[str]) -> None:
        self.run, self.config, self.class_names = run, config, list(class_names)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep the batch and the state, on the rank whose loss it was."""
        if not isinstance(exception, NotFiniteError) or exception.evidence is None:
            return
        folder = nonfinite.folder_of_step(
            self.run,
            exception.evidence.step,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        try:
            self._write(folder, trainer, pl_module, exception.evidence)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
            exception.args = (f"{exception}; the batch could not be kept in {folder}: {error}",)
        else:
            exception.args = (f"{exception}; see python -m lightning_zoo replay {folder}",)
        exception.evidence = None  # its graph takes memory

    def _write(self, folder: Path, trainer: Trainer, task: Any, evidence: Evidence) -> None:
        """Write all files beside, then give the folder its name."""
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            torch.save({"batch": plain(evidence.batch)}, temporary / nonfinite.BATCH)
            torch.save(_state(task, evidence), temporary / nonfinite.STATE)
            write_text(temporary / nonfinite.RECIPE, dump(_config(self.config, task)))
            facts = _facts(trainer, task, evidence)
            facts["class_names"] = self.class_names
            write_text(temporary / nonfinite.FACTS, json.dumps(facts, indent=2) + "\n")
            shutil.rmtree(folder, ignore_errors=True)  # of the same step, before a resume
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _config(config: dict[str, Any], task: Any) -> dict[str, Any]:
    """Return the recipe; a skeleton that lies in a file beside the data is written out in it."""
    skeleton = getattr(task, "skeleton", None)
    if skeleton is None:
        return config
    content = {
        "names": list(skeleton.names),
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
        "bones": [list(pair) for pair in skeleton.bones],
        "sigmas": list(skeleton.sigmas),
    }
    node = config["model"]
    return {
        **config,
        "model": {**node, "init_args": {**node["init_args"], "keypoints": content}},
    }


def _state(task: Any, evidence: Evidence) -> dict[str, Any]:
    seed = 0 if evidence.seed is None else evidence.seed
    rng = {"cpu": torch.Generator().manual_seed(seed).get_state()}
    if task.device.type == "cuda":
        rng["cuda"] = torch.Generator(task.device).manual_seed(seed).get_state()
    modules = list(task.model.named_modules())
    return {
        "state_dict": {
            name: value.detach().cpu() for name, value in task.model.state_dict().items()
        },
        # flags that are no part of the state: frozen layers, and norms that stay as they are
        "evaluating": [name for name, module in modules if not module.training],
        "still": [name for name, p in task.model.named_parameters() if not p.requires_grad],
        "norms_frozen": bool(getattr(task.model, "norms_frozen", False)),
        "rng": rng,
        "loss": evidence.loss.detach().cpu(),
        "terms": {name: value.detach().cpu() for name, value in evidence.terms.items()},
    }


def _facts(trainer: Trainer, task: Any, evidence: Evidence) -> dict[str, Any]:
    optimizer = trainer.optimizers[0] if trainer.optimizers else None
    data = getattr(trainer, "datamodule", None)
    return {
        "about": ABOUT,
        "what": evidence.what,
        "epoch": evidence.epoch,
        "step": evidence.step,
        "batch_idx": evidence.batch_idx,
        "loss": str(evidence.loss.item()),  # JSON has no nan
        "terms": {name: str(value.item()) for name, value in evidence.terms.items()},
        "parameters": list(evidence.parameters),
        "ids": evidence.ids,
        "files": files_of(data, evidence.ids),
        "earlier": list(evidence.earlier),
        "seed": evidence.seed,
        "lr": optimizer.param_groups[0]["lr"] if optimizer is not None else None,
        "rank": trainer.global_rank,
        "world_size": trainer.world_size,
        "accumulate": trainer.accumulate_grad_batches,
        "device": task.device.type,
        "gpu": torch.cuda.get_device_name() if task.device.type == "cuda" else None,
        "precision": str(trainer.precision),
        "joined_norms": any(isinstance(m, torch.nn.SyncBatchNorm) for m in task.model.modules()),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "torch": torch.__version__,
        "lightning_zoo": __version__,
    }


def files_of(data: Any, ids: Sequence[str | int]) -> list[str]:
    """Return the file of each training sample; its id, where that names the file already."""
    dataset = getattr(data, "datasets", {}).get("train")
    index, images = getattr(dataset, "index", None), getattr(dataset, "images", None)
    numbers = getattr(index, "image_ids", None)
    if dataset is None or numbers is None or images is None:
        return [str(one) for one in ids]
    places = {int(numbers[image]): place for place, image in enumerate(images)}
    return [dataset.name(places[one]) if one in places else str(one) for one in ids]


def plain(value: Any) -> Any:
    """Return a batch on the CPU as what ``torch.load`` reads without running code."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
