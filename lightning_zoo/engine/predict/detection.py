from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_zoo.drawing import Tile
from lightning_zoo.drawing.detection import detection_tile, draw_objects
from lightning_zoo.keypoints import Skeleton, get_skeleton
from lightning_zoo.metrics.coco import encode_masks
from lightning_zoo.models.registry import ModelEntry

Found = dict[str, Tensor]
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
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: dict[str, Any] | None = None
    keypoints: tuple[tuple[float, float, float], ...] | None = None


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image.

    Attributes:
        file: The image.
        width: Its width in pixels.
        height: Its height in pixels.
        objects: The objects, best first.
        raw: The network's tensors of the same objects, for drawing.
    """

    file: str
    width: int
    height: int
    objects: tuple[DetectedObject, ...]
    raw: Found

    def summary(self) -> str:
        """Return what a person reads of it, in one line."""
        counts: dict[str, int] = {}
        for one in self.objects:
            counts[one.label] = counts.get(one.label, 0) + 1
        return ", ".join(f"{n} {label}" for label, n in counts.items()) or "nothing"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; what the network has no head for is left out."""
        objects = [{k: v for k, v in asdict(one).items() if v is not None} for one in self.objects]
        size = {"width": self.width, "height": self.height}
        return {"file": self.file, **size, "objects": objects}


@dataclass
class Detector:
    """A network with all that it takes to use it.

    Attributes:
        detect: Returns the network's detections of uint8 images, a list of ``(3, H, W)``.
        class_names: Name of each class; 0 is the background.
        threshold: Score from which an object counts as found.
        skeleton: What the keypoints are, where the network finds some.
        batch: Images at once; they differ in size, and one at a time needs the least memory.
    """

    detect: Callable[[list[Tensor]], list[Found]]
    class_names: Sequence[str]
    threshold: float
    skeleton: Skeleton | None = None
    batch: int = 1

    def __call__(self, images: Sequence[tuple[Path, Any]]) -> list[Detections]:
        """Return the objects of each pair of file and decoded image, uint8 ``(H, W, 3)``."""
        tensors = [torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1))) for _, i in images]
        found = self.detect(tensors)
        return [self._result(f, i, one) for (f, i), one in zip(images, found, strict=True)]

    def _result(self, file: Path, image: Any, found: Found) -> Detections:
        kept = found["scores"] >= self.threshold
        found = {name: value[kept] for name, value in found.items()}
        masks = encode_masks(found["masks"]) if "masks" in found else None
        objects = []
        for i, box in enumerate(found["boxes"].tolist()):
            keypoints = None
            if "keypoints" in found:
                points = zip(
                    found["keypoints"][i].tolist(), found["keypoints_scores"][i].tolist(),
                    strict=True,
                )  # fmt: skip
                keypoints = tuple(
                    (round(x, 1), round(y, 1), round(s, 3)) for (x, y, _), s in points
                )
            one = DetectedObject(
                label=self.class_names[int(found["labels"][i])],
                score=round(float(found["scores"][i]), 4),
                box=tuple(round(v, 1) for v in box),
                mask=_plain(masks[i]) if masks is not None else None,
                keypoints=keypoints,
            )
            objects.append(one)
        height, width = image.shape[:2]
        return Detections(str(file), width, height, tuple(objects), found)

    def tile(self, image: Any, result: Detections) -> Tile:
        """Return the image with its objects, for a grid."""
        return detection_tile(
            image, result.raw, self.class_names, None,
            skeleton=self.skeleton, score_threshold=self.threshold, width=TILE,
        )  # fmt: skip

    def pictures(self, image: Any, result: Detections) -> dict[str, Image.Image]:
        """Return the image with its objects in its own size, none where that is small."""
        if max(image.shape[:2]) < TILE:
            return {}
        raw = result.raw
        drawn = draw_objects(
            image, raw["boxes"], raw["labels"], self.class_names,
            scores=raw["scores"], masks=raw.get("masks"), keypoints=_with_scores(raw),
            skeleton=self.skeleton,
        )  # fmt: skip
        return {"": Image.fromarray(drawn)}


def _with_scores(raw: Found) -> Tensor | None:
    """Return keypoints whose visibility is 0 where the network is not sure of them."""
    if "keypoints" not in raw:
        return None
    keypoints = raw["keypoints"].clone()
    keypoints[..., 2] = (raw["keypoints_scores"] > 0).to(keypoints.dtype)
    return keypoints


def _plain(rle: dict[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {
        "size": list(rle["size"]),
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }


def published_detector(entry: ModelEntry, weights: str, threshold: float) -> Detector:
    """Return a detector of the zoo with its published weights, or those of a file."""
    facts = entry.get_weights(weights if weights in entry.weights else None)
    model = entry.load_builder()(weights=weights).eval()
    model.to(memory_format=torch.channels_last)  # a fifth faster, on a CPU too

    def detect(images: list[Tensor]) -> list[Found]:
        with torch.inference_mode():
            return model(images)

    skeleton = get_skeleton("coco_person") if "kp_map" in facts.metrics else None
    return Detector(detect, facts.class_names, threshold, skeleton)


def detector_of_run(task: Any, class_names: Sequence[str], threshold: float) -> Detector:
    """Return the detector that a run trained."""
    task.model.to(memory_format=torch.channels_last)  # a fifth faster, on a CPU too

    def detect(images: list[Tensor]) -> list[Found]:
        with torch.inference_mode():
            return task.predict_step({"image": images, "id": []}, 0)["detections"]

    return Detector(detect, class_names, threshold, getattr(task, "skeleton", None))
