from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_zoo.drawing import Tile
from lightning_zoo.drawing.detection import MOST_PIXELS, detection_tile, draw_objects
from lightning_zoo.engine.predict.results import ImageResult, Pixels, Row
from lightning_zoo.engine.predict.thresholds import Thresholds
from lightning_zoo.keypoints import Skeleton, get_skeleton
from lightning_zoo.metrics.coco import encode_masks
from lightning_zoo.models.registry import ModelEntry

Found = dict[str, Any]
TILE = 480  # pixels


@dataclass(frozen=True)
class DetectedObject:
    """One object in an image.

    Attributes:
        label: Name of its class.
        score: Score from 0 to 1.
        box: ``x1, y1, x2, y2`` in pixels of the image.
        mask: COCO's run-length encoding, ``{"size": [h, w], "counts": text}``, of networks with a
            mask head.
        keypoints: ``x, y, score`` of each keypoint, of networks with a keypoint head; the score is
            a logit, above 0 where the network is sure.
        number: The network's label of the class; COCO's number of published detectors.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: dict[str, Any] | None = None
    keypoints: tuple[tuple[float, float, float], ...] | None = None
    number: int = field(default=0, kw_only=True)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, rounded; what the network has no head for is left out."""
        found: dict[str, Any] = {
            "label": self.label,
            "score": round(self.score, 4),
            "box": [round(v, 1) for v in self.box],
        }
        if self.mask is not None:
            found["mask"] = self.mask
        if self.keypoints is not None:
            found["keypoints"] = [
                (round(x, 1), round(y, 1), round(s, 3)) for x, y, s in self.keypoints
            ]
        return found

    def as_coco(self) -> dict[str, Any]:
        """Return it as COCO's entry, in full precision."""
        x1, y1, x2, y2 = np.array(self.box, np.float32)  # subtracted in the network's precision
        box = [float(v) for v in (x1, y1, x2 - x1, y2 - y1)]
        found = {
            "label": self.label, "category_id": self.number, "score": self.score, "bbox": box,
            "area": box[2] * box[3],
        }  # fmt: skip
        if self.mask is not None:
            from pycocotools import mask as coco_mask

            found |= {"segmentation": self.mask, "area": float(coco_mask.area(self.mask))}
        if self.keypoints is not None:
            found["keypoints"] = [v for x, y, s in self.keypoints for v in (x, y, 2 * (s > 0))]
        return found


@dataclass(frozen=True)
class Detections(ImageResult):
    """What a detector finds in one image, or in one frame.

    Attributes:
        file: The image or video.
        width: Its width in pixels.
        height: Its height in pixels.
        objects: The objects, best first.
        raw: The network's tensors of the same objects, the masks run-length encoded; empty for the
            frames of a film.
        skeleton: What the keypoints are, where there are some.
        frame: Of a film's frames: which one, counted from 0.
        time: Of a film's frames: seconds since the first one.
    """

    width: int = field()
    height: int = field()
    objects: tuple[DetectedObject, ...]
    raw: Found = field(default_factory=dict, repr=False, compare=False)
    skeleton: Skeleton | None = field(default=None, kw_only=True, repr=False)

    def summary(self) -> str:
        """Return what a person reads of it, in one line."""
        counts: dict[str, int] = {}
        for one in self.objects:
            counts[one.label] = counts.get(one.label, 0) + 1
        return ", ".join(f"{n} {label}" for label, n in counts.items()) or "nothing"

    def found(self) -> dict[str, Any]:
        """Return the objects as plain data, in pixels to one decimal."""
        objects = [one.as_json() for one in self.objects]
        return {"width": self.width, "height": self.height, "objects": objects}

    def rows(self) -> Iterator[Row]:
        """Yield a row for each object."""
        for one in self.objects:
            found = one.as_json()
            x1, y1, x2, y2 = found["box"]
            size = {"width": round(x2 - x1, 1), "height": round(y2 - y1, 1)}
            yield {"label": one.label, "score": found["score"], "x": x1, "y": y1, **size}

    def draw(self, image: Pixels) -> Pixels:
        """Return the image, uint8 RGB ``(H, W, 3)``, with its objects."""
        return self.drawn(image, None)

    def drawn(self, image: Pixels, most_pixels: int | None) -> Pixels:
        """Return the image with its objects, reduced to ``most_pixels`` where it is longer."""
        found = self.arrays()
        keypoints = found.get("keypoints")
        if keypoints is not None:  # those that the network is not sure of are not drawn
            keypoints = np.dstack([keypoints[..., :2], found["keypoints_scores"] > 0])
        return draw_objects(
            image, found["boxes"], found["labels"], self.names(), scores=found["scores"],
            masks=found.get("masks"), keypoints=keypoints, skeleton=self.skeleton,
            most_pixels=most_pixels,
        )  # fmt: skip

    def names(self) -> dict[int, str]:
        """Return the names of the labels found."""
        return {one.number: one.label for one in self.objects}

    def arrays(self) -> Found:
        """Return the objects as drawing takes them, as :attr:`raw` has them."""
        objects = self.objects
        found: Found = {
            "boxes": np.array([one.box for one in objects], np.float64).reshape(-1, 4),
            "labels": np.array([one.number for one in objects], np.int64),
            "scores": np.array([one.score for one in objects], np.float64),
        }
        if objects and objects[0].mask is not None:
            found["masks"] = [one.mask for one in objects]
        if objects and objects[0].keypoints is not None:
            points = np.array([one.keypoints for one in objects])  # (N, K, 3)
            found["keypoints_scores"] = points[..., 2].copy()
            found["keypoints"] = points
            points[..., 2] = 1
        return found

    def coco_entries(self) -> list[dict[str, Any]]:
        """Return an entry for each object."""
        return [one.as_coco() for one in self.objects]

    def record(self) -> dict[str, Any]:
        """Return all that a frame says, as plain data."""
        return {"objects": [asdict(one) for one in self.objects]}

    def restored(self, record: Mapping[str, Any]) -> Self:
        """Return the result that a record says."""
        objects = []
        for one in record["objects"]:
            points = one["keypoints"]
            keypoints = None if points is None else tuple(tuple(point) for point in points)
            objects.append(
                DetectedObject(**{**one, "box": tuple(one["box"]), "keypoints": keypoints})
            )
        return replace(self, **{**record, "objects": tuple(objects), "raw": {}})


@dataclass
class Detector:
    """A network with all that it takes to use it.

    Attributes:
        detect: Returns the network's detections of uint8 images, a list of ``(3, H, W)``.
        class_names: Name of each class; 0 is the background.
        thresholds: Score from which an object counts as found.
        skeleton: What the keypoints are, where the network finds some.
        batch: Images at once; they differ in size, and one at a time needs the least memory.
    """

    detect: Callable[[list[Tensor]], list[Found]]
    class_names: Sequence[str]
    thresholds: Thresholds
    skeleton: Skeleton | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        self._least = torch.tensor(self.thresholds.of(self.class_names))

    def __call__(self, images: Sequence[tuple[Path, Pixels]]) -> list[Detections]:
        """Return the objects of each pair of file and decoded image, uint8 ``(H, W, 3)``."""
        tensors = [torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1))) for _, i in images]
        found = self.detect(tensors)
        return [self._result(f, i, one) for (f, i), one in zip(images, found, strict=True)]

    def _result(self, file: Path, image: Pixels, found: Found) -> Detections:
        kept = found["scores"] >= self._least[found["labels"]]
        found = {name: value[kept] for name, value in found.items()}
        if "masks" in found:  # run lengths take a thousandth of the memory
            found["masks"] = [_plain(rle) for rle in encode_masks(found["masks"])]
        height, width = image.shape[:2]
        objects = [self._object(found, i) for i in range(int(kept.sum()))]
        return Detections(str(file), width, height, tuple(objects), found, skeleton=self.skeleton)

    def _object(self, found: Found, i: int) -> DetectedObject:
        keypoints = None
        if "keypoints" in found:
            points, sure = found["keypoints"][i].tolist(), found["keypoints_scores"][i].tolist()
            keypoints = tuple((x, y, s) for (x, y, _), s in zip(points, sure, strict=True))
        label = int(found["labels"][i])
        return DetectedObject(
            self.class_names[label], float(found["scores"][i]), tuple(found["boxes"][i].tolist()),
            found["masks"][i] if "masks" in found else None, keypoints, number=label,
        )  # fmt: skip

    def tile(self, image: Pixels, result: Detections) -> Tile:
        """Return the image with its objects, for a grid."""
        return detection_tile(
            image, result.arrays(), result.names(), None, skeleton=self.skeleton,
            score_threshold=0.0, width=TILE,
        )  # fmt: skip

    def pictures(self, image: Pixels, result: Detections) -> dict[str, Image.Image]:
        """Return the image with its objects in its own size, none where that is small."""
        if max(image.shape[:2]) < TILE:
            return {}
        return {"": Image.fromarray(result.drawn(image, MOST_PIXELS))}


def _plain(rle: dict[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {
        "size": list(rle["size"]),
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }


def published_detector(entry: ModelEntry, weights: str, thresholds: Thresholds) -> Detector:
    """Return a detector of the zoo with its published weights, or those of a file."""
    facts = entry.get_weights(weights if weights in entry.weights else None)
    model = entry.load_builder()(weights=weights).eval()
    model.to(memory_format=torch.channels_last)  # a fifth faster, on a CPU too

    def detect(images: list[Tensor]) -> list[Found]:
        with torch.inference_mode():
            return model(images)

    skeleton = get_skeleton("coco_person") if "kp_map" in facts.metrics else None
    return Detector(detect, facts.class_names, thresholds, skeleton)


def detector_of_run(task: Any, class_names: Sequence[str], thresholds: Thresholds) -> Detector:
    """Return the detector that a run trained."""
    task.model.to(memory_format=torch.channels_last)  # a fifth faster, on a CPU too

    def detect(images: list[Tensor]) -> list[Found]:
        with torch.inference_mode():
            return task.predict_step({"image": images, "id": []}, 0)["detections"]

    return Detector(detect, class_names, thresholds, getattr(task, "skeleton", None))
