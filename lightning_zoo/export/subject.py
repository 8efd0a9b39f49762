"""What is exported: a run's or a published model's network, its facts, and pixels to try it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo import __version__
from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.engine.evaluate import load_task, recipe_of
from lightning_zoo.engine.predict import Source
from lightning_zoo.engine.session import build_task
from lightning_zoo.errors import ZooError
from lightning_zoo.export.detection import DetectorGraph
from lightning_zoo.export.graphs import ClassifierGraph, SegmenterGraph
from lightning_zoo.models.registry import ModelEntry, Weights, get_entry
from lightning_zoo.recipe.build import build
from lightning_zoo.runs import read_checkpoint
from lightning_zoo.tasks.base import IMAGENET_MEAN, IMAGENET_STD
from lightning_zoo.tasks.video import KINETICS_MEAN, KINETICS_STD

NO_WEIGHTS = "none"
PROGRAM = "int8.pt2"
INPUTS = {"detection": "image", "video": "clips"}  # others: "images"
# Height and width of a detector's example; its graph is for every size.
DETECTOR_SIZE = (320, 448)
CLIP_FRAMES = 16


@dataclass
class Subject:
    """What is exported.

    Attributes:
        graph: The module that is traced; takes one uint8 tensor, returns tensors by name.
        eager: What the file has to agree with, called likewise.
        task: ``classification``, ``segmentation``, ``detection`` or ``video``.
        facts: What goes into the file beside the network, as JSON.
        size: Height and width of the images that it is traced with.
        frames: Frames of a clip; None for images.
        samples: Returns at most so many images (clips) of the validation split, uint8.
    """

    graph: nn.Module
    eager: Callable[[Tensor], dict[str, Tensor]]
    task: str
    facts: dict[str, Any]
    size: tuple[int, int]
    frames: int | None = None
    samples: Callable[[int], list[Tensor]] = field(default=lambda count: [])

    @property
    def input(self) -> str:
        """Name of the input."""
        return INPUTS.get(self.task, "images")

    def example(self, size: tuple[int, int] | None = None, *, batch: int = 2) -> Tensor:
        """Return random pixels of a size, one image without a batch for a detector."""
        height, width = size or self.size
        shape: tuple[int, ...] = (3, height, width)
        if self.frames is not None:
            shape = (3, self.frames, height, width)
        if self.task != "detection":
            shape = (batch, *shape)
        return torch.randint(0, 256, shape, dtype=torch.uint8)


def find_subject(
    source: Source, weights: str, *, size: tuple[int, int] | None, apply_thresholds: bool
) -> Subject:
    """Return what a run, a checkpoint or a published model gives to export.

    Args:
        source: Where it comes from.
        weights: With a model: published name, a file, or ``none`` for random ones.
        size: Height and width to trace with; None for those that it is evaluated at.
        apply_thresholds: Drop detections below the threshold of their class inside the file.

    Raises:
        ZooError: If there is nothing that can be exported.
    """
    if source.task == "quantization":
        raise ZooError(
            f"quantization/{source.model} holds torch's old quantized operations, which nothing "
            f"exports; python -m lightning_zoo quantize {source.model} makes a run that can be"
        )
    if source.entry is not None:
        found = _published(source.entry, weights)
    else:
        found = _of_run(source, apply_thresholds=apply_thresholds)
    if apply_thresholds and not (source.task == "detection" and found.facts["thresholds"]):
        raise ZooError(
            f"--apply_thresholds: {source.model} has no thresholds; they come from the report of a "
            "detector's run: python -m lightning_zoo report RUN"
        )
    found.facts["thresholds_applied"] = apply_thresholds
    if size is not None:
        found.size = size
    # torch cannot write weights in channels-last order without a warning
    found.graph.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    found.graph.requires_grad_(False)
    _try(found, get_entry(source.model, source.task).min_size)
    return found


def _try(subject: Subject, least: int) -> None:
    """Refuse a size that the network cannot take, before the long work begins."""
    height, width = subject.size
    try:
        with torch.inference_mode():
            subject.graph(subject.example())
    except Exception as error:
        if min(height, width) >= least and not isinstance(error, ZooError):
            raise
        raise ZooError(
            f"--size {height},{width}: {subject.facts['model']} cannot take images of {height} x "
            f"{width} pixels; expected sides of at least {least}"
        ) from None


def _facts(
    model: str, task: str, classes: Sequence[str], *, thresholds: Mapping[str, float] | None = None,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    facts = {"lightning_zoo": __version__, "model": model, "task": task, "classes": list(classes)}
    return {**facts, "thresholds": dict(thresholds or {}), **more}


def _published(entry: ModelEntry, weights: str) -> Subject:
    """Return a model of the zoo, with published weights, those of a file, or random ones."""
    if weights == NO_WEIGHTS:
        torch.manual_seed(0)
        has_backbone = entry.task in ("detection", "segmentation")
        args = {"pretrained_backbone": False} if has_backbone else {}
        model = entry.load_builder()(weights=None, **args)
    else:
        model = entry.load_builder()(weights=weights)
    published: Weights | None = None
    if entry.weights:
        published = entry.get_weights(weights if weights in entry.weights else None)
    return published_subject(entry, model, published, weights=weights)


def published_subject(
    entry: ModelEntry, model: nn.Module, published: Weights | None, *, weights: str
) -> Subject:
    """Return what a model that was built already gives to export.

    Args:
        entry: The model's row in the registry.
        model: The network.
        published: Weights whose facts hold for it; None where none are published.
        weights: What its weights are called.
    """
    task = entry.task
    classes = published.class_names if published is not None else ()
    facts = _facts(entry.name, task, classes, weights=weights, recipe=entry.recipe)
    facts["thresholds_applied"] = False
    model = model.eval()
    if task == "detection":
        return Subject(DetectorGraph(model), _detect(model, None), task, facts, DETECTOR_SIZE)
    pre = published.preprocessing if published is not None else None
    defaults = (KINETICS_MEAN, KINETICS_STD) if task == "video" else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (pre.mean, pre.std) if pre is not None else defaults
    resize = pre.resize if pre is not None else 256
    crop = pre.crop if pre is not None else 224
    frames = None
    if task == "video":
        frames = (pre.clip_frames if pre is not None else None) or CLIP_FRAMES
        facts["frame_rate"] = pre.frame_rate if pre is not None else None
    return _pixel_subject(model, task, facts, mean, std, resize, crop, frames=frames)


def _of_run(source: Source, *, apply_thresholds: bool) -> Subject:
    """Return what a run trained, with the weights that ``predict`` takes."""
    assert source.recipe is not None
    assert source.checkpoint is not None
    config = recipe_of(source.checkpoint).config
    classes = config["model"]["init_args"]["num_classes"]
    trained, config = build_task(source.recipe, num_classes=classes, structure_only=True)
    names = load_task(trained, source.checkpoint)
    trained.eval()
    ours = read_checkpoint(source.checkpoint)["lightning_zoo"]
    facts = _facts(
        source.model, source.task, names, thresholds=ours.get("thresholds"),
        recipe=source.recipe.name, weights=source.checkpoint.name,
    )  # fmt: skip

    def samples(count: int) -> list[Tensor]:
        return _validation_images(config, source.task, count)

    if source.task == "detection":
        least = None
        if apply_thresholds:
            least = torch.tensor([facts["thresholds"].get(name, 0.0) for name in names])
        graph, eager = DetectorGraph(trained.model, least), _detect(trained.model, least)
        return Subject(graph, eager, "detection", facts, DETECTOR_SIZE, samples=samples)
    data = build(config["data"])
    mean = tuple((trained.mean / 255).tolist())
    std = tuple((1 / (trained.scale * 255)).tolist())
    transform = data.eval_transform
    network: nn.Module = trained.model
    if type(trained).__name__ == "QuantizationTask":
        from lightning_zoo import int8

        network = int8.load(source.checkpoint.parents[1] / PROGRAM)[0]
        facts["int8"] = True
    found = _pixel_subject(
        network, source.task, facts, mean, std, transform.resize,
        getattr(transform, "crop", None), frames=getattr(data, "clip_frames", None),
        multilabel=getattr(trained, "multilabel", False),
    )  # fmt: skip
    if found.frames is not None:
        found.facts["frame_rate"] = data.frame_rate
    found.samples = samples
    return found


def _pixel_subject(
    network: nn.Module,
    task: str,
    facts: dict[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    resize: int | Sequence[int],
    crop: int | None,
    *,
    frames: int | None = None,
    multilabel: bool = False,
) -> Subject:
    kind = SegmenterGraph if task == "segmentation" else ClassifierGraph
    graph = kind(network, mean, std, multilabel=multilabel)
    if not facts.get("int8"):
        graph = graph.eval()
    facts |= {"mean": list(mean), "std": list(std), "multilabel": multilabel}
    facts |= {"resize": resize if isinstance(resize, int) else list(resize), "crop": crop}
    if frames is not None:
        facts["clip_frames"] = frames
    side = crop or (resize if isinstance(resize, int) else min(resize))
    per_channel = (1, 3, *[1] * (2 if frames is None else 3))
    centre, spread = torch.tensor(mean).view(per_channel), torch.tensor(std).view(per_channel)

    def eager(images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            found = network((images.float() / 255 - centre) / spread)
        if task == "segmentation":
            return {"logits": found["out"], "labels": found["out"].argmax(1).to(torch.uint8)}
        return {"probs": found.sigmoid() if multilabel else found.softmax(dim=1)}

    return Subject(graph, eager, task, facts, (side, side), frames)


def _detect(model: nn.Module, thresholds: Tensor | None) -> Callable[[Tensor], dict[str, Tensor]]:
    def eager(image: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            found = model([image])[0]
        if thresholds is not None:
            keep = found["scores"] >= thresholds[found["labels"]]
            found = {name: value[keep] for name, value in found.items()}
        return found

    return eager


def _validation_images(config: dict[str, Any], task: str, count: int) -> list[Tensor]:
    """Return the first images of the validation split; none where the data is not there."""
    key = "video" if task == "video" else "image"
    data = build(config["data"])
    try:
        data.setup("validate")
    except (ZooError, OSError):
        return []
    dataset = data.datasets["val"]
    samples = (dataset[SampleKey(0, i, 0)] for i in range(min(count, len(dataset))))
    return [sample[key] for sample in samples if isinstance(sample, dict)]


def read_images(folder: Path, task: str) -> list[Tensor]:
    """Return photos of a folder as uint8 ``(3, H, W)``, for detectors."""
    import numpy as np

    from lightning_zoo.engine.predict import find_files
    from lightning_zoo.transforms.decode import read_image

    images = (read_image(file) for file in find_files([folder]))
    return [torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1))) for i in images]
