"""One small run of each task, and ways to make its loss a number that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_detectors import write_recipe

import lightning_zoo as lz
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.datamodules.base import ZooDataModule
from lightning_zoo.engine.moving import write_moving
from lightning_zoo.engine.scenes import write_masks, write_scenes
from lightning_zoo.tasks import Task

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}
RUN = {"loggers": ["csv"], "checkpoint_steps": 1, "pictures": 0}
TRAINER = {"max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 0}
TASKS = ("classification", "boxes", "masks", "keypoints", "segmentation", "video")

Change = Callable[[dict[str, Any], int], None]


@dataclass(frozen=True)
class Case:
    """A run that can be made.

    Attributes:
        recipe: The recipe's file.
        pixels: Name of the images in a batch.
    """

    recipe: Path
    pixels: str


def make_case(task: str, folder: Path) -> Case:
    """Write data and recipe of a task into a folder."""
    root = folder / "data"
    if task in ("boxes", "masks", "keypoints"):
        write_scenes(root, train=8, val=2, side=64, kites=task == "keypoints")
        return Case(write_recipe(folder, task, root=root, run=RUN, trainer=TRAINER), "image")
    data: dict[str, Any] = {"root": str(root), "workers": 0}
    args: dict[str, Any] = {"optimizer": SGD}
    if task == "classification":
        ImageFolderDataModule.write_fake(root, classes=3, images=12, size=40)
        data |= {"train_crop": 32, "eval_resize": 32, "eval_crop": 32}
        args |= {"model": "shufflenet_v2_x0_5", "mixup_alpha": 0.2, "ema_decay": 0.9}
    elif task == "segmentation":
        write_masks(root, train=8, val=2, side=48)
        data |= {"train_resize": [48, 64], "train_crop": 48, "eval_resize": None, "eval_batch": 1}
        args |= {"model": "fcn", "aux_loss": True,
                 "model_args": {"backbone": "resnet18", "output_stride": 8}}  # fmt: skip
    else:
        write_moving(root, train=2, val=1, side=32, frames=12)
        data |= {"clip_frames": 4, "frame_rate": 7.5, "train_clips": 1, "eval_clips": 1,
                 "train_resize": [30, 34], "train_crop": 24, "eval_resize": [30, 34],
                 "eval_crop": 24, "index_workers": 0}  # fmt: skip
        args |= {"model": "video_resnet",
                 "model_args": {"conv": "2plus1d", "layers": [1, 1], "widths": [4, 8]}}  # fmt: skip
    names = {
        "classification": ("ClassificationTask", "ImageFolderDataModule"),
        "segmentation": ("SegmentationTask", "MaskFolderDataModule"),
        "video": ("VideoTask", "VideoFolderDataModule"),
    }[task]
    recipe = {
        "seed_everything": 0,
        "model": {"class_path": names[0], "init_args": args},
        "data": {"class_path": names[1], "init_args": data},
        "batch": {"size": 4, "per_device": 2},
        "trainer": TRAINER,
        "run": RUN,
    }
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return Case(path, "video" if task == "video" else "image")


def spoil_batch(patch: pytest.MonkeyPatch, number: int, change: Change) -> None:
    """Change one training batch of the next run, counted from 0, on its way to the task."""
    seen = []

    def transfer(self: ZooDataModule, batch: dict[str, Any], index: int) -> dict[str, Any]:
        if self.trainer is not None and self.trainer.training:
            if len(seen) == number:
                change(batch, 1)
            seen.append(batch["id"])
        return batch

    patch.setattr(ZooDataModule, "on_before_batch_transfer", transfer)


def spoil_pixels(name: str) -> Change:
    """Return a change that puts nan into one sample's pixels, which turn into floats for it."""

    def change(batch: dict[str, Any], sample: int) -> None:
        if isinstance(batch[name], list):
            batch[name][sample] = batch[name][sample].float() / 255
            batch[name][sample][:, 3, 5] = torch.nan
        else:
            batch[name] = batch[name].float()
            batch[name][sample, ..., 3, 5] = torch.nan

    return change


def spoil_box(*box: float) -> Change:
    """Return a change that gives the last object of a sample another box."""

    def change(batch: dict[str, Any], sample: int) -> None:
        target = batch["target"][sample]
        target["boxes"] = target["boxes"].clone()
        target["boxes"][-1] = torch.tensor(box)

    return change


def spoil_weights(patch: pytest.MonkeyPatch, step: int, name: str) -> None:
    """Put nan into a parameter when an optimizer step begins."""
    begin = Task.on_train_batch_start

    def spoilt(self: Task, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == step:
            with torch.no_grad():
                self.model.get_parameter(name).view(-1)[0] = torch.nan
        begin(self, batch, batch_idx)

    patch.setattr(Task, "on_train_batch_start", spoilt)


def fit(case: Case, out: Path, overrides: dict[str, Any] | None = None, **more: Any) -> Path:
    """Run a case; return the run's folder."""
    return lz.fit(case.recipe, overrides or {}, out=out, advise=False, **more).run
