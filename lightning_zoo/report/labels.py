"""What a classifier of images or videos leaves behind: probabilities, curves, confusions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.drawing import contact_sheet
from lightning_zoo.drawing.panels import resized
from lightning_zoo.metrics import VideoAccuracy
from lightning_zoo.report.curves import make_curve
from lightning_zoo.report.findings import (
    MOST_MISTAKES,
    Bar,
    Cell,
    ClassCurve,
    Confusion,
    Findings,
    Mistake,
    Panel,
)

PANEL = 240  # pixels of a picture's longer side
BARS = 4
SURE = 1e-12  # no probability is taken for less, so that a loss stays finite


class LabelCollector:
    """Counts one label an image, or several, as validation does.

    Args:
        task: A classification task that knows its classes.
    """

    unit = "images"

    def __init__(self, task: Any) -> None:
        self.names = list(task.class_names)
        self.several = bool(task.multilabel)
        self.metric = task.new_metric()
        self.ids: list[str] = []
        self.probs: list[NDArray[np.float32]] = []
        self.labels: list[NDArray[Any]] = []

    def add(self, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Count one batch."""
        probs, labels = output["probs"].float().cpu(), batch["label"].cpu()
        self.metric.update(probs, labels.long())
        self.ids += list(output["id"])
        self.probs.append(probs.numpy())
        self.labels.append(labels.numpy())

    def finish(self) -> Findings:
        """Return what was found."""
        found = self.metric.compute()
        probs = np.concatenate(self.probs).astype(np.float64)
        labels = np.concatenate(self.labels)
        if self.several:
            return self._of_several(100 * float(found), probs, labels > 0)
        return self._of_one({k: float(v) for k, v in found.items()}, self.ids, probs, labels)

    def _of_one(
        self,
        metrics: dict[str, float],
        ids: list[str],
        probs: NDArray[np.float64],
        labels: NDArray[np.int64],
    ) -> Findings:
        """Return the findings of samples with one label each: probs (N, C), labels (N,)."""
        predicted = probs.argmax(axis=1)
        count = len(self.names)
        counts = np.bincount(labels * count + predicted, minlength=count * count)
        counts = counts.reshape(count, count)
        rows: list[dict[str, Cell]] = []
        curves = []
        for label, name in enumerate(self.names):
            curve = make_curve(probs[:, label], labels == label, int(counts[label].sum()))
            if curve.truths:
                curves.append(ClassCurve(name, curve, 100 * curve.average_precision, curve.best()))
            right, true, found = counts[label, label], counts[label].sum(), counts[:, label].sum()
            wrong = [i for i in np.argsort(-counts[label], kind="stable").tolist() if i != label]
            taken = [f"{self.names[i]} ({counts[label, i]})" for i in wrong[:2] if counts[label, i]]
            row: dict[str, Cell] = {
                "class": name,
                self.unit: int(true),
                "precision": _percent(right, found),
                "recall": _percent(right, true),
                "F1": _percent(2 * right, true + found),
                "AP": 100 * curve.average_precision,
                "most often taken for": ", ".join(taken),
            }
            rows.append(row)
        loss = -np.log(np.maximum(probs[np.arange(len(labels)), labels], SURE))
        mistakes = []
        for i in np.argsort(-loss, kind="stable")[:MOST_MISTAKES].tolist():
            true, guess = self.names[labels[i]], self.names[predicted[i]]
            sure = f"{100 * probs[i, predicted[i]]:.0f} %"
            text = f"{true} taken for {guess} ({sure})"
            if labels[i] == predicted[i]:
                text = f"{true}, found with only {sure}"
            bars = self._bars(probs[i], {int(labels[i])})
            mistakes.append(Mistake(ids[i], text, self.show, bars))
        return Findings(
            metrics=metrics,
            rows=rows,
            curves=curves,
            confusion=Confusion(self.names, counts, self.unit),
            mistakes=mistakes,
            worst_by="loss: how little the true class was believed",
            samples=len(labels),
        )

    def _of_several(
        self, mean: float, probs: NDArray[np.float64], labels: NDArray[np.bool_]
    ) -> Findings:
        """Return the findings of images with any number of labels each: both (N, C)."""
        curves = [
            make_curve(probs[:, i], labels[:, i], int(labels[:, i].sum()))
            for i in range(len(self.names))
        ]
        best = [curve.best() for curve in curves]
        rows: list[dict[str, Cell]] = [
            {
                "class": name,
                "images": curve.truths,
                "AP": 100 * curve.average_precision,
                "precision": 100 * point.precision,
                "recall": 100 * point.recall,
                "F1": 100 * point.f1,
                "threshold": f"{point.threshold:.3f}",
            }
            for name, curve, point in zip(self.names, curves, best, strict=True)
        ]
        found = probs >= np.array([point.threshold for point in best])
        believed = np.where(labels, probs, 1 - probs)
        loss = -np.log(np.maximum(believed, SURE)).mean(axis=1)
        mistakes = []
        for i in np.argsort(-loss, kind="stable")[:MOST_MISTAKES].tolist():
            missed = [self.names[c] for c in np.flatnonzero(labels[i] & ~found[i])]
            extra = [self.names[c] for c in np.flatnonzero(found[i] & ~labels[i])]
            parts = [f"missed {', '.join(missed)}"] if missed else []
            parts += [f"too many: {', '.join(extra)}"] if extra else []
            bars = self._bars(probs[i], set(np.flatnonzero(labels[i]).tolist()))
            text = "; ".join(parts) or "right, but barely"
            mistakes.append(Mistake(self.ids[i], text, self.show, bars))
        return Findings(
            metrics={"map": mean},
            rows=rows,
            curves=[
                ClassCurve(name, curve, 100 * curve.average_precision, point)
                for name, curve, point in zip(self.names, curves, best, strict=True)
                if curve.truths
            ],
            confusion=None,
            mistakes=mistakes,
            worst_by="loss: how little the truth was believed",
            thresholds={n: point.threshold for n, point in zip(self.names, best, strict=True)},
            samples=len(labels),
        )

    def _bars(self, probs: NDArray[np.float64], true: set[int]) -> tuple[Bar, ...]:
        """Return the most probable classes and the true ones, the most probable first."""
        order = np.argsort(-probs, kind="stable").tolist()
        shown = [i for place, i in enumerate(order) if place < BARS - 1 or i in true]
        return tuple(Bar(self.names[i], float(probs[i]), i in true) for i in shown[: 2 * BARS])

    def show(self, sample: dict[str, Any]) -> list[Panel]:
        """Return the image as the network sees it."""
        pixels = Image.fromarray(sample["image"].permute(1, 2, 0).numpy())
        return [Panel("image", resized(pixels, PANEL / max(pixels.size)))]


class VideoCollector(LabelCollector):
    """Counts videos, each by the mean of its clips.

    Args:
        task: A video task that knows its classes.
    """

    unit = "videos"

    def __init__(self, task: Any) -> None:
        self.names = list(task.class_names)
        self.accuracy = VideoAccuracy((1, 5) if task.num_classes > 5 else (1,))
        self.clips: dict[tuple[str, int], tuple[int, NDArray[np.float32]]] = {}

    def add(self, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Count one batch."""
        probs, labels, clips = (
            value.cpu() for value in (output["probs"].float(), batch["label"], batch["clip"])
        )
        self.accuracy.update(probs, labels, batch["id"], clips)
        for i, key in enumerate(zip(batch["id"], clips.tolist(), strict=True)):
            self.clips.setdefault(key, (int(labels[i]), probs[i].numpy()))

    def finish(self) -> Findings:
        """Return what was found."""
        videos: dict[str, list[NDArray[np.float32]]] = {}
        labels: dict[str, int] = {}
        for (name, _), (label, probs) in sorted(self.clips.items(), key=lambda entry: entry[0]):
            videos.setdefault(name, []).append(probs)
            labels[name] = label
        means = np.stack([np.mean(rows, axis=0, dtype=np.float64) for rows in videos.values()])
        metrics = {name: float(value) for name, value in self.accuracy.compute().items()}
        return self._of_one(metrics, list(videos), means, np.array(list(labels.values())))

    def show(self, sample: dict[str, Any]) -> list[Panel]:
        """Return frames of one clip."""
        frames: torch.Tensor = sample["video"]
        return [Panel("frames of a clip", contact_sheet(frames.permute(1, 2, 3, 0).numpy()))]


def _percent(part: Any, whole: Any) -> float:
    return 100 * float(part) / float(whole) if whole else float("nan")
