"""A complete recipe for a model and a folder of data: what ``fit --recipe`` reruns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_zoo.data_check.report import model_for
from lightning_zoo.engine.finetune.defaults import Choice, Start
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex
from lightning_zoo.keypoints import COCO_PERSON
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.recipe import Recipe

TASKS = {
    "classification": "ClassificationTask",
    "detection": "DetectionTask",
    "segmentation": "SegmentationTask",
    "video": "VideoTask",
}
DATA_MODULES = {
    "classification": "OwnImagesDataModule",
    "detection": "OwnObjectsDataModule",
    "segmentation": "OwnMasksDataModule",
    "video": "OwnVideosDataModule",
}


def target_of(entry: ModelEntry) -> str:
    """Return what a detector learns from: boxes, masks or keypoints."""
    if "keypoint" in entry.name:
        return "keypoints"
    return "masks" if "mask" in entry.name else "boxes"


def check_fit(entry: ModelEntry, index: DataIndex) -> None:
    """Refuse data that the model cannot learn from.

    Raises:
        ZooError: If the task differs, masks or keypoints are missing, or there is one class alone.
    """
    if index.task != entry.task:
        raise ZooError(
            f"{entry.name} is a {entry.task} model and {str(index.root)!r} holds data for "
            f"{index.task} ({index.format}); name a model for it, {model_for(index)} for instance"
        )
    if not index.of("train"):
        raise ZooError(
            f"{str(index.root)!r} has no training {'videos' if index.task == 'video' else 'images'}"
            f"; see: python -m lightning_zoo data check {index.root}"
        )
    if entry.task == "detection":
        needs, has = target_of(entry), index.target
        if not any(item.objects for item in index.of("train")):
            raise ZooError(
                f"no training image of {str(index.root)!r} has an object; see: "
                f"python -m lightning_zoo data check {index.root}"
            )
        if needs != "boxes" and needs != has and not (needs == "masks" and _has_masks(index)):
            raise ZooError(
                f"{entry.name} needs {needs} and the objects of {str(index.root)!r} have {has}; "
                f"name a model for {has}, {model_for(index)} for instance, or annotate {needs}"
            )
    elif len(index.classes) < 2 and not index.multilabel:
        raise ZooError(
            f"{str(index.root)!r} has the class {index.classes[0]!r} alone, and there is nothing "
            "to tell it from; add a folder of other images, 'other' for instance"
            if index.classes
            else f"{str(index.root)!r} has no class; see: python -m lightning_zoo data check "
            f"{index.root}"
        )


def _has_masks(index: DataIndex) -> bool:
    objects = [o for item in index.items for o in item.objects if not o.crowd]
    return bool(objects) and all(o.segmentation for o in objects)


def compose(
    index: DataIndex,
    entry: ModelEntry,
    choices: Sequence[Choice],
    *,
    name: str,
    start: Start,
    weights: str | None,
    read: dict[str, Any],
    command: str,
) -> Recipe:
    """Return the recipe.

    Args:
        index: The data.
        entry: The model.
        choices: Settings to put in.
        name: The recipe's name.
        start: What begins with weights.
        weights: Published name or file of the whole model's, None without.
        read: How the data is read: ``root``, ``format``, ``val_share``, ``split_seed``.
        command: Command line that made it, for the header.
    """
    model: dict[str, Any] = {"model": entry.name, "num_classes": None, "weights": weights}
    data = dict(read)
    task = TASKS[entry.task]
    if entry.task in ("detection", "segmentation"):
        model["pretrained_backbone"] = start == "backbone"
    if entry.task == "detection":
        data |= {"target": target_of(entry), "aspect_ratio_groups": None, "eval_batch": 1}
        data["augmentation"] = next((n for n in ("ssdlite", "ssd") if n in entry.name), "hflip")
        if target_of(entry) == "keypoints":
            task = "KeypointTask"
            model["keypoints"] = skeleton_of(index)
    elif entry.task == "classification":
        data["scale"] = [0.35, 1.0]
        model |= {"label_smoothing": 0.1, "multilabel": index.multilabel, "channels_last": True}
        if index.multilabel:
            model["label_smoothing"] = 0.0
        if entry.name in ("googlenet", "inception_v3"):
            model["aux_weight"] = 0.3
    elif entry.task == "segmentation":
        data["eval_batch"] = 1
    elif entry.task == "video":
        data |= {"train_clips": 2, "eval_clips": 5}
    if start != "none" or any(choice.key.startswith("model.finetuning.") for choice in choices):
        held = {"freeze_epochs": 1, "backbone_lr_factor": 0.1} if start != "none" else {}
        model["finetuning"] = {"class_path": "FineTuning", "init_args": held}
    model["optimizer"] = {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": 0.001, "weight_decay": 0.05},
    }
    model["lr_schedule"] = {
        "class_path": "CosineDecay",
        "init_args": {"by": "step", "warmup_epochs": 1, "warmup_factor": 0.1},
    }
    config = {
        "seed_everything": 0,
        "model": {"class_path": task, "init_args": model},
        "data": {"class_path": DATA_MODULES[entry.task], "init_args": data},
        "batch": {"size": 1, "per_device": 1},
        "trainer": {"max_epochs": 1, "gradient_clip_val": 10.0},
        "run": {"loggers": ["csv"], "pictures": 16},
    }
    splits = ", ".join(f"{len(index.of(split))} {split}" for split in index.splits)
    header = (
        f"{entry.name} on {index.root}: {command}",
        f"Source: chosen from the data ({index.format}: {splits}; {len(index.classes)} classes).",
        *(f"{choice.key} {shown(choice.value)}: {choice.why}" for choice in choices if choice.why),
    )
    recipe = Recipe(name, None, config, header)
    return recipe.with_overrides([(choice.key, choice.value) for choice in choices])


def shown(value: Any) -> str:
    """Return a setting's value as a person reads it."""
    if isinstance(value, dict) and "class_path" in value:
        args = ", ".join(f"{k} {v}" for k, v in value["init_args"].items())
        return f"{value['class_path'].rpartition('.')[2]}({args})"
    return "null" if value is None else str(value)


def skeleton_of(index: DataIndex) -> str | dict[str, Any]:
    """Return the skeleton of the data's keypoints as a recipe names it."""
    if index.keypoints == COCO_PERSON.names:
        return "coco_person"
    return {
        "names": list(index.keypoints),
        "flip_pairs": [list(pair) for pair in index.flip_pairs],
        "bones": [list(pair) for pair in index.bones],
    }
