"""Using a model on one's own images and videos: one file a task, joined here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_zoo.drawing import Tile, draw_grid, draw_tile
from lightning_zoo.engine.evaluate import load_task, recipe_of, resolve
from lightning_zoo.engine.predict.classification import (
    Prediction,
    classifier_of_run,
    published_classifier,
)
from lightning_zoo.engine.predict.detection import (
    DetectedObject,
    Detections,
    detector_of_run,
    published_detector,
)
from lightning_zoo.engine.predict.segmentation import (
    Segmentation,
    published_segmenter,
    segmenter_of_run,
)
from lightning_zoo.engine.predict.video import published_video_classifier, video_classifier_of_run
from lightning_zoo.engine.session import build_task, hush
from lightning_zoo.errors import ZooError
from lightning_zoo.models import get_entry, list_models
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.recipe import Recipe
from lightning_zoo.recipe.build import build
from lightning_zoo.runs import find_run, write_text
from lightning_zoo.transforms.decode import EXTENSIONS, DecodeError, read_image
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS

__all__ = ["TASKS", "DetectedObject", "Detections", "Prediction", "Segmentation", "find_files",
           "predict"]  # fmt: skip

# Tasks whose published models can be used here.
TASKS = ("classification", "detection", "quantization", "segmentation", "video")
# What a model can be given: the files' extensions, and what one of them is called.
KINDS = {"images": (EXTENSIONS, "an image"), "videos": (VIDEO_EXTENSIONS, "a video")}
GRID = 24


def predict(
    what: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    weights: str = "DEFAULT",
    threshold: float = 0.5,
    runs: str | Path = "runs",
    debug: bool = False,
    broken: list[str] | None = None,
) -> list[Any]:
    """Use a run, a checkpoint or a published model on images, or on videos.

    Args:
        what: A run (folder, ``last``, a recipe's name), a checkpoint, or a model's name.
        inputs: Files and folders, which are searched in depth; one of them may stand alone.
        out: Folder for ``predictions.json``, ``grid.png`` and one picture a file, of segmentation
            also ``<name>_mask.png`` with the label of each pixel; None for none.
        weights: With a model's name: which of its published weights, or a file.
        threshold: Detectors: the score from which an object counts as found.
        runs: Folder of the run folders.
        debug: Let Lightning speak.
        broken: List that takes one sentence for each file that cannot be read; without it, the
            first such file is an error.

    Returns:
        For each file a :class:`Prediction` of a classifier, :class:`Detections` of a detector, or
        a :class:`Segmentation`.

    Raises:
        ZooError: If there is no such run or model, or no file that it can be used on.
    """
    hush(debug)
    if not 0 <= threshold <= 1:
        raise ZooError(f"--threshold is {threshold}; expected a score from 0 to 1")
    source = find_source(what, Path(runs))
    # a text alone would be taken for a sequence of letters, and "/" for a folder
    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    files = find_files(inputs, source.takes, user=source.model)
    predictor = load_predictor(source, weights, threshold)
    read = predictor.read if source.task == "video" else read_image
    found: list[Any] = []
    tiles: list[Tile] = []
    names = _unique_names(files, ("", "_mask") if source.task == "segmentation" else ("",))
    folder = Path(out) if out is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for chunk in _chunks(_decoded(files, read, broken), predictor.batch):
        for (file, image), result in zip(chunk, predictor(chunk), strict=True):
            found.append(result)
            if folder is None:
                continue
            tile = predictor.tile(image, result)
            pictures = predictor.pictures(image, result)
            if "" not in pictures:
                pictures[""] = draw_tile(tile, 480)
            for ending, picture in pictures.items():
                picture.save(folder / f"{names[file]}{ending}.png")
            if len(tiles) < GRID:
                tiles.append(tile)
    if folder is not None:
        text = json.dumps([one.as_json() for one in found], indent=1, ensure_ascii=False)
        write_text(folder / "predictions.json", text + "\n")
        if tiles:
            draw_grid(tiles).save(folder / "grid.png")
    return found


@dataclass(frozen=True)
class Source:
    """Where a predictor comes from: a model of the zoo, or a run's recipe and checkpoint."""

    model: str
    task: str
    entry: ModelEntry | None = None
    recipe: Recipe | None = None
    checkpoint: Path | None = None

    @property
    def takes(self) -> str:
        """What it can be used on, one of ``KINDS``."""
        return "videos" if self.task == "video" else "images"


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


def load_predictor(source: Source, weights: str, threshold: float) -> Any:
    """Return what predicts.

    It is called with pairs of file and image and returns a result each; ``tile`` and ``pictures``
    draw a result, ``batch`` is how many images it takes at once. Of videos, ``read`` returns what
    stands in an image's place.
    """
    task, entry = source.task, source.entry
    if entry is not None:
        if task == "detection":
            return published_detector(entry, weights, threshold)
        makers: dict[str, Callable[[ModelEntry, str], Any]] = {
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
        return detector_of_run(trained, names, threshold)
    data = build(config["data"])
    of_run: dict[str, Callable[[Any, Any, Sequence[str]], Any]] = {
        "classification": classifier_of_run,
        "segmentation": segmenter_of_run,
        "video": video_classifier_of_run,
    }
    return of_run[task](trained, data, names)


def find_files(
    inputs: Sequence[str | Path], kind: str = "images", *, user: str = "this model"
) -> list[Path]:
    """Return the files that are named or lie in the folders named, sorted by folder.

    Args:
        inputs: Files and folders, which are searched in depth.
        kind: ``images`` or ``videos``, by their extensions.
        user: What they are for, for the error.

    Raises:
        ZooError: If something named is not there, nothing is found, or only files of another kind.
    """
    files: list[Path] = []
    for item in map(Path, inputs):
        if item.is_dir():
            files += [p for p in sorted(item.rglob("*")) if p.is_file() and _kind(p) is not None]
        elif item.is_file():
            files.append(item)
        else:
            raise ZooError(f"no file or folder at {str(item)!r}")
    named = {Path(item) for item in inputs}
    found = [file for file in files if file in named or _kind(file) == kind]
    if any(_kind(file) in (kind, None) for file in found):
        return list(dict.fromkeys(found))
    expected = ", ".join(sorted(KINDS[kind][0]))
    if other := files and _kind(files[0]):
        raise ZooError(
            f"{user} takes {kind} ({expected}), and {str(files[0])!r} is {KINDS[other][1]}; "
            f"name {kind}, or another model"
        )
    shown = ", ".join(str(i) for i in inputs) or "nothing"
    raise ZooError(f"no {kind} in {shown}; expected {expected} files")


def _kind(file: Path) -> str | None:
    """Return what a file is by its extension, None for anything else."""
    extension = file.suffix[1:].lower()
    return next((kind for kind, (known, _) in KINDS.items() if extension in known), None)


def _decoded(
    files: Sequence[Path], read: Callable[[Path], Any], broken: list[str] | None
) -> Iterator[tuple[Path, Any]]:
    for file in files:
        try:
            yield file, read(file)
        except DecodeError as error:
            if broken is None:
                raise
            broken.append(str(error))


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _unique_names(files: Sequence[Path], endings: Sequence[str] = ("",)) -> dict[Path, str]:
    """Return a picture name for each file: its stem, with a number where stems meet.

    Args:
        files: The files.
        endings: What follows the name, one for each picture of a file.
    """
    names: dict[Path, str] = {}
    used: set[str] = {"grid"}
    for file in files:
        name, n = file.stem, 2
        while not used.isdisjoint(name + ending for ending in endings):
            name, n = f"{file.stem}_{n}", n + 1
        used |= {name + ending for ending in endings}
        names[file] = name
    return names
