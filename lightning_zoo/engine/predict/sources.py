"""What predicts: a run, a checkpoint or a published model, found by name and loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from lightning_zoo.drawing import Tile
from lightning_zoo.engine.evaluate import load_task, recipe_of, resolve
from lightning_zoo.engine.predict.classification import classifier_of_run, published_classifier
from lightning_zoo.engine.predict.detection import detector_of_run, published_detector
from lightning_zoo.engine.predict.results import ImageResult
from lightning_zoo.engine.predict.segmentation import published_segmenter, segmenter_of_run
from lightning_zoo.engine.predict.thresholds import Thresholds
from lightning_zoo.engine.predict.video import published_video_classifier, video_classifier_of_run
from lightning_zoo.engine.session import build_task
from lightning_zoo.models import get_entry, list_models
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.recipe import Recipe
from lightning_zoo.recipe.build import build
from lightning_zoo.runs import find_run

# Tasks whose published models can be used here.
TASKS = ("classification", "detection", "quantization", "segmentation", "video")


class Predictor(Protocol):
    """A network with all that it takes to use it.

    Attributes:
        batch: How many images it takes at once.
        class_names: Name of each of the network's labels.
    """

    batch: int
    class_names: Sequence[str]

    def __call__(self, images: Sequence[tuple[Path, Any]], /) -> Sequence[ImageResult]:
        """Return a result for each pair of file and image, uint8 ``(H, W, 3)``.

        What takes videos has a method ``read``, whose answer stands in the image's place.
        """

    def tile(self, image: Any, result: Any, /) -> Tile:
        """Return the image with its result, for a grid."""

    def pictures(self, image: Any, result: Any, /) -> dict[str, Image.Image]:
        """Return pictures by the ending of their name; "" is drawn from the tile if missing."""


@dataclass(frozen=True)
class Source:
    """Where a predictor comes from: a model of the zoo, or a run's recipe and checkpoint."""

    model: str
    task: str
    entry: ModelEntry | None = None
    recipe: Recipe | None = None
    checkpoint: Path | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it can be used on; models of images take videos frame by frame."""
        return ("videos",) if self.task == "video" else ("images", "videos")


def find_source(what: str | Path, runs: Path) -> Source:
    """Return what is meant by a run, a checkpoint or a model's name.

    Raises:
        ZooError: If there is no such thing, or no checkpoint in it.
    """
    models = list_models()
    if str(what) in models:
        entry = get_entry(str(what))
        return Source(entry.name, entry.task, entry=entry)
    if Path(what).suffix != ".ckpt":
        what = find_run(what, runs, models).path
    recipe, checkpoint = resolve(what, None, None, runs)
    return Source(recipe.model, get_entry(recipe.model).task, recipe=recipe, checkpoint=checkpoint)


def load_predictor(source: Source, weights: str, thresholds: Thresholds) -> Predictor:
    """Load the network and what belongs to it."""
    task, entry = source.task, source.entry
    if entry is not None:
        if task == "detection":
            return published_detector(entry, weights, thresholds)
        makers: dict[str, Callable[[ModelEntry, str], Predictor]] = {
            "classification": published_classifier,
            "quantization": published_classifier,
            "segmentation": published_segmenter,
            "video": published_video_classifier,
        }
        return makers[task](entry, weights)
    assert source.recipe is not None
    assert source.checkpoint is not None
    config = recipe_of(source.checkpoint).config
    classes = config["model"]["init_args"]["num_classes"]
    trained, config = build_task(source.recipe, num_classes=classes, structure_only=True)
    names = load_task(trained, source.checkpoint)
    trained.eval()
    if task == "detection":
        return detector_of_run(trained, names, thresholds)
    data = build(config["data"])
    if task == "segmentation":
        return segmenter_of_run(trained, data, names)
    if task == "video":
        return video_classifier_of_run(trained, data, names)
    return classifier_of_run(trained, data, names, thresholds)
