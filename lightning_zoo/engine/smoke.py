"""``--smoke``: the same run in two steps, on a few small images in the data set's real layout."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from lightning_zoo.models import get_entry
from lightning_zoo.recipe import Recipe
from lightning_zoo.recipe.schema import signature

CLASSES = 4
IMAGES = 8
STEP, PER_DEVICE = 4, 2
SIDE = 64
# What takes a detector's time beside the image, where it has such arguments
FEWER = {
    "rpn_post_nms_top_n_train": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_batch_size_per_image": 8,
    "box_detections_per_img": 3,
}


def shrink(recipe: Recipe, folder: Path, devices: int = 1) -> Recipe:
    """Return the recipe shrunk to two optimizer steps, with generated data in ``folder``.

    What is tried is the recipe's own model, optimizer, schedule and augmentation; what shrinks is
    the data, the image size (to what the model still takes), the objects that a detector looks at,
    the batch, the learning rate with it (linearly), and the number of epochs.
    """
    data = signature(recipe.config["data"]["class_path"])
    module = getattr(importlib.import_module(data.module), data.name)
    kind = {}
    if "target" in inspect.signature(module.write_fake).parameters:
        kind["target"] = recipe.get("data.target")
    module.write_fake(folder, classes=CLASSES, images=IMAGES, size=SIDE + 16, **kind)
    entry = get_entry(recipe.model)
    # the third dimension costs enough
    side = max(SIDE // 2 if entry.task == "video" else SIDE, entry.min_train_size)
    changes: list[tuple[str, Any]] = [
        ("data.root", str(folder)),
        ("model.num_classes", None),
        ("model.weights", None),
        ("batch.size", STEP * devices),
        ("batch.per_device", PER_DEVICE),
        ("trainer.max_epochs", 1),
        ("run.loggers", ["csv"]),
        ("run.checkpoint_steps", None),  # at the end alone: VGG writes a gigabyte each time
        ("run.pictures", 4),
    ]
    sizes: dict[str, Any] = {
        "train_crop": side,
        "eval_resize": side + side // 8,
        "eval_crop": side,
        "workers": 0,
        "labels_csv": None,
    }
    if "format" in data.parameters:  # the generated data has its own
        sizes |= {"format": "auto", "annotations": None}
    if recipe.is_int8:
        changes.append(("model.image_size", side))
    if recipe.get("trainer.limit_train_batches") is not None:
        changes.append(("trainer.limit_train_batches", None))
    if entry.task == "segmentation":
        sizes["train_resize"] = [side, 2 * side]
    if entry.task == "video":
        frame = [side + side // 8, side + side // 2]  # height and width
        sizes |= {"train_resize": frame, "eval_resize": frame}
        sizes |= {"train_clips": 1, "eval_clips": 2, "index_workers": 0}
    changes += [(f"data.{k}", v) for k, v in sizes.items() if k in data.parameters]
    task = signature(recipe.config["model"]["class_path"])
    if "multilabel" in task.parameters:
        changes.append(("model.multilabel", False))
    if "pretrained_backbone" in task.parameters:
        changes.append(("model.pretrained_backbone", False))
    if "keypoints" in task.parameters:  # those of the generated data
        changes.append(("model.keypoints", "coco_person"))
        if "keypoints" in data.parameters:
            changes.append(("data.keypoints", "coco_person"))
    takes = inspect.signature(entry.load_builder()).parameters
    if "min_size" in takes:  # it resizes by itself
        smaller = {"min_size": side, "max_size": 2 * side, **FEWER}
        args = {name: value for name, value in smaller.items() if name in takes}
        changes.append(("model.model_args", {**(recipe.get("model.model_args") or {}), **args}))
    lr = recipe.get("model.optimizer.lr")
    if lr is not None:  # the rate of a large batch would drive four images to infinity
        changes.append(("model.optimizer.lr", lr * STEP * devices / recipe.config["batch"]["size"]))
    return recipe.with_overrides(changes)
