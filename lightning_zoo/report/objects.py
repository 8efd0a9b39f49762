"""What a detector leaves behind: matched objects, curves, confusions and the worst images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.drawing import draw_objects
from lightning_zoo.drawing.panels import resized
from lightning_zoo.metrics import CocoMetric
from lightning_zoo.models.registry import real_classes
from lightning_zoo.report.curves import Curve, make_curve
from lightning_zoo.report.findings import (
    MOST_MISTAKES,
    Cell,
    ClassCurve,
    Confusion,
    Findings,
    Mistake,
    Panel,
)
from lightning_zoo.report.matching import IN_CROWD, Matched, match_objects

PANEL = 400  # pixels of a picture's longer side
NOTHING = "nothing"


class ObjectCollector:
    """Counts boxes, masks and keypoints as validation does, and keeps what the page shows.

    Args:
        task: A detection or keypoint task that knows its classes.
    """

    def __init__(self, task: Any) -> None:
        self.metric = CocoMetric(task.iou_types, task.class_names, sigmas=task.sigmas)
        self.names = real_classes(task.class_names)
        self.skeleton = getattr(task, "skeleton", None)

    def add(self, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Count one batch."""
        for found in output["detections"]:
            if "keypoints_scores" in found:  # to be drawn; the evaluator looks at places alone
                found["keypoints"][..., 2] = found["keypoints_scores"] > 0
        self.metric.update(output["detections"], batch["target"])

    def finish(self) -> Findings:
        """Return what was found."""
        figures = self.metric.compute()
        images = [match_objects(record) for record in self.metric.records.values()]
        seen = {int(label) for one in images for label in (*one.labels, *one.true_labels)}
        names = {**{label: str(label) for label in sorted(seen)}, **self.names}
        curves = {label: _curve(images, label) for label in sorted(names)}
        best = {label: curve.best() for label, curve in curves.items()}
        thresholds = {label: point.threshold for label, point in best.items()}
        rows: list[dict[str, Cell]] = []
        shown: list[ClassCurve] = []
        for entry in self.metric.per_class():
            point = best[entry["label"]]
            row: dict[str, Cell] = {"class": entry["name"], "objects": entry["objects"]}
            for prefix, word in (("box", ""), ("mask", "mask "), ("kp", "keypoint ")):
                if f"{prefix}_map" in entry:
                    row[f"{word}AP50"] = entry[f"{prefix}_map50"]
                    row[f"{word}AP"] = entry[f"{prefix}_map"]
            row |= {
                "precision": 100 * point.precision,
                "recall": 100 * point.recall,
                "F1": 100 * point.f1,
                "threshold": f"{point.threshold:.3f}",
            }
            rows.append(row)
            if entry["objects"]:
                curve = curves[entry["label"]]
                shown.append(ClassCurve(entry["name"], curve, entry["box_map50"], point))
        return Findings(
            metrics=figures,
            rows=rows,
            curves=shown,
            confusion=_confusion(images, thresholds, names),
            mistakes=self._mistakes(images, thresholds, names),
            worst_by="objects missed, and objects too many by their score",
            thresholds={names[label]: value for label, value in thresholds.items()},
            samples=len(images),
        )

    def _mistakes(
        self, images: list[Matched], thresholds: Mapping[int, float], names: Mapping[int, str]
    ) -> list[Mistake]:
        judged = []
        for one in images:
            texts: Counter[str] = Counter()
            badness = 0.0
            for true, found in one.pairs(thresholds):
                true_name = None if true is None else names[int(one.true_labels[true])]
                found_name = None if found is None else names[int(one.labels[found])]
                if true_name == found_name:
                    continue
                badness += (true is not None) + (0 if found is None else float(one.scores[found]))
                if found_name is None:
                    texts[f"{true_name} missed"] += 1
                elif true_name is None:
                    texts[f"{found_name} too many"] += 1
                else:
                    texts[f"{true_name} taken for {found_name}"] += 1
            if texts:
                line = ", ".join(f"{n} {text}" for text, n in texts.most_common())
                judged.append((badness, one, line))
        judged.sort(key=lambda entry: -entry[0])
        return [
            Mistake(one.record.image_id, text, partial(self._show, one=one, thresholds=thresholds))
            for _, one, text in judged[:MOST_MISTAKES]
        ]

    def _show(
        self, sample: dict[str, Any], one: Matched, thresholds: Mapping[int, float]
    ) -> list[Panel]:
        """Draw the objects that count as found, and the true ones."""
        pixels = sample["image"].permute(1, 2, 0).numpy()
        factor = PANEL / max(pixels.shape[:2])
        small = resized(Image.fromarray(pixels), factor)
        record = one.record
        limits = np.array([thresholds[int(label)] for label in one.labels])
        rows = one.rows[one.scores >= limits] if len(one.rows) else one.rows
        assert record.boxes is not None
        points = None if record.keypoints is None else record.keypoints[rows]
        found = draw_objects(
            small,
            _corners(record.boxes[rows], factor),
            record.labels[rows],
            self.names,
            scores=record.scores[rows],
            masks=None if record.masks is None else [record.masks[i] for i in rows.tolist()],
            keypoints=_points(points, factor),
            skeleton=self.skeleton,
        )
        true = record.truth
        points = np.array([entry["keypoints"] for entry in true]) if self.skeleton else None
        truth = draw_objects(
            small,
            _corners(np.array([entry["bbox"] for entry in true]).reshape(-1, 4), factor),
            np.array([entry["category_id"] for entry in true], np.int64),
            self.names,
            masks=None if record.masks is None else [entry["segmentation"] for entry in true],
            keypoints=_points(points, factor),
            skeleton=self.skeleton,
            iscrowd=np.array([entry["iscrowd"] for entry in true], np.int64),
        )
        return [Panel("found", found), Panel("true", truth)]


def _curve(images: list[Matched], label: int) -> Curve:
    """Return the curve of one class over all images."""
    scores, right, truths = [], [], 0
    for one in images:
        mine = (one.labels == label) & (one.matches != IN_CROWD)
        scores.append(one.scores[mine])
        right.append(one.matches[mine] >= 0)
        truths += int((one.true_labels == label).sum())
    if not scores:
        return make_curve(np.zeros(0), np.zeros(0, np.bool_), 0)
    return make_curve(np.concatenate(scores), np.concatenate(right), truths)


def _confusion(
    images: list[Matched], thresholds: Mapping[int, float], names: Mapping[int, str]
) -> Confusion:
    """Count the pairs of all images; the last row and column are for those that stand alone."""
    places = {label: i for i, label in enumerate(sorted(names))}
    counts = np.zeros((len(places) + 1, len(places) + 1), np.int64)
    for one in images:
        for true, found in one.pairs(thresholds):
            row = len(places) if true is None else places[int(one.true_labels[true])]
            column = len(places) if found is None else places[int(one.labels[found])]
            counts[row, column] += 1
    listed = [names[label] for label in places]
    return Confusion([*listed, NOTHING], counts, "objects", background=True)


def _corners(boxes: NDArray[Any], factor: float) -> NDArray[np.float64]:
    """Return boxes ``x, y, width, height`` as scaled ``x1, y1, x2, y2``."""
    scaled = boxes.astype(np.float64) * factor
    scaled[:, 2:] += scaled[:, :2]
    return scaled


def _points(points: NDArray[Any] | None, factor: float) -> NDArray[np.float64] | None:
    """Return rows of ``x, y, visibility`` as scaled (N, K, 3)."""
    if points is None or not len(points):
        return None
    scaled = points.astype(np.float64).reshape(len(points), -1, 3)
    scaled[..., :2] *= factor
    return scaled
