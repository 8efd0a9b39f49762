from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_zoo.drawing import Tile
from lightning_zoo.drawing.arrays import decode_mask
from lightning_zoo.drawing.segmentation import (
    draw_classes,
    draw_classes_within,
    palette,
    percent,
    segmentation_tile,
    shares,
)
from lightning_zoo.engine.predict.results import ImageResult, Pixels, Row
from lightning_zoo.models.registry import ModelEntry
from lightning_zoo.transforms.segmentation import EvalTransform

TILE = 480  # pixels


@dataclass(frozen=True)
class Segmentation(ImageResult):
    """The class of every pixel of one image, or of one frame.

    Attributes:
        file: The image or video.
        width: Its width in pixels.
        height: Its height in pixels.
        classes: Names of the classes found with their share of the pixels, from 0 to 1, the largest
            first; the background only where there is nothing else.
        labels: The class of every pixel, uint8 ``(height, width)``.
        class_names: Name of each class.
        frame: Of a film's frames: which one, counted from 0.
        time: Of a film's frames: seconds since the first one.
    """

    width: int = field()
    height: int = field()
    classes: tuple[tuple[str, float], ...]
    labels: NDArray[np.uint8] = field(repr=False, compare=False)
    class_names: Sequence[str] = field(default=(), kw_only=True, repr=False)

    def summary(self) -> str:
        """Return what a person reads of it, in one line."""
        return ", ".join(f"{name} {percent(share)}" for name, share in self.classes)

    def found(self) -> dict[str, Any]:
        """Return the classes as plain data, without the pixels."""
        classes = [{"label": name, "share": share} for name, share in self.classes]
        return {"width": self.width, "height": self.height, "classes": classes}

    def rows(self) -> Iterator[Row]:
        """Yield a row for each class; its score is its share of the pixels."""
        for name, share in self.classes:
            yield {"label": name, "score": share}

    def draw(self, image: Pixels) -> Pixels:
        """Return the image, uint8 RGB ``(H, W, 3)``, with the classes and their names."""
        return draw_classes_within(image, self.labels, self.class_names)

    def coco_entries(self) -> list[dict[str, Any]]:
        """Return an entry with a mask for each class of :attr:`classes`."""
        from pycocotools import mask as coco_mask

        entries = []
        numbers = {name: number for number, name, _ in shares(self.labels, self.class_names)}
        for name, _ in self.classes:
            number = numbers.get(name, 0)  # the background is not among the shares
            mask = _run_lengths(self.labels == number)
            entries.append({
                "label": name, "category_id": number, "score": 1.0,
                "bbox": coco_mask.toBbox(mask).tolist(), "area": float(coco_mask.area(mask)),
                "segmentation": mask,
            })  # fmt: skip
        return entries

    def record(self) -> dict[str, Any]:
        """Return all that a frame says, as plain data: a mask for each label."""
        found = np.unique(self.labels).tolist()
        masks = [(label, _run_lengths(self.labels == label)) for label in found]
        return {"classes": self.classes, "labels": masks}

    def restored(self, record: Mapping[str, Any]) -> Self:
        """Return the result that a record says."""
        labels = np.zeros((self.height, self.width), np.uint8)
        for label, mask in record["labels"]:
            labels[decode_mask([mask], 0)] = label
        classes = tuple((name, share) for name, share in record["classes"])
        return replace(self, **{**record, "classes": classes, "labels": labels})


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask ``(H, W)`` in COCO's compressed run lengths."""
    from pycocotools import mask as coco_mask

    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


@dataclass
class Segmenter:
    """A network with all that it takes to use it.

    Attributes:
        logits: Returns ``(C, H, W)`` for a uint8 image ``(3, H, W)``.
        transform: Makes a uint8 tensor ``(3, H, W)`` of a decoded image and its label map.
        class_names: Name of each class.
        batch: Images at once; they differ in size, and one at a time needs the least memory.
    """

    logits: Callable[[Tensor], Tensor]
    transform: Any
    class_names: Sequence[str]
    batch: int = 1

    def __call__(self, images: Sequence[tuple[Path, Pixels]]) -> list[Segmentation]:
        """Return the classes of each pair of file and decoded image, uint8 ``(H, W, 3)``."""
        return [self._result(file, image) for file, image in images]

    def _result(self, file: Path, image: Pixels) -> Segmentation:
        height, width = image.shape[:2]
        small, _ = self.transform(image, np.zeros((height, width), np.uint8))
        labels = upsampled_labels(self.logits(small), height, width).numpy()
        found = shares(labels, self.class_names) or [(0, self.class_names[0], 1.0)]
        classes = tuple((name, round(share, 6)) for _, name, share in found)
        names = self.class_names
        return Segmentation(str(file), width, height, classes, labels, class_names=names)

    def tile(self, image: Pixels, result: Segmentation) -> Tile:
        """Return the image with its classes, for a grid."""
        return segmentation_tile(image, result.labels, self.class_names, width=TILE)

    def pictures(self, image: Pixels, result: Segmentation) -> dict[str, Image.Image]:
        """Return the label map, and the image with its classes in its own size unless small."""
        mask = Image.fromarray(result.labels)
        mask.putpalette(palette().tobytes())
        if max(image.shape[:2]) < TILE:
            return {"_mask": mask}
        return {"": Image.fromarray(draw_classes(image, result.labels, self.class_names)),
                "_mask": mask}  # fmt: skip


def upsampled_labels(logits: Tensor, height: int, width: int) -> Tensor:
    """Return the best class of each pixel, uint8 ``(height, width)``, of logits ``(C, h, w)``.

    The logits are made larger bilinearly, class by class: those of all 21 classes of a photo of 12
    megapixels would take a gigabyte.
    """
    labels = torch.zeros(height, width, dtype=torch.uint8)
    best = torch.full((height, width), -torch.inf)
    for label, plane in enumerate(logits.float().cpu()):
        large = interpolate(plane[None, None], size=(height, width), mode="bilinear")[0, 0]
        labels.masked_fill_(large > best, label)
        torch.maximum(best, large, out=best)
    return labels


def published_segmenter(entry: ModelEntry, weights: str) -> Segmenter:
    """Return a network of the zoo with its published weights, or those of a file."""
    facts = entry.get_weights(weights if weights in entry.weights else None)
    model = entry.load_builder()(weights=weights).eval()
    pre = facts.preprocessing
    assert pre is not None
    assert isinstance(pre.resize, int)
    mean, std = torch.tensor(pre.mean).view(3, 1, 1), torch.tensor(pre.std).view(3, 1, 1)

    def logits(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(((image.float() / 255 - mean) / std)[None])["out"][0]

    return Segmenter(logits, EvalTransform(pre.resize), facts.class_names)


def segmenter_of_run(task: Any, data: Any, class_names: Sequence[str]) -> Segmenter:
    """Return the network that a run trained."""

    def logits(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return task(image[None])[0]

    return Segmenter(logits, data.eval_transform, class_names)
