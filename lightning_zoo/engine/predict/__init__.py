"""Using a model on one's own images: one file a task, joined here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
from lightning_zoo.engine.session import build_task, hush
from lightning_zoo.errors import ZooError
from lightning_zoo.models import get_entry, list_models
from lightning_zoo.recipe.build import build
from lightning_zoo.runs import find_run, write_text
from lightning_zoo.transforms.decode import EXTENSIONS, DecodeError, read_image

__all__ = ["TASKS", "DetectedObject", "Detections", "Prediction", "find_images", "predict"]

# Tasks whose published models can be used here.
TASKS = ("classification", "detection")
GRID = 24


def predict(
    what: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    weights: str = "DEFAULT",
    threshold: float = 0.5,
    runs: str | Path = "runs",
    debug: bool = False,
    broken: list[str] | None = None,
) -> list[Any]:
    """Use a run, a checkpoint or a published model on images.

    Args:
        what: A run (folder, ``last``, a recipe's name), a checkpoint, or a model's name.
        inputs: Image files and folders, which are searched in depth.
        out: Folder for ``predictions.json``, ``grid.png`` and one picture an image; None for none.
        weights: With a model's name: which of its published weights, or a file.
        threshold: Detectors: the score from which an object counts as found.
        runs: Folder of the run folders.
        debug: Let Lightning speak.
        broken: List that takes one sentence for each file that cannot be read; without it, the
            first such file is an error.

    Returns:
        For each image a :class:`Prediction` of a classifier or :class:`Detections` of a detector.

    Raises:
        ZooError: If there is no such run or model, or no image.
    """
    hush(debug)
    if not 0 <= threshold <= 1:
        raise ZooError(f"--threshold is {threshold}; expected a score from 0 to 1")
    files = find_images(inputs)
    predictor = load_predictor(what, weights, threshold, Path(runs))
    found: list[Any] = []
    tiles: list[Tile] = []
    names = _unique_names(files)
    folder = Path(out) if out is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for chunk in _chunks(_decoded(files, broken), predictor.batch):
        for (file, image), result in zip(chunk, predictor(chunk), strict=True):
            found.append(result)
            if folder is None:
                continue
            tile = predictor.tile(image, result)
            picture = predictor.picture(image, result)
            (picture if picture is not None else draw_tile(tile, 480)).save(
                folder / f"{names[file]}.png"
            )
            if len(tiles) < GRID:
                tiles.append(tile)
    if folder is not None:
        text = json.dumps([one.as_json() for one in found], indent=1, ensure_ascii=False)
        write_text(folder / "predictions.json", text + "\n")
        if tiles:
            draw_grid(tiles).save(folder / "grid.png")
    return found


def load_predictor(what: str | Path, weights: str, threshold: float, runs: Path) -> Any:
    """Return what predicts: meant by a run, a checkpoint or a model's name.

    It is called with pairs of file and image and returns a result each; ``tile`` and ``picture``
    draw a result, ``batch`` is how many images it takes at once.
    """
    models = [name for task in TASKS for name in list_models(task)]
    if str(what) in models:
        entry = get_entry(str(what))
        if entry.task == "detection":
            return published_detector(entry, weights, threshold)
        return published_classifier(entry, weights)
    if Path(what).suffix != ".ckpt":
        what = find_run(what, runs, models).path
    recipe, checkpoint = resolve(what, None, None, runs)
    if checkpoint is None:  # resolve() always finds one for a run
        raise ZooError(f"{what} has no checkpoint")
    classes = recipe_of(checkpoint).config["model"]["init_args"]["num_classes"]
    task, config = build_task(recipe, num_classes=classes, structure_only=True)
    names = load_task(task, checkpoint)
    task.eval()
    if hasattr(task, "needs"):
        return detector_of_run(task, names, threshold)
    return classifier_of_run(task, build(config["data"]), names)


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Return the image files that are named or lie in the folders named, sorted by folder.

    Raises:
        ZooError: If something named is not there, or nothing is found.
    """
    files: list[Path] = []
    for item in map(Path, inputs):
        if item.is_dir():
            below = (p for p in sorted(item.rglob("*")) if p.is_file())
            files += [p for p in below if p.suffix[1:].lower() in EXTENSIONS]
        elif item.is_file():
            files.append(item)
        else:
            raise ZooError(f"no file or folder at {str(item)!r}")
    if not files:
        named = ", ".join(str(i) for i in inputs) or "nothing"
        raise ZooError(f"no images in {named}; expected {', '.join(sorted(EXTENSIONS))} files")
    return list(dict.fromkeys(files))


def _decoded(files: Sequence[Path], broken: list[str] | None) -> Iterator[tuple[Path, Any]]:
    for file in files:
        try:
            yield file, read_image(file)
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


def _unique_names(files: Sequence[Path]) -> dict[Path, str]:
    """Return a picture name for each file: its stem, with a number where stems meet."""
    names: dict[Path, str] = {}
    used: set[str] = {"grid"}
    for file in files:
        name, n = file.stem, 2
        while name in used:
            name, n = f"{file.stem}_{n}", n + 1
        used.add(name)
        names[file] = name
    return names
