from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.drawing import Tile, draw_grid, draw_tile
from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.engine.evaluate import load_task, resolve
from lightning_zoo.engine.session import hush
from lightning_zoo.errors import ZooError
from lightning_zoo.models import get_entry, list_models
from lightning_zoo.recipe.build import build
from lightning_zoo.runs import find_run, read_checkpoint, write_text
from lightning_zoo.transforms.classification import EvalTransform
from lightning_zoo.transforms.decode import EXTENSIONS, DecodeError, read_image

BATCH = 16
TOP = 5
GRID = 24


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes:
        file: The image.
        label: Name of the most probable class.
        score: Its probability.
        top: The most probable classes with their probabilities, best first.
        labels: With several labels an image: the names of all above one half.
    """

    file: str
    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    labels: tuple[str, ...] | None = None


@dataclass
class Classifier:
    """A network with all that it takes to use it.

    Attributes:
        probabilities: Returns ``(N, classes)`` for uint8 images ``(N, 3, H, W)``.
        transform: Makes a uint8 tensor ``(3, H, W)`` of a decoded image.
        class_names: Name of each class.
        multilabel: Whether an image may have several labels.
    """

    probabilities: Callable[[Tensor], Tensor]
    transform: Any
    class_names: Sequence[str]
    multilabel: bool = False


def predict(
    what: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    weights: str = "DEFAULT",
    runs: str | Path = "runs",
    debug: bool = False,
    broken: list[str] | None = None,
) -> list[Prediction]:
    """Classify images with a run, a checkpoint or a published model.

    Args:
        what: A run (folder, ``last``, a recipe's name), a checkpoint, or a model's name.
        inputs: Image files and folders, which are searched in depth.
        out: Folder for ``predictions.json``, ``grid.png`` and one picture an image; None for none.
        weights: With a model's name: which of its published weights, or a file.
        runs: Folder of the run folders.
        debug: Let Lightning speak.
        broken: List that takes one sentence for each file that cannot be read; without it, the
            first such file is an error.

    Raises:
        ZooError: If there is no such run or model, or no image.
    """
    hush(debug)
    files = find_images(inputs)
    classifier = load_classifier(what, weights, Path(runs))
    found: list[Prediction] = []
    tiles: list[Tile] = []
    names = _unique_names(files)
    folder = Path(out) if out is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for chunk in _chunks(_decoded(files, broken), BATCH):
        batch = torch.stack([classifier.transform(image, None) for _, image in chunk])
        for (file, image), row in zip(chunk, classifier.probabilities(batch).tolist(), strict=True):
            found.append(_prediction(file, row, classifier))
            if folder is None:
                continue
            tile = classification_tile(
                image, row, classifier.class_names, multilabel=classifier.multilabel
            )
            draw_tile(tile, 480).save(folder / f"{names[file]}.png")
            if len(tiles) < GRID:
                tiles.append(tile)
    if folder is not None:
        text = json.dumps([asdict(p) for p in found], indent=1, ensure_ascii=False)
        write_text(folder / "predictions.json", text + "\n")
        if tiles:
            draw_grid(tiles).save(folder / "grid.png")
    return found


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


def load_classifier(what: str | Path, weights: str, runs: Path) -> Classifier:
    """Return the classifier meant by a run, a checkpoint or a model's name."""
    if str(what) in list_models("classification"):
        return _published(str(what), weights)
    if Path(what).suffix != ".ckpt":
        what = find_run(what, runs, list_models("classification")).path
    recipe, checkpoint = resolve(what, None, None, runs)
    if checkpoint is None:  # resolve() always finds one for a run
        raise ZooError(f"{what} has no checkpoint")
    recipe = recipe.with_overrides([("model.weights", None)])
    data = build(recipe.config["data"])
    names = read_checkpoint(checkpoint)["lightning_zoo"]["class_names"]
    task = build(recipe.config["model"])
    load_task(task, checkpoint)
    task.eval()

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return task.predict_step({"image": images, "id": []}, 0)["probs"]

    return Classifier(probabilities, data.eval_transform, names, task.multilabel)


def _published(name: str, weights: str) -> Classifier:
    entry = get_entry(name)
    # a local file has no facts of its own: those of the model's published weights hold
    facts = entry.get_weights(weights if weights in entry.weights else None)
    model = entry.load_builder()(weights=weights).eval()
    pre = facts.preprocessing
    mean = torch.tensor(pre.mean).view(1, 3, 1, 1)
    std = torch.tensor(pre.std).view(1, 3, 1, 1)

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model((images.float() / 255 - mean) / std).softmax(dim=1)

    return Classifier(probabilities, EvalTransform(pre.resize, pre.crop), facts.class_names)


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


def _prediction(file: Path, row: list[float], classifier: Classifier) -> Prediction:
    order = sorted(range(len(row)), key=lambda i: -row[i])[:TOP]
    top = tuple((classifier.class_names[i], round(row[i], 6)) for i in order)
    labels = None
    if classifier.multilabel:
        labels = tuple(n for n, p in zip(classifier.class_names, row, strict=True) if p > 0.5)
    return Prediction(str(file), top[0][0], top[0][1], top, labels)


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
