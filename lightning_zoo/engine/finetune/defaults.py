"""Settings of a fine-tuning run, chosen from the data, the model and the device; each says why."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

from lightning_zoo.engine.finetune.statistics import Statistics, anchor_recall, anchor_sizes
from lightning_zoo.formats import DataIndex
from lightning_zoo.models.registry import ModelEntry

Start = Literal["none", "model", "backbone"]

# Optimizer steps that small data sets come far with: on a GPU, and on a CPU with light and heavy
# networks, where they take some minutes.
STEPS_GPU, STEPS_CPU, STEPS_CPU_HEAVY = 3000, 600, 300
HEAVY = 20_000_000  # parameters
EPOCHS = (8, 200)
VALIDATIONS = 10
# Network's own length of the shorter side, where it resizes by itself and any length will do.
LARGE_SIDE, MOBILE_SIDE = 800, 320
SMALL_OBJECT = 16  # pixels that an object should have at the network's input
RATIOS = (0.5, 1.0, 2.0)
# Fewer candidates: a CPU spends most of its time on them, and small scenes do not need them.
FEWER_PROPOSALS = {
    "rpn_batch_size_per_image": 128,
    "rpn_pre_nms_top_n_train": 500,
    "rpn_post_nms_top_n_train": 200,
    "rpn_pre_nms_top_n_test": 500,
    "rpn_post_nms_top_n_test": 150,
    "box_batch_size_per_image": 64,
}
# Momentum of batch norms that were made for very long runs, by a part of the networks' names; after
# SETTLED / momentum steps less than a hundredth of the first statistics is left.
SLOW_NORMS = {"mnasnet": 3e-4, "mobilenet_v3": 0.01, "lraspp": 0.01}
SETTLED = 5
# Networks without norms, which a rate of 0.001 drives to infinity from random weights.
WITHOUT_NORMS = ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "squeezenet", "ssd300_vgg16")


@dataclass(frozen=True)
class Choice:
    """One setting.

    Attributes:
        key: Key of the recipe, ``init_args`` left out: ``model.optimizer.lr``.
        value: Its value.
        why: What it was chosen from; empty where there is nothing to say.
    """

    key: str
    value: Any
    why: str = ""


def choose(
    index: DataIndex,
    sizes: Statistics,
    entry: ModelEntry,
    *,
    start: Start,
    on_gpu: bool,
    side: int | None = None,
) -> list[Choice]:
    """Return the settings for a data set and a model.

    Args:
        index: The data.
        sizes: What was measured of its training split.
        entry: The model.
        start: What begins with published or own weights: nothing, the model, or its backbone.
        on_gpu: Whether a GPU trains.
        side: Of a detector: length of the images' shorter side in pixels, where it is given.
    """
    batch = _batch(entry, sizes.images, on_gpu)
    choices = [*_image_size(sizes, entry, on_gpu=on_gpu, given=side)]
    if entry.task == "detection":
        side = next((c.value for c in choices if c.key == "model.model_args.min_size"), 0)
        choices += _anchors(sizes, entry, side, start)
        if not on_gpu and "rcnn" in entry.name:
            choices += [
                Choice(f"model.model_args.{key}", value, "CPU: candidates take time")
                for key, value in FEWER_PROPOSALS.items()
            ]
    if _sided(index):
        choices.append(_without_flip(index))
    where = "GPU" if on_gpu else "CPU"
    choices.append(Choice("batch.size", batch, f"{where}, {sizes.images} training {_noun(index)}s"))
    choices.append(Choice("batch.per_device", batch))
    epochs, why = _epochs(entry, sizes.images, batch, on_gpu)
    choices.append(Choice("trainer.max_epochs", epochs, why))
    rate, why = _rate(entry, start)
    choices.append(Choice("model.optimizer.lr", rate, why))
    workers = 0 if not on_gpu and (os.cpu_count() or 1) <= 2 else min(4, (os.cpu_count() or 2) // 2)
    choices.append(Choice("data.workers", workers, f"{os.cpu_count()} CPU cores"))
    return choices


def _noun(index: DataIndex) -> str:
    return "video" if index.task == "video" else "image"


def _batch(entry: ModelEntry, images: int, on_gpu: bool) -> int:
    usual = {
        "classification": (32, 16),
        "detection": (8, 4),
        "segmentation": (8, 4),
        "video": (8, 4),
    }[entry.task]
    size = usual[0] if on_gpu else usual[1]
    if entry.task == "detection" and entry.num_params > HEAVY and not on_gpu:
        size = 2
    while size > 2 and size * 4 > images:  # at least four steps of an epoch
        size //= 2
    return size


def _epochs(entry: ModelEntry, images: int, batch: int, on_gpu: bool) -> tuple[int, str]:
    heavy = entry.num_params > HEAVY or entry.task == "video"
    steps = STEPS_GPU if on_gpu else STEPS_CPU_HEAVY if heavy else STEPS_CPU
    per_epoch = math.ceil(images / batch)
    epochs = min(max(round(steps / per_epoch), EPOCHS[0]), EPOCHS[1])
    every = max(1, epochs // VALIDATIONS)
    epochs = epochs // every * every  # so that the last epoch is measured
    return epochs, f"about {epochs * per_epoch:,} steps of {per_epoch} an epoch"


def follow_length(entry: ModelEntry, epochs: int, steps_per_epoch: int) -> list[Choice]:
    """Return the settings that follow from the run's length, whoever chose it."""
    every = max(n for n in range(1, max(1, epochs // VALIDATIONS) + 1) if epochs % n == 0)
    choices = [Choice("model.lr_schedule.warmup_epochs", 1 if epochs >= 5 else epochs / 5)]
    if every > 1:
        why = "a measurement each tenth of the run"
        choices.append(Choice("trainer.check_val_every_n_epoch", every, why))
    own = next((momentum for part, momentum in SLOW_NORMS.items() if part in entry.name), 1.0)
    if epochs * steps_per_epoch * own < SETTLED:
        why = f"the network's own, {own:g}, takes longer than the run to follow the data"
        choices.append(Choice("model.finetuning.norm_momentum", 0.1, why))
    return choices


def _rate(entry: ModelEntry, start: Start) -> tuple[float, str]:
    if start == "none":
        if entry.name.startswith(WITHOUT_NORMS) and not entry.name.endswith("_bn"):
            return 1e-4, "random weights, a network without norms"
        return (5e-4 if entry.task == "detection" else 1e-3), "random weights"
    return 3e-4, f"the {start} starts from weights: a small rate keeps what they know"


def _image_size(
    sizes: Statistics, entry: ModelEntry, *, on_gpu: bool, given: int | None
) -> list[Choice]:
    if entry.task == "classification":
        return _crops(sizes, entry, on_gpu)
    if entry.task == "segmentation":
        return _mask_crops(sizes, on_gpu)
    if entry.task != "detection" or entry.name.startswith("ssd"):
        return []  # of one size by themselves
    own = MOBILE_SIDE if "_320_" in entry.name else LARGE_SIDE
    if not sizes.short:
        return []
    side, why = own, "the network's own"
    if not on_gpu and own > MOBILE_SIDE:
        side, why = MOBILE_SIDE, "CPU: larger takes long"
    if given is not None:
        side = given
    elif len(sizes.boxes):
        # the size at which one object in ten is smaller than SMALL_OBJECT
        small = sorted(float(math.sqrt(w * h)) for w, h in sizes.boxes)[len(sizes.boxes) // 10]
        wanted = min(_round_up(SMALL_OBJECT / small), 2 * sizes.short, 640 if not on_gpu else 1333)
        if wanted > side:
            side = _round_up(wanted)
            why = f"a tenth of the objects is smaller than {small * sizes.short:.0f} pixels"
    longer = _round_up(side * min(max(sizes.ratio, 1.0), 2.0))
    return [
        Choice("model.model_args.min_size", side, why),
        Choice("model.model_args.max_size", longer, f"sides of up to {sizes.ratio:.2f} to 1"),
    ]


def _crops(sizes: Statistics, entry: ModelEntry, on_gpu: bool) -> list[Choice]:
    published = next((w.preprocessing for w in entry.weights.values() if w.preprocessing), None)
    crop = published.crop if published and published.crop else 224
    why = "that of the published weights"
    if not on_gpu and crop > 160:
        crop, why = max(160, _round_up(entry.min_train_size)), "CPU: larger takes long"
    if sizes.short and sizes.short < crop:
        crop = max(_round_up(sizes.short), _round_up(entry.min_train_size))
        why = f"the images' shorter sides are about {sizes.short} pixels"
    return [
        Choice("data.train_crop", crop, why),
        Choice("data.eval_crop", crop),
        Choice("data.eval_resize", round(crop * 8 / 7), "as the published figures were measured"),
    ]


def _mask_crops(sizes: Statistics, on_gpu: bool) -> list[Choice]:
    crop = 480 if on_gpu else 256
    why = "GPU" if on_gpu else "CPU: larger takes long"
    if sizes.short and sizes.short < crop:
        crop = max(_round_up(sizes.short), 64)
        why = f"the images' shorter sides are about {sizes.short} pixels"
    return [
        Choice("data.train_crop", crop, why),
        Choice("data.train_resize", [crop, 2 * crop]),
        Choice("data.eval_resize", round(crop * 5 / 4), "near the middle of training's sizes"),
    ]


def _anchors(sizes: Statistics, entry: ModelEntry, side: int, start: Start) -> list[Choice]:
    """Return anchors where the network's own miss the objects; with weights they stay theirs."""
    if start == "model" or "rcnn" not in entry.name or not len(sizes.boxes) or not side:
        return []
    boxes = sizes.boxes * side
    usual = (32, 64, 128, 256, 512)
    before = anchor_recall(boxes, usual, RATIOS)
    found = anchor_sizes(boxes, len(usual))
    after = anchor_recall(boxes, found, RATIOS)
    if before >= 0.9 or after <= before:
        return []
    why = f"{after:.0%} of the objects fit one, {before:.0%} the usual 32 to 512"
    if not entry.weights:  # the generic networks take plain sizes, one for each map
        return [Choice("model.model_args.anchor_sizes", found, why)]
    each = [found] * 3 if "mobilenet" in entry.name else [[size] for size in found]
    generator = {
        "class_path": "lightning_zoo.models.detection.anchors.AnchorGenerator",
        "init_args": {"sizes": each, "aspect_ratios": [list(RATIOS)] * len(each)},
    }
    return [Choice("model.model_args.rpn_anchor_generator", generator, why)]


def _sided(index: DataIndex) -> bool:
    """Whether a class has a side, which a mirror image would change."""
    words = {word for name in index.classes for word in name.lower().replace("-", "_").split("_")}
    words |= {word for name in index.classes for word in name.lower().split()}
    return bool(words & {"left", "right"})


def _without_flip(index: DataIndex) -> Choice:
    why = "classes called left or right: no mirror images"
    if index.task == "detection":
        return Choice("data.augmentation", None, why)
    return Choice("data.flip", 0.0, why)


def _round_up(value: float) -> int:
    """Return the next multiple of 32."""
    return math.ceil(value / 32) * 32
