"""What a segmenter leaves behind: a confusion of pixels, and the images it reads worst."""

from __future__ import annotations

import heapq
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.drawing import overlay, palette
from lightning_zoo.drawing.panels import resized
from lightning_zoo.drawing.segmentation import VOID, is_background, shares
from lightning_zoo.metrics import ConfusionMatrix
from lightning_zoo.report.findings import (
    MOST_MISTAKES,
    Cell,
    Confusion,
    Findings,
    Mistake,
    Panel,
)

PANEL = 400  # pixels of a picture's longer side


class PixelCollector:
    """Counts pixels as validation does, and keeps the label maps of the worst images.

    Args:
        task: A segmentation task that knows its classes.
    """

    def __init__(self, task: Any) -> None:
        numbers = map(str, range(len(task.class_names), task.num_classes))
        self.names = [*task.class_names, *numbers]
        self.metric = ConfusionMatrix(task.num_classes)
        self.samples = 0
        # the highest loss stands last; a number of its own keeps arrays from being compared
        self.worst: list[tuple[float, int, Any, str, NDArray[np.uint8]]] = []

    def add(self, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Count one batch."""
        for name, labels, mask in zip(
            output["id"], output["segmentation"], batch["mask"], strict=True
        ):
            truth = mask.cpu()
            self.metric.update(labels, truth)
            self.samples += 1
            iou, text = self._judge(labels.numpy(), truth.numpy())
            if text is None:
                continue
            heapq.heappush(self.worst, (-iou, -self.samples, name, text, labels.numpy()))
            if len(self.worst) > MOST_MISTAKES:
                heapq.heappop(self.worst)

    def _judge(
        self, labels: NDArray[np.uint8], truth: NDArray[np.uint8]
    ) -> tuple[float, str | None]:
        """Return an image's mean IoU and what is wrong; None where no pixel counts or all do."""
        count = len(self.names)
        known = truth < count
        pairs = truth[known].astype(np.int64) * count + labels[known]
        counts = np.bincount(pairs, minlength=count * count).reshape(count, count)
        right = counts.diagonal()
        union = counts.sum(axis=0) + counts.sum(axis=1) - right
        wrong = counts - np.diag(right)
        if not wrong.any():
            return 1.0, None
        iou = float((right[union > 0] / union[union > 0]).mean())
        true, found = np.unravel_index(int(wrong.argmax()), wrong.shape)
        share = 100 * wrong / counts.sum()
        return iou, (
            f"mean IoU {100 * iou:.1f} %, {share.sum():.1f} % of the pixels wrong; most of them "
            f"{self.names[true]} taken for {self.names[found]} ({share[true, found]:.1f} %)"
        )

    def finish(self) -> Findings:
        """Return what was found."""
        metrics = {name: float(value) for name, value in self.metric.compute().items()}
        rows: list[dict[str, Cell]] = [
            {"class": r["name"], "pixels": r["pixels"], "IoU": r["iou"], "found": r["acc"]}
            for r in self.metric.per_class(self.names)
        ]
        return Findings(
            metrics=metrics,
            rows=rows,
            curves=[],
            confusion=Confusion(self.names, self.metric.counts.numpy(), "pixels"),
            mistakes=[
                Mistake(name, text, partial(self._show, labels=labels))
                for _, _, name, text, labels in sorted(self.worst, reverse=True)
            ],
            worst_by="mean IoU of the image",
            samples=self.samples,
        )

    def _show(self, sample: dict[str, Any], labels: NDArray[np.uint8]) -> list[Panel]:
        """Draw the classes that were found, and the true ones."""
        pixels = sample["image"].permute(1, 2, 0).numpy()
        small = resized(Image.fromarray(pixels), PANEL / max(pixels.shape[:2]))
        background = next((i for i, name in enumerate(self.names) if is_background(name)), None)
        truth = sample["mask"].numpy().astype(np.uint8)
        legend = tuple(
            (name, None if label == VOID else "#{:02x}{:02x}{:02x}".format(*palette()[label]))
            for label, name, _ in shares(np.stack([labels, truth]), self.names)
        )
        panels = []
        for title, classes in (("found", labels), ("true", truth)):
            size = (small.shape[1], small.shape[0])
            fitted = Image.fromarray(classes).resize(size, Image.Resampling.NEAREST)
            drawn = overlay(small, np.asarray(fitted), background=background)
            panels.append(Panel(title, drawn, legend))
        return panels
