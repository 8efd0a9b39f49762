"""Training transforms of detectors: image, boxes, masks and keypoints change together.

Boxes are continuous pixel coordinates: a pixel's column ``x`` covers ``x`` to ``x + 1``, so that
the mirror image of ``x`` is ``W - x``. Every random number comes from the generator handed in.
Scaling to the network's size and normalising are the model's work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.transforms.classification import import_albumentations
from lightning_zoo.transforms.masks import Masks

Pixels = NDArray[np.uint8]
FILL = (123, 117, 104)  # ImageNet's mean colour


@dataclass(frozen=True)
class Sample:
    """An image with its M objects.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        boxes: float64 (M, 4), ``x1 y1 x2 y2`` in pixels.
        labels: int64 (M).
        area: float64 (M), pixels.
        iscrowd: int64 (M), 0 or 1.
        masks: The M masks, or None; a uint8 array (M, H, W) once they are decoded.
        keypoints: float64 (M, K, 3), ``x y visibility``, or None.
    """

    image: Pixels
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    area: NDArray[np.float64]
    iscrowd: NDArray[np.int64]
    masks: Masks | NDArray[np.uint8] | None = None
    keypoints: NDArray[np.float64] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def keep(self, rows: NDArray[Any]) -> Sample:
        """Return the sample with some of its objects.

        Args:
            rows: int (M') indices or bool (M).
        """
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        masks = self.masks
        return replace(
            self,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            area=self.area[rows],
            iscrowd=self.iscrowd[rows],
            masks=masks.keep(rows) if isinstance(masks, Masks) else _rows(masks, rows),
            keypoints=_rows(self.keypoints, rows),
        )


Transform = Callable[[Sample, np.random.Generator], Sample]


class Compose:
    """Transforms one after the other.

    Args:
        transforms: Transforms, first to last.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the changed sample."""
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


class HorizontalFlip:
    """Mirror image, boxes, masks and keypoints.

    Args:
        probability: Chance of mirroring.
        flip_order: For each keypoint of the mirrored image, the index it had before (left becomes
            right); see :class:`lightning_zoo.keypoints.Skeleton`.
    """

    def __init__(self, probability: float = 0.5, flip_order: Sequence[int] = ()) -> None:
        self.probability = probability
        self.flip_order = list(flip_order)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample, mirrored or not."""
        return self.flip(sample) if rng.random() < self.probability else sample

    def flip(self, sample: Sample) -> Sample:
        """Return the mirrored sample."""
        import cv2

        width = sample.size[1]
        boxes = sample.boxes.copy()
        boxes[:, 0], boxes[:, 2] = width - sample.boxes[:, 2], width - sample.boxes[:, 0]
        keypoints = sample.keypoints
        if keypoints is not None:
            keypoints = keypoints[:, self.flip_order]
            keypoints[..., 0] = width - keypoints[..., 0]
            keypoints = hide(keypoints, keypoints[..., 2] == 0)
        masks = sample.masks
        return replace(
            sample,
            image=cv2.flip(sample.image, 1),
            boxes=boxes,
            masks=masks.flip() if isinstance(masks, Masks) else _mirrored(masks),
            keypoints=keypoints,
        )


class PhotometricDistort:
    """Change brightness, contrast, saturation, hue and the order of the channels at random.

    Paper: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016,
    https://arxiv.org/abs/1512.02325. Each step is taken with the same chance; contrast comes
    before or after saturation and hue, by a coin. Values are rounded to uint8 after each step.

    Args:
        brightness: Range of the factor.
        contrast: Range of the factor.
        saturation: Range of the factor.
        hue: Range of the shift, in turns of the colour wheel.
        probability: Chance of each step.
    """

    def __init__(
        self,
        *,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
        probability: float = 0.5,
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.probability = probability

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with other colours."""
        image, early = sample.image, rng.random() < 0.5
        if self._chance(rng):
            image = adjust_brightness(image, rng.uniform(*self.brightness))
        if early and self._chance(rng):
            image = adjust_contrast(image, rng.uniform(*self.contrast))
        if self._chance(rng):
            image = adjust_saturation(image, rng.uniform(*self.saturation))
        if self._chance(rng):
            image = adjust_hue(image, rng.uniform(*self.hue))
        if not early and self._chance(rng):
            image = adjust_contrast(image, rng.uniform(*self.contrast))
        if self._chance(rng):
            image = reorder(image, rng.permutation(3).tolist())
        return replace(sample, image=image)

    def _chance(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self.probability)


class ZoomOut:
    """Place the image on a larger canvas, so that its objects are smaller.

    Paper: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016,
    https://arxiv.org/abs/1512.02325.

    Args:
        probability: Chance of it.
        side_range: Range of canvas side / image side, the same for both sides.
        fill: RGB of the canvas, 0 to 255.
    """

    def __init__(
        self,
        probability: float = 0.5,
        side_range: tuple[float, float] = (1.0, 4.0),
        fill: tuple[int, int, int] = FILL,
    ) -> None:
        if not 1 <= side_range[0] <= side_range[1]:
            raise ZooError(f"side_range is {side_range}; expected two numbers from 1 on, rising")
        self.probability = probability
        self.side_range = side_range
        self.fill = fill

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample on its canvas, or as it was."""
        if rng.random() >= self.probability:
            return sample
        height, width = sample.size
        factor = rng.uniform(*self.side_range)
        canvas_w, canvas_h = int(width * factor), int(height * factor)
        left = int((canvas_w - width) * rng.random())
        top = int((canvas_h - height) * rng.random())
        return cut(sample, -left, -top, canvas_w, canvas_h, fill=self.fill)


class IoUCrop:
    """Cut out a part that overlaps an object by at least a random amount, or keep the image.

    Paper: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016,
    https://arxiv.org/abs/1512.02325. Objects whose centre lies in the part are kept.

    Args:
        scale: Range of the part's width and height, each as a share of the image's.
        aspect_ratio: Range of width / height of the part.
        overlaps: The least overlaps (IoU of part and box) to choose from; 1 keeps the image.
        trials: Parts that are tried before another overlap is chosen.
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.3, 1.0),
        aspect_ratio: tuple[float, float] = (0.5, 2.0),
        overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
    ) -> None:
        if not any(overlap >= 1 for overlap in overlaps):
            raise ZooError(
                f"overlaps is {tuple(overlaps)}; expected 1 among them, to end the search"
            )
        self.scale = scale
        self.aspect_ratio = aspect_ratio
        self.overlaps = tuple(overlaps)
        self.trials = trials

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the part with its objects, or the sample as it was."""
        found = self.draw(sample.boxes, sample.size, rng)
        if found is None:
            return sample
        (left, top, right, bottom), _ = found
        inside = centres_inside(sample.boxes, found[0])
        return cut(sample.keep(inside), left, top, right - left, bottom - top)

    def draw(
        self, boxes: NDArray[np.float64], size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[tuple[int, int, int, int], float] | None:
        """Return the part (x1 y1 x2 y2 in pixels) and its least overlap; None keeps the image."""
        if not len(boxes):
            return None  # no part has an object in it
        height, width = size
        low, high = self.scale
        while True:
            overlap = self.overlaps[int(rng.integers(len(self.overlaps)))]
            if overlap >= 1:
                return None
            drawn = rng.random((self.trials, 4))  # all trials at once; the first good one counts
            w = (width * (low + (high - low) * drawn[:, 0])).astype(np.int64)
            h = (height * (low + (high - low) * drawn[:, 1])).astype(np.int64)
            left = ((width - w) * drawn[:, 2]).astype(np.int64)
            top = ((height - h) * drawn[:, 3]).astype(np.int64)
            parts = np.stack([left, top, left + w, top + h], axis=1)
            ratio = w / np.maximum(h, 1)
            fits = (w > 0) & (h > 0)
            fits &= (self.aspect_ratio[0] <= ratio) & (ratio <= self.aspect_ratio[1])
            kept = centres_inside(boxes, parts)
            best = np.where(kept, iou_with(boxes, parts), -1).max(axis=1)
            good = np.flatnonzero(fits & (best >= overlap))
            if len(good):
                x0, y0, x1, y1 = parts[good[0]].tolist()
                return (x0, y0, x1, y1), overlap


class Albumentations:
    """A list of albumentations transforms on image, boxes, masks and keypoints together.

    An object whose box leaves the image is dropped with all that belongs to it; a keypoint that
    leaves gets visibility 0. Where the list mirrors the image, left and right keypoints change
    places.

    Args:
        transforms: albumentations transforms, already built.
        flip_order: As in :class:`HorizontalFlip`.

    Raises:
        ZooError: If albumentations is missing, or the AGPL distribution stands in its place.
    """

    def __init__(self, transforms: Sequence[Any], flip_order: Sequence[int] = ()) -> None:
        library = import_albumentations()
        self.flip_order = list(flip_order)
        self.compose: Any = library.Compose(
            list(transforms),
            bbox_params=library.BboxParams(format="pascal_voc", label_fields=["rows"], clip=True),
            keypoint_params=library.KeypointParams(format="xy", remove_invisible=False),
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the changed sample, its masks decoded."""
        self.compose.set_random_seed(int(rng.integers(2**31)))
        height, width = sample.size
        masks = sample.masks.decode() if isinstance(sample.masks, Masks) else sample.masks
        points = np.zeros((0, 2)) if sample.keypoints is None else sample.keypoints[..., :2]
        corners = np.array([[0, 0], [width, 0], [0, height]], np.float64)  # tell of mirroring
        inputs: dict[str, Any] = {
            "image": np.ascontiguousarray(sample.image),
            "bboxes": sample.boxes,
            "rows": np.arange(len(sample.boxes)),
            "keypoints": np.concatenate([corners, points.reshape(-1, 2)]),
        }
        if masks is not None and len(masks):
            inputs["masks"] = list(masks)
        out = self.compose(**inputs)
        image = np.asarray(out["image"])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ZooError(
                f"the albumentations list returned {image.dtype} {image.shape}; expected uint8 "
                "(H, W, 3): leave out Normalize and ToTensorV2, the task normalises on the device"
            )
        moved = np.asarray(out["keypoints"], np.float64)[:, :2]
        keypoints = sample.keypoints
        if keypoints is not None:
            keypoints = keypoints.copy()
            keypoints[..., :2] = moved[3:].reshape(points.shape)
            across, down = moved[1] - moved[0], moved[2] - moved[0]
            if self.flip_order and across[0] * down[1] - across[1] * down[0] < 0:
                keypoints = keypoints[:, self.flip_order]
            # it mirrors points as pixels, x to W - 1 - x, so that one at the edge may leave by 1
            edge = np.clip(keypoints[..., :2], 0, image.shape[1::-1])
            near = np.abs(edge - keypoints[..., :2]) <= 1
            keypoints[..., :2] = np.where(near, edge, keypoints[..., :2])
            keypoints = hide_outside(keypoints, *image.shape[:2])
        if masks is not None:
            done = out.get("masks", ())
            masks = np.array([*done], np.uint8).reshape(-1, *image.shape[:2])
        rows = np.asarray(out["rows"], np.int64).reshape(-1)
        kept = replace(sample, masks=masks, keypoints=keypoints).keep(rows)
        boxes = np.asarray(out["bboxes"], np.float64).reshape(-1, 4)
        area = scaled_area(kept.area, kept.boxes, boxes)
        if isinstance(kept.masks, np.ndarray):
            area = kept.masks.sum(axis=(1, 2), dtype=np.float64)
        return replace(kept, image=image, boxes=boxes, area=area)


Augmentation = Literal["hflip", "ssd", "ssdlite"]
AUGMENTATIONS = ("hflip", "ssd", "ssdlite")


def make_transform(name: str | None, flip_order: Sequence[int] = ()) -> Compose:
    """Return the transform of a reference recipe: ``hflip``, ``ssd``, ``ssdlite`` or None.

    Args:
        name: The recipe's augmentation; None changes nothing.
        flip_order: As in :class:`HorizontalFlip`.

    Raises:
        ZooError: If there is no such augmentation.
    """
    flip = HorizontalFlip(0.5, flip_order)
    made: dict[str | None, list[Transform]] = {
        None: [],
        "hflip": [flip],
        "ssd": [PhotometricDistort(), ZoomOut(), IoUCrop(), flip],
        "ssdlite": [IoUCrop(), flip],
    }
    if name not in made:
        raise unknown("augmentation", str(name), AUGMENTATIONS)
    return Compose(made[name])


def cut(
    sample: Sample,
    left: int,
    top: int,
    width: int,
    height: int,
    *,
    fill: tuple[int, int, int] = FILL,
) -> Sample:
    """Return a cut-out of a sample, which may stick out of the image on all sides.

    Boxes are clipped to it and areas shrink as their boxes do; keypoints outside are hidden.

    Args:
        sample: The sample.
        left: First column; negative outside of the image.
        top: First row.
        width: Width of the cut-out in pixels.
        height: Height of the cut-out in pixels.
        fill: RGB of what lies outside of the image, 0 to 255.
    """
    import cv2

    old_height, old_width = sample.size
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, old_width), min(top + height, old_height)
    image = sample.image[y0:y1, x0:x1]
    if image.shape[:2] != (height, width):
        frame = (y0 - top, top + height - y1, x0 - left, left + width - x1)
        image = cv2.copyMakeBorder(image, *frame, cv2.BORDER_CONSTANT, value=fill)
    moved = sample.boxes - (left, top, left, top)
    boxes = clip_boxes(moved, height, width)
    keypoints = sample.keypoints
    if keypoints is not None:
        keypoints = hide_outside(keypoints - (left, top, 0), height, width)
    masks = sample.masks
    if isinstance(masks, np.ndarray):
        raise TypeError("masks were decoded before the last transform")
    return replace(
        sample,
        image=image,
        boxes=boxes,
        area=scaled_area(sample.area, moved, boxes),
        masks=None if masks is None else masks.window(left, top, width, height),
        keypoints=keypoints,
    )


def clip_boxes(boxes: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return boxes float64 (M, 4) clipped to an image of ``height`` x ``width`` pixels."""
    return np.clip(boxes, 0, (width, height, width, height))


def centres_inside(
    boxes: NDArray[np.float64], parts: NDArray[np.int64] | tuple[int, int, int, int]
) -> NDArray[np.bool_]:
    """Tell which boxes (M, 4) have their centre strictly within parts (..., 4): bool (..., M)."""
    x0, y0, x1, y1 = (edge[..., None] for edge in np.moveaxis(np.asarray(parts), -1, 0))
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    inside: NDArray[np.bool_] = (x0 < x) & (x < x1) & (y0 < y) & (y < y1)
    return inside


def iou_with(boxes: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the overlap (IoU) of boxes (M, 4) with each of some parts (T, 4): (T, M)."""
    low = np.maximum(boxes[:, :2], parts[:, None, :2])
    high = np.minimum(boxes[:, 2:], parts[:, None, 2:])
    common = (high - low).clip(0).prod(axis=2)
    wholes = (parts[:, 2:] - parts[:, :2]).prod(axis=1)
    share: NDArray[np.float64] = common / (_box_area(boxes) + wholes[:, None] - common)
    return share


def scaled_area(
    area: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return areas (M) that shrink as the boxes (M, 4) did."""
    old = _box_area(before)
    return area * np.divide(_box_area(after), old, out=np.zeros_like(old), where=old > 0)


def hide(keypoints: NDArray[np.float64], which: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return keypoints (M, K, 3) with those of ``which`` (M, K) set to 0 0 0."""
    return np.where(which[..., None], 0.0, keypoints)


def hide_outside(keypoints: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return keypoints (M, K, 3) with the unlabelled and those out of the image set to 0 0 0."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return hide(keypoints, ~inside | (keypoints[..., 2] == 0))


def adjust_brightness(image: Pixels, factor: float) -> Pixels:
    """Return uint8 (H, W, 3) times a factor."""
    return _look_up(image, np.arange(256) * factor)


def adjust_contrast(image: Pixels, factor: float) -> Pixels:
    """Return uint8 (H, W, 3) drawn towards its mean grey (factor 0) or away from it (above 1)."""
    mean = round(float(_grey(image).mean()))
    return _look_up(image, mean + (np.arange(256) - mean) * factor)


def adjust_saturation(image: Pixels, factor: float) -> Pixels:
    """Return uint8 (H, W, 3) drawn towards its own grey (factor 0) or away from it (above 1)."""
    import cv2

    grey = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, 0), np.uint8)


def adjust_hue(image: Pixels, turns: float) -> Pixels:
    """Return uint8 (H, W, 3) with its hues turned, by 1 for the whole colour wheel."""
    import cv2

    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV_FULL)
    table = ((np.arange(256) + round(turns * 256)) % 256).astype(np.uint8)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table), hsv, 0)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def reorder(image: Pixels, order: Sequence[int]) -> Pixels:
    """Return uint8 (H, W, 3) with its channels in another order."""
    import cv2

    return np.asarray(cv2.merge([cv2.extractChannel(image, i) for i in order]), np.uint8)


def _look_up(image: Pixels, values: NDArray[np.floating[Any]]) -> Pixels:
    import cv2

    table = np.rint(values).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(image), table), np.uint8)


def _grey(image: Pixels) -> Pixels:
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8)


def _box_area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    return sides[:, 0] * sides[:, 1]


def _rows(values: NDArray[Any] | None, rows: NDArray[Any]) -> NDArray[Any] | None:
    return None if values is None else values[rows]


def _mirrored(masks: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    return None if masks is None else masks[..., ::-1]
