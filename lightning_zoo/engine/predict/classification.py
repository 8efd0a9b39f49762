from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from lightning_zoo.drawing import Tile
from lightning_zoo.drawing.classification import draw_lines
from lightning_zoo.engine.predict.results import ImageResult, Pixels, Row
from lightning_zoo.engine.predict.thresholds import Thresholds
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.transforms.classification import EvalTransform

TOP = 5
SHOWN = 3  # lines of text in a picture, where one class is meant


@dataclass(frozen=True)
class Prediction(ImageResult):
    """What a classifier says of one image or video, or of one frame.

    Attributes:
        file: The image or video.
        label: Name of the most probable class.
        score: Its probability.
        top: The most probable classes with their probabilities, best first.
        labels: With several labels an image: the names of all that reach their threshold.
        numbers: The network's label of each class of ``top``.
        width: Width in pixels.
        height: Height in pixels.
        frame: Of a film's frames: which one, counted from 0.
        time: Of a film's frames: seconds since the first one.
    """

    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    labels: tuple[str, ...] | None = None
    numbers: tuple[int, ...] = field(default=(), kw_only=True, repr=False)

    def chosen(self) -> list[int]:
        """Return the places in ``top`` of the classes that are on: the best one, or several."""
        if self.labels is None:
            return [0]
        return [i for i, (name, _) in enumerate(self.top) if name in self.labels]

    def summary(self) -> str:
        """Return what a person reads of it, in one line."""
        chosen = self.chosen()
        on = ", ".join(_percent(self.top[i]) for i in chosen) or "nothing"
        rest = [_percent(one) for i, one in enumerate(self.top) if i not in chosen][:2]
        return f"{on}   ({', '.join(rest)})" if rest else on

    def found(self) -> dict[str, Any]:
        """Return the classes as plain data."""
        return {"label": self.label, "score": self.score, "top": self.top, "labels": self.labels}

    def rows(self) -> Iterator[Row]:
        """Yield a row for each class that is on."""
        for i in self.chosen():
            yield dict(zip(("label", "score"), self.top[i], strict=True))

    def lines(self) -> list[str]:
        """Return what is written into a picture: the classes that are on, then the next ones."""
        chosen = self.chosen()
        on = ", ".join(_percent(self.top[i], 0) for i in chosen) or "nothing"
        rest = [_percent(one, 0) for i, one in enumerate(self.top) if i not in chosen]
        return [on, *rest[: SHOWN - 1]]

    def draw(self, image: Pixels) -> Pixels:
        """Return the image, uint8 RGB ``(H, W, 3)``, with its classes in a corner."""
        return draw_lines(image, self.lines())

    def coco_entries(self) -> list[dict[str, Any]]:
        """Return an entry for each class that is on."""
        return [
            {"label": self.top[i][0], "category_id": self.numbers[i], "score": self.top[i][1]}
            for i in self.chosen()
        ]

    def record(self) -> dict[str, Any]:
        """Return all that a frame says, as plain data."""
        return {**self.found(), "numbers": self.numbers}

    def restored(self, record: Mapping[str, Any]) -> Self:
        """Return the result that a record says."""
        labels = record["labels"]
        return replace(self, **{
            **record,
            "top": tuple((name, score) for name, score in record["top"]),
            "labels": None if labels is None else tuple(labels),
            "numbers": tuple(record["numbers"]),
        })  # fmt: skip


def _percent(entry: tuple[str, float], digits: int = 1) -> str:
    return f"{entry[0]} {100 * entry[1]:.{digits}f} %"


def make_prediction(
    file: Path,
    row: Sequence[float],
    class_names: Sequence[str],
    size: tuple[int, int],
    thresholds: Thresholds | None = None,
) -> Prediction:
    """Return what the probabilities of all classes say of a file.

    Args:
        file: The image or video.
        row: Probability of each class.
        class_names: Name of each class.
        size: Height and width in pixels.
        thresholds: With several labels an image: from which probability each class is on.
    """
    labels, count = None, TOP
    if thresholds is not None:
        on = [p >= limit for p, limit in zip(row, thresholds.of(class_names), strict=True)]
        labels = tuple(name for name, is_on in zip(class_names, on, strict=True) if is_on)
        # thresholds of their own may leave out a class that is more probable than one that is on
        least = min((p for p, is_on in zip(row, on, strict=True) if is_on), default=1.0)
        count = max(TOP, sum(p >= least for p in row))
    order = sorted(range(len(row)), key=lambda i: -row[i])[:count]
    top = tuple((class_names[i], round(row[i], 6)) for i in order)
    return Prediction(
        str(file), top[0][0], top[0][1], top, labels,
        numbers=tuple(order), height=size[0], width=size[1],
    )  # fmt: skip


@dataclass
class Classifier:
    """A network with all that it takes to use it.

    Attributes:
        probabilities: Returns ``(N, classes)`` for uint8 images ``(N, 3, H, W)``.
        transform: Makes a uint8 tensor ``(3, H, W)`` of a decoded image.
        class_names: Name of each class.
        thresholds: Where an image may have several labels: when each is on.
        batch: Images at once.
    """

    probabilities: Callable[[Tensor], Tensor]
    transform: Any
    class_names: Sequence[str]
    thresholds: Thresholds | None = None
    batch: int = 16

    def __call__(self, images: Sequence[tuple[Path, Pixels]]) -> list[Prediction]:
        """Return a prediction for each pair of file and decoded image, uint8 ``(H, W, 3)``."""
        batch = torch.stack([self.transform(image, None) for _, image in images])
        rows = self.probabilities(batch).tolist()
        return [
            make_prediction(file, row, self.class_names, image.shape[:2], self.thresholds)
            for (file, image), row in zip(images, rows, strict=True)
        ]

    def tile(self, image: Pixels, result: Prediction) -> Tile:
        """Return the image with its most probable classes below."""
        return Tile(image, result.lines())

    def pictures(self, image: Pixels, result: Prediction) -> dict[str, Image.Image]:
        """Return none: the tile says all."""
        return {}


def published_classifier(entry: ModelEntry, weights: str) -> Classifier:
    """Return a classifier of the zoo with its published weights, or those of a file.

    Of the quantized zoo these are INT8.
    """
    # a local file has no facts of its own: those of the model's published weights hold
    facts = entry.get_weights(weights if weights in entry.weights else None)
    quantize = {"quantize": True} if entry.task == "quantization" else {}
    model = entry.load_builder()(weights=weights, **quantize).eval()
    pre = facts.preprocessing
    assert pre is not None
    assert isinstance(pre.resize, int)
    assert pre.crop is not None
    mean = torch.tensor(pre.mean).view(1, 3, 1, 1)
    std = torch.tensor(pre.std).view(1, 3, 1, 1)

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model((images.float() / 255 - mean) / std).softmax(dim=1)

    return Classifier(probabilities, EvalTransform(pre.resize, pre.crop), facts.class_names)


def classifier_of_run(
    task: Any, data: Any, class_names: Sequence[str], thresholds: Thresholds
) -> Classifier:
    """Return the classifier that a run trained."""

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return task.predict_step({"image": images, "id": []}, 0)["probs"]

    several = thresholds if task.multilabel else None
    return Classifier(probabilities, data.eval_transform, class_names, several)
