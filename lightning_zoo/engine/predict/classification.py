from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.drawing import Tile
from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.transforms.classification import EvalTransform

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image or video.

    Attributes:
        file: The image or video.
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

    def summary(self) -> str:
        """Return what a person reads of it, in one line."""
        rest = ", ".join(f"{name} {100 * score:.1f} %" for name, score in self.top[1:3])
        return f"{self.label} {100 * self.score:.1f} %   ({rest})"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def make_prediction(
    file: Path, row: Sequence[float], class_names: Sequence[str], *, multilabel: bool = False
) -> Prediction:
    """Return what the probabilities ``row`` of all classes say of a file."""
    sure = sum(p > 0.5 for p in row) if multilabel else 1
    order = sorted(range(len(row)), key=lambda i: -row[i])[: max(TOP, sure)]
    top = tuple((class_names[i], round(row[i], 6)) for i in order)
    labels = None
    if multilabel:
        labels = tuple(n for n, p in zip(class_names, row, strict=True) if p > 0.5)
    return Prediction(str(file), top[0][0], top[0][1], top, labels)


@dataclass
class Classifier:
    """A network with all that it takes to use it.

    Attributes:
        probabilities: Returns ``(N, classes)`` for uint8 images ``(N, 3, H, W)``.
        transform: Makes a uint8 tensor ``(3, H, W)`` of a decoded image.
        class_names: Name of each class.
        multilabel: Whether an image may have several labels.
        batch: Images at once.
    """

    probabilities: Callable[[Tensor], Tensor]
    transform: Any
    class_names: Sequence[str]
    multilabel: bool = False
    batch: int = 16

    def __call__(self, images: Sequence[tuple[Path, Any]]) -> list[Prediction]:
        """Return a prediction for each pair of file and decoded image, uint8 ``(H, W, 3)``."""
        batch = torch.stack([self.transform(image, None) for _, image in images])
        rows = self.probabilities(batch).tolist()
        return [
            make_prediction(file, row, self.class_names, multilabel=self.multilabel)
            for (file, _), row in zip(images, rows, strict=True)
        ]

    def tile(self, image: Any, result: Prediction) -> Tile:
        """Return the image with its most probable classes below."""
        names = [name for name, _ in result.top]
        scores = [score for _, score in result.top]
        return classification_tile(image, scores, names, multilabel=self.multilabel)

    def pictures(self, image: Any, result: Prediction) -> dict[str, Any]:
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


def classifier_of_run(task: Any, data: Any, class_names: Sequence[str]) -> Classifier:
    """Return the classifier that a run trained."""

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return task.predict_step({"image": images, "id": []}, 0)["probs"]

    return Classifier(probabilities, data.eval_transform, class_names, task.multilabel)
