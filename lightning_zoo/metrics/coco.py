"""COCO's average precision of boxes, masks and keypoints: pycocotools' numbers, over all ranks.

https://cocodataset.org/#detection-eval and #keypoints-eval; Lin et al., "Microsoft COCO",
ECCV 2014, https://arxiv.org/abs/1405.0312.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.keypoints import COCO_PERSON
from lightning_zoo.metrics.coco_records import ImageRecord, encode_masks, make_record
from lightning_zoo.models.registry import real_classes

__all__ = ["CocoMetric", "encode_masks", "format_table"]

PREFIXES = {"bbox": "box", "segm": "mask", "keypoints": "kp"}
BACKENDS = ("auto", "pycocotools", "faster-coco-eval")
# Places of IoU 0.50 and 0.75 among the thresholds 0.50, 0.55 ... 0.95.
IOU_50, IOU_75 = 0, 5
# What the evaluator sorts objects into by their area; it knows no small ones among keypoints.
AREAS = ("", "_small", "_medium", "_large")
KEYPOINT_AREAS = ("", "_medium", "_large")


@dataclass(frozen=True)
class _Curves:
    """What an evaluation counted; -1 where there was nothing to find.

    Attributes:
        labels: The K labels that have truth, ascending.
        precision: float64 (10 IoU thresholds, 101 recalls, K, areas, limits).
        recall: float64 (10 IoU thresholds, K, areas, limits).
    """

    labels: list[int]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


class CocoMetric(nn.Module):
    """Average precision and recall as pycocotools counts them, in per cent.

    Detections are kept as numbers and run-length encoded masks, so never more than one image's
    masks are dense. Every rank counts its own images; :meth:`compute` exchanges the records, drops
    repeated images (the first stays) and gives the same result on every rank. So call it on all
    ranks, and :meth:`per_class` too where that comes first. Nothing goes into a checkpoint.

    Args:
        iou_types: What is compared: ``bbox``, ``segm``, ``keypoints``.
        class_names: Name of each label, by position or as a mapping.
        sigmas: Tolerance of each keypoint; None takes those of COCO's persons.
        backend: ``pycocotools``, ``faster-coco-eval`` (an extra: ``lightning_zoo[fast]``, about
            nine times as fast, the same numbers), or ``auto``: the second where it is installed.
    """

    def __init__(
        self,
        iou_types: Sequence[str],
        class_names: Sequence[str] | Mapping[int, str],
        *,
        sigmas: Sequence[float] | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for kind in iou_types:
            if kind not in PREFIXES:
                raise unknown("IoU type", kind, PREFIXES)
        if backend not in BACKENDS:
            raise unknown("backend", backend, BACKENDS)
        installed = importlib.util.find_spec("faster_coco_eval") is not None
        if backend == "faster-coco-eval" and not installed:
            raise ZooError(
                "backend is 'faster-coco-eval', which is not installed; "
                "run pip install 'lightning_zoo[fast]'"
            )
        self.iou_types = tuple(iou_types)
        self.class_names = class_names
        self.sigmas = tuple(COCO_PERSON.sigmas if sigmas is None else sigmas)
        self.fast = installed and backend != "pycocotools"
        self.records: dict[int, ImageRecord] = {}
        self._merged: list[ImageRecord] | None = None
        self._curves: dict[str, _Curves | None] = {}

    def update(
        self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add images.

        Args:
            detections: For each image ``boxes`` float (N, 4) ``x1 y1 x2 y2``, ``labels`` int64
                (N,), ``scores`` float (N,), and what is evaluated of ``masks`` (probabilities
                (N, 1, H, W), 0 and 1 (N, H, W), or run-length encoded) and ``keypoints`` (N, K, 3).
                Those with NaN or infinity among their numbers are left out.
            targets: For each image ``id`` and either ``annotations``, a list of COCO's records with
                compressed run lengths, or the tensors ``boxes``, ``labels`` and where they are
                known ``area``, ``iscrowd``, ``masks``, ``keypoints``.

        Raises:
            ZooError: If something is missing, or masks or keypoints do not fit the truth.
        """
        self._merged = None
        for detection, target in zip(detections, targets, strict=True):
            if int(target["id"]) in self.records:
                continue
            record = make_record(
                detection, target, iou_types=self.iou_types, num_keypoints=len(self.sigmas)
            )
            self.records[record.image_id] = record

    def reset(self) -> None:
        """Forget all images."""
        self.records = {}
        self._merged = None
        self._curves = {}

    def compute(self) -> dict[str, float]:
        """Return the averages over all ranks' images, in per cent; NaN where nothing was to find.

        Names begin with ``box_``, ``mask_`` or ``kp_``: ``map`` over IoU 0.50 to 0.95, ``map50``,
        ``map75``, ``map_small`` (below 32 x 32 pixels), ``map_medium``, ``map_large`` (above
        96 x 96), and the recall with 1, 10 and 100 detections of each class in an image: ``mar1``,
        ``mar10``, ``mar100``. Keypoints, of which 20 detections count, have no ``map_small`` and
        one ``kp_mar``.
        """
        self._evaluate()
        found: dict[str, float] = {}
        for kind, prefix in PREFIXES.items():
            if kind not in self.iou_types:
                continue
            curves = self._curves[kind]
            areas = KEYPOINT_AREAS if kind == "keypoints" else AREAS
            found[f"{prefix}_map"] = _mean_precision(curves)
            found[f"{prefix}_map50"] = _mean_precision(curves, iou=IOU_50)
            found[f"{prefix}_map75"] = _mean_precision(curves, iou=IOU_75)
            for i, area in enumerate(areas[1:], start=1):
                found[f"{prefix}_map{area}"] = _mean_precision(curves, area=i)
            for i, limit in enumerate([""] if kind == "keypoints" else ["1", "10", "100"]):
                found[f"{prefix}_mar{limit}"] = _mean_recall(curves, limit=i)
        return found

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row a class: ``label, name, images, objects``, then ``box_map, box_map50`` ...

        Crowds do not count as objects. Classes of which there is no object are NaN.
        """
        merged = self._evaluate()
        images: dict[int, int] = {}
        objects: dict[int, int] = {}
        for record in merged:
            present = [e["category_id"] for e in record.truth if not e["iscrowd"]]
            for label in present:
                objects[label] = objects.get(label, 0) + 1
            for label in set(present):
                images[label] = images.get(label, 0) + 1
        names = real_classes(self.class_names)
        rows = []
        for label in sorted({*names, *objects}):
            row: dict[str, Any] = {
                "label": label,
                "name": names.get(label, str(label)),
                "images": images.get(label, 0),
                "objects": objects.get(label, 0),
            }
            for kind, prefix in PREFIXES.items():
                if kind in self.iou_types:
                    curves = self._curves[kind]
                    row[f"{prefix}_map"] = _mean_precision(curves, label=label)
                    row[f"{prefix}_map50"] = _mean_precision(curves, label=label, iou=IOU_50)
            rows.append(row)
        return rows

    def _evaluate(self) -> list[ImageRecord]:
        """Count, unless nothing was added since the last time; return the images of all ranks."""
        if self._merged is None:
            self._merged = _gather(self.records)
            self._curves = {
                kind: _count(kind, self._merged, self.sigmas, fast=self.fast)
                for kind in self.iou_types
            }
        return self._merged


def _gather(records: dict[int, ImageRecord]) -> list[ImageRecord]:
    """Return the records of all ranks in the order of their image numbers, each number once."""
    ranks: list[Any] = [records]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        ranks = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, records)
    merged: dict[int, ImageRecord] = {}
    for part in ranks:
        for image_id, record in part.items():
            merged.setdefault(image_id, record)
    return [merged[image_id] for image_id in sorted(merged)]


def _dataset(records: list[ImageRecord]) -> dict[str, Any]:
    """Return the truth as the content of a COCO file."""
    annotations: list[dict[str, Any]] = []
    for record in records:
        for entry in record.truth:
            # numbers start at 1: to the evaluator, a match with number 0 is none
            new = {**entry, "id": len(annotations) + 1, "image_id": record.image_id}
            annotations.append(new)
    images = [{"id": r.image_id, "height": r.size[0], "width": r.size[1]} for r in records]
    labels = sorted({entry["category_id"] for entry in annotations})
    categories = [{"id": label, "name": str(label)} for label in labels]
    return {"images": images, "categories": categories, "annotations": annotations}


def _results(kind: str, records: list[ImageRecord]) -> list[dict[str, Any]]:
    """Return the detections as the content of a COCO results file.

    Each holds what is compared and no more: an object's area is its box's where it has one, else
    its mask's, and the area decides what is small.
    """
    found = []
    for record in records:
        values: list[Any] = []
        if kind == "bbox" and record.boxes is not None:
            name, values = "bbox", record.boxes.tolist()
        elif kind == "segm" and record.masks is not None:
            name, values = "segmentation", [dict(rle) for rle in record.masks]
        elif kind == "keypoints" and record.keypoints is not None:
            name, values = "keypoints", record.keypoints.tolist()
        rows = zip(record.labels.tolist(), record.scores.tolist(), values, strict=True)
        for label, score, value in rows:
            entry = {"image_id": record.image_id, "category_id": label, "score": score}
            found.append({**entry, name: value})
    return found


def _count(
    kind: str, records: list[ImageRecord], sigmas: Sequence[float], *, fast: bool
) -> _Curves | None:
    """Evaluate; None where there is no truth at all."""
    dataset = _dataset(records)
    if not dataset["annotations"]:
        return None
    labels = [category["id"] for category in dataset["categories"]]
    results = _results(kind, records)
    if fast and results:
        try:
            return _Curves(labels, *_run_fast(kind, dataset, results, sigmas))
        except Exception as error:
            warnings.warn(
                f"faster-coco-eval failed ({type(error).__name__}: {error}); "
                "pycocotools counts in its place",
                stacklevel=2,
            )
            dataset, results = _dataset(records), _results(kind, records)
    with _silence():
        return _Curves(labels, *_run_reference(kind, dataset, results, sigmas))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hold back what pycocotools prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _run_reference(
    kind: str, dataset: dict[str, Any], results: list[dict[str, Any]], sigmas: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = dataset
    truth.createIndex()
    if results:
        found = truth.loadRes(results)
    else:  # loadRes looks at the first result
        found = COCO()
        found.dataset = {**dataset, "annotations": []}
        found.createIndex()
    evaluation = COCOeval(truth, found, kind)
    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _run_fast(
    kind: str, dataset: dict[str, Any], results: list[dict[str, Any]], sigmas: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(dataset)
    evaluation = COCOeval_faster(
        truth, truth.loadRes(results), kind, kpt_oks_sigmas=np.array(sigmas)
    )
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean in per cent of what could be counted, NaN where nothing could."""
    counted = values[values > -1]
    return 100.0 * float(counted.mean()) if counted.size else math.nan


def _mean_precision(
    curves: _Curves | None, *, iou: int | None = None, area: int = 0, label: int | None = None
) -> float:
    if curves is None or (label is not None and label not in curves.labels):
        return math.nan
    values = curves.precision[:, :, :, area, -1]
    if label is not None:
        values = values[:, :, [curves.labels.index(label)]]
    return _mean(values if iou is None else values[iou])


def _mean_recall(curves: _Curves | None, *, limit: int) -> float:
    return math.nan if curves is None else _mean(curves.recall[:, :, 0, limit])


def format_table(rows: Sequence[Mapping[str, Any]], *, name_width: int = 24) -> str:
    """Return the rows of :meth:`CocoMetric.per_class` as a table for the console.

    Args:
        rows: What :meth:`CocoMetric.per_class` returned.
        name_width: Names are shortened to so many letters.
    """
    if not rows:
        return "no classes"

    def text(value: Any) -> str:
        if isinstance(value, float):
            return "-" if math.isnan(value) else f"{value:.1f}"
        shown = str(value)
        return shown if len(shown) <= name_width else shown[: name_width - 1] + "…"

    columns = list(rows[0])
    table = [columns, *([text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = []
    for line in table:
        cells = [
            cell.ljust(width) if column == "name" else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
