"""Samples of COCO's format, and their batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from lightning_zoo.datamodules.base import Split, ZooDataset
from lightning_zoo.datamodules.coco_index import CocoIndex
from lightning_zoo.datamodules.loader import Refused
from lightning_zoo.transforms.decode import DecodeError, read_image
from lightning_zoo.transforms.detection import Albumentations, Compose, Sample, clip_boxes
from lightning_zoo.transforms.masks import Masks, repack, rle_area, to_rle

MAX_MASK_BYTES = 2**32  # of an image's masks, a byte a pixel
_ALIGN = 16  # bytes; where the tensors of a batch begin in their common memory


class CocoDataset(ZooDataset):
    """Images with objects: ``image`` uint8 (3, H, W), ``target``, ``id`` (COCO's image id).

    In evaluation the target holds the crowds too, and the file's records as ``annotations``.

    Args:
        split: Split that the images belong to.
        folder: Folder of the images.
        index: The annotation file.
        images: int64 (N), positions in the index of the images to yield.
        transform: Changes a sample; None in evaluation.
    """

    def __init__(
        self,
        split: Split,
        folder: Path,
        index: CocoIndex,
        images: NDArray[np.int64],
        transform: Compose | Albumentations | None = None,
    ) -> None:
        super().__init__(split)
        self.folder = str(folder)
        self.index = index
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Return the image's file within the root."""
        return f"{os.path.basename(self.folder)}/{self.index.names[int(self.images[index])]}"

    def load(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one sample.

        Raises:
            DecodeError: If the image cannot be read or has another size than the file says.
        """
        image = int(self.images[index])
        path = f"{self.folder}/{self.index.names[image]}"
        pixels = read_image(path)
        height, width = (int(n) for n in self.index.sizes[image])
        if pixels.shape[:2] != (height, width):
            raise DecodeError(
                path,
                f"it has {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width) and its "
                f"annotations were made for {height} x {width}",
            )
        found = self.index.rows(image)
        size = (found.stop - found.start) * height * width
        if self.index.has_masks and size > MAX_MASK_BYTES:
            raise DecodeError(
                path,
                f"its {found.stop - found.start} masks of {height} x {width} pixels take {size} "
                f"bytes, more than {MAX_MASK_BYTES}; scale it down, or cut it into parts",
            )
        number = int(self.index.image_ids[image])
        if self.split == "train":
            sample = self.training_sample(index, pixels)
            if self.transform is not None:
                sample = self.transform(sample, rng)
            return {"image": to_tensor(sample.image), "target": make_target(sample, number),
                    "id": number}  # fmt: skip
        rows = np.arange(found.start, found.stop)
        rles: dict[int, dict[str, Any]] = {}
        if self.index.has_masks:  # from polygons once, for the records and for the tensors
            segment = self.index.segment
            rles = {row: to_rle(segment(row), height, width) for row in rows.tolist()}
        sample = self._sample(pixels, rows[self.index.usable[rows]], rles)
        target = make_target(sample, number)
        target["annotations"] = [self._record(row, number, rles) for row in rows.tolist()]
        return {"image": to_tensor(pixels), "target": target, "id": number}

    def training_sample(self, index: int, pixels: NDArray[np.uint8]) -> Sample:
        """Return what training sees of an image that was read: no crowds, nothing without area.

        Args:
            index: Position of the sample.
            pixels: uint8 (H, W, 3).
        """
        rows = self.index.rows(int(self.images[index]))
        usable = self.index.usable[rows] & ~self.index.crowds[rows]
        return self._sample(pixels, rows.start + np.flatnonzero(usable))

    def _sample(
        self,
        pixels: NDArray[np.uint8],
        rows: NDArray[np.int64],
        rles: dict[int, dict[str, Any]] | None = None,
    ) -> Sample:
        """Return an image with the objects of some annotations (M)."""
        index = self.index
        height, width = pixels.shape[:2]
        boxes = index.boxes[rows]
        boxes[:, 2:] += boxes[:, :2]
        masks = None
        if index.has_masks:
            packed = [repack(rles[r]) if rles else index.segment(r) for r in rows.tolist()]
            masks = Masks(packed, height, width)
        areas = index.areas[rows]
        sides = index.boxes[rows, 2:]
        return Sample(
            image=pixels,
            boxes=clip_boxes(boxes, height, width),
            labels=index.labels[rows],
            area=np.where(np.isnan(areas), sides[:, 0] * sides[:, 1], areas),
            iscrowd=index.crowds[rows].astype(np.int64),
            masks=masks,
            keypoints=index.keypoints[rows].astype(np.float64) if self.has_keypoints else None,
        )

    @property
    def has_keypoints(self) -> bool:
        """Whether targets have keypoints."""
        return self.index.keypoints.shape[1] > 0

    def _record(self, row: int, image_id: int, rles: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """Return an annotation as the file has it, for an evaluation that is exact."""
        index = self.index
        box, area = index.boxes[row].tolist(), float(index.areas[row])
        record: dict[str, Any] = {
            "id": int(index.ids[row]),
            "image_id": image_id,
            "category_id": int(index.labels[row]),
            "bbox": box,
            "area": area,
            "iscrowd": int(index.crowds[row]),
        }
        if row in rles:
            record["segmentation"] = rles[row]
        if np.isnan(area):
            record["area"] = float(rle_area(rles[row]) if row in rles else box[2] * box[3])
        if self.has_keypoints:
            record["keypoints"] = index.keypoints[row].astype(np.float64).ravel().tolist()
            record["num_keypoints"] = int(index.num_keypoints[row])
        return record


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Return uint8 (3, H, W) for uint8 (H, W, 3)."""
    import cv2

    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, [*planes])
    return torch.from_numpy(planes)


def make_target(sample: Sample, image_id: int) -> dict[str, Any]:
    """Return the tensors of a sample's objects; those without area are left out."""
    boxes = sample.boxes.astype(np.float32)
    solid = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    if not solid.all():
        sample, boxes = sample.keep(solid), boxes[solid]
    target: dict[str, Any] = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(sample.labels),
        "area": torch.from_numpy(sample.area.astype(np.float32)),
        "iscrowd": torch.from_numpy(sample.iscrowd),
        "id": image_id,
    }
    if sample.masks is not None:
        changed = isinstance(sample.masks, Masks) and sample.masks.changed
        masks = sample.masks.decode() if isinstance(sample.masks, Masks) else sample.masks
        target["masks"] = torch.from_numpy(masks)
        if changed:
            target["area"] = target["masks"].sum(dim=(1, 2)).float()
    if sample.keypoints is not None:
        target["keypoints"] = torch.from_numpy(sample.keypoints.astype(np.float32))
    return target


def collate_lists(samples: Sequence[dict[str, Any] | Refused | None]) -> Any:
    """Join samples into one batch of lists; None where all were skipped."""
    for sample in samples:
        if isinstance(sample, Refused):
            return sample
    kept = [sample for sample in samples if isinstance(sample, dict)]
    if not kept:
        return None
    if get_worker_info() is not None:
        kept = in_one_memory(kept)
    return {name: [sample[name] for sample in kept] for name in kept[0]}


def in_one_memory(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return samples whose tensors lie in one block of memory that processes share.

    On its way from a worker every block takes an open file in the receiver, and the tensors of a
    few batches of 24 images would be more than the 1024 files that a process may have.
    """
    tensors = [
        value
        for sample in samples
        for value in (*sample.values(), *sample.get("target", {}).values())
        if isinstance(value, Tensor)
    ]
    sizes = [-(-t.nbytes // _ALIGN) * _ALIGN for t in tensors]
    # as torch's own collate function does it
    shared = torch.UntypedStorage._new_shared(sum(sizes))  # type: ignore[no-untyped-call]
    memory = torch.empty(0, dtype=torch.uint8).set_(shared)
    views = {}
    for tensor, size, end in zip(tensors, sizes, np.cumsum(sizes).tolist(), strict=True):
        place = memory[end - size : end - size + tensor.nbytes]
        views[id(tensor)] = place.view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def moved(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: moved(value) if isinstance(value, dict) else views.get(id(value), value)
            for name, value in values.items()
        }

    return [moved(sample) for sample in samples]
