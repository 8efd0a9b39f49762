"""The table of models: who builds each, what its published weights are and what they score.

The facts stand in ``facts/<task>.json`` and ``facts/classes/<name>.txt``; nothing here imports
torch, so that listings answer at once. Command line, README tables and tests are drawn from it.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning_zoo.errors import ZooError, unknown

FACTS = Path(__file__).parent / "facts"
# Names of labels that stand for no class: 0 is a detector's background, COCO's ids have gaps.
BACKGROUND, NO_CATEGORY = "__background__", "N/A"
NO_CLASS = (BACKGROUND, NO_CATEGORY, "")


@dataclass(frozen=True)
class Preprocessing:
    """What a published model expects of its images, or of the frames of its clips.

    Attributes:
        resize: Length in pixels that the shorter side is resized to (bilinear, antialiased for
            images), or height and width of the whole.
        crop: Side in pixels of the square cut from the centre; None where nothing is cut.
        mean: Per-channel mean (RGB, of values in [0, 1]) that is subtracted.
        std: Per-channel standard deviation that is divided by.
        clip_frames: Frames of a clip; None for images.
        frame_rate: Frames a second of a clip; None for images.
    """

    resize: int | tuple[int, int]
    crop: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    clip_frames: int | None = None
    frame_rate: float | None = None


@dataclass(frozen=True)
class Weights:
    """One published file of weights.

    Attributes:
        name: ``IMAGENET1K_V1`` or the like.
        url: Where the file is published; the hash prefix stands in its name.
        num_classes: Number of logits the file was trained for.
        classes: Name of the class list, see :attr:`class_names`.
        metrics: Published figures by name, in per cent: ``{"acc@1": 76.13, "acc@5": 92.862}``.
        preprocessing: What the images have to go through; None where the model does that itself.
        file_size_mib: Size of the file in MiB, where it is known.
        sha256_prefix: First hex digits of the file's SHA-256, where the name tells them.
        build_args: Constructor arguments that the file's layout needs (an auxiliary head, say).
        notes: What loading has to mind.
        backend: Engine that an INT8 file was made for; None for float weights.
    """

    name: str
    url: str
    num_classes: int
    classes: str
    metrics: Mapping[str, float]
    preprocessing: Preprocessing | None
    file_size_mib: float | None = None
    sha256_prefix: str | None = None
    build_args: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    backend: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return self.url.rsplit("/", 1)[1]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return class_names(self.classes)


@dataclass(frozen=True)
class ModelEntry:
    """One model of the zoo.

    Attributes:
        name: Constructor's name, ``resnet50``.
        task: ``classification``, ``segmentation``, ``detection``, ``video`` or ``quantization``.
        builder: ``"module:function"`` of the constructor.
        num_params: Parameters of the published network; where there is none, with the default
            arguments.
        min_size: Smallest image side in pixels that passes through.
        min_train_size: The same in training, where auxiliary heads want more.
        weights: Published files by name, oldest first.
        pretrained: Name of the weights that ``pretrained=True`` loads, None where there are none.
        default: Name of the weights that ``weights="DEFAULT"`` loads: the best published.
        recipe: Name of the recipe that trains the model, None where there is none: the model takes
            its parts from its arguments.
        paper: Address of the paper.
    """

    name: str
    task: str
    builder: str
    num_params: int
    min_size: int
    min_train_size: int
    weights: Mapping[str, Weights]
    pretrained: str | None
    default: str | None
    recipe: str | None
    paper: str

    @property
    def full_name(self) -> str:
        """Name that is this model's alone: ``quantization/resnet50`` beside the classifier's."""
        is_shared = self.task != "classification" and ("classification", self.name) in registry()
        return f"{self.task}/{self.name}" if is_shared else self.name

    def load_builder(self) -> Callable[..., Any]:
        """Import and return the constructor (this imports torch)."""
        module, function = self.builder.split(":")
        return getattr(importlib.import_module(module), function)

    def get_weights(self, name: str | None = None) -> Weights:
        """Return the weights called ``name`` (``"DEFAULT"`` or None: the best published).

        Raises:
            ZooError: If nothing is published for this model or nothing under this name.
        """
        if self.default is None:
            remedy = (
                f"train it with: python -m lightning_zoo fit --recipe {self.recipe}"
                if self.recipe
                else "train it, or pass a file of your own as weights="
            )
            raise ZooError(f"no published weights for {self.full_name}; {remedy}")
        name = self.default if name in (None, "DEFAULT") else name
        if name not in self.weights:
            raise unknown(f"weights of {self.full_name}", str(name), self.weights)
        return self.weights[name]


def _weights(name: str, facts: dict[str, Any]) -> Weights:
    pre = facts.get("preprocessing")
    if pre is not None:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in pre.items()}
        pre = Preprocessing(**values)
    return Weights(
        **{k: v for k, v in facts.items() if k not in {"preprocessing", "metrics", "notes"}},
        name=name,
        metrics=MappingProxyType(facts["metrics"]),
        preprocessing=pre,
        notes=tuple(facts.get("notes", ())),
    )


@functools.cache
def registry() -> Mapping[tuple[str, str], ModelEntry]:
    """Return all models by (task, name), in the order of the published tables."""
    table: dict[tuple[str, str], ModelEntry] = {}
    for path in sorted(FACTS.glob("*.json")):
        for name, facts in json.loads(path.read_text()).items():
            weights = {n: _weights(n, w) for n, w in facts.pop("weights").items()}
            table[path.stem, name] = ModelEntry(
                name=name, task=path.stem, weights=MappingProxyType(weights), **facts
            )
    return MappingProxyType(table)


@functools.cache
def class_names(name: str) -> tuple[str, ...]:
    """Return the class list called ``name`` (``imagenet1k``: 1000 names in the logits' order)."""
    path = FACTS / "classes" / f"{name}.txt"
    if not path.is_file():
        raise unknown("class list", name, [p.stem for p in path.parent.glob("*.txt")])
    return tuple(path.read_text(encoding="utf-8").splitlines())


def real_classes(names: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    """Return the names that stand for a class by their labels; a sequence is counted from 0."""
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {label: name for label, name in pairs if name not in NO_CLASS}


def tasks() -> list[str]:
    """Return the tasks that have models."""
    return sorted({task for task, _ in registry()})


def list_models(task: str | None = None, *, contains: str = "") -> list[str]:
    """Return the names of the models, of one task or of all, that have ``contains`` in them.

    Of all tasks, each name is one model's alone: see :attr:`ModelEntry.full_name`.
    """
    if task is not None and task not in tasks():
        raise unknown("task", task, tasks())
    entries = [entry for entry in registry().values() if task in (None, entry.task)]
    names = [entry.full_name if task is None else entry.name for entry in entries]
    return [name for name in names if contains in name]


def get_entry(name: str, task: str | None = None) -> ModelEntry:
    """Return the table's row of one model.

    A name that several tasks share (a network and its quantized form) is the classifier's; the
    others are asked for with ``task`` or as ``"quantization/resnet50"``.

    Raises:
        ZooError: If there is no such model; the text names the nearest.
    """
    asked, prefix = name, ""
    if "/" in name and task is None:
        task, name = name.split("/", 1)
        prefix = f"{task}/"
    if task is not None and task not in tasks():
        raise unknown("task", task, tasks())
    for key in sorted(registry(), key=lambda key: key[0] != "classification"):
        if key[1] == name and task in (None, key[0]):
            return registry()[key]
    listed = [prefix + known for known in list_models(task)]
    raise unknown("model", asked, listed, "see: python -m lightning_zoo models ls")


def get_weights(model: str, name: str | None = None) -> Weights:
    """Return a model's published weights: metrics, preprocessing, class names, address."""
    return get_entry(model).get_weights(name)
