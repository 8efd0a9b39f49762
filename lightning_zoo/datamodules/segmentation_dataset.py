"""What the data sets of segmentation share: samples, transforms, batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.datamodules.base import OnError, Split, ZooDataModule, ZooDataset
from lightning_zoo.datamodules.coco_dataset import collate_lists
from lightning_zoo.transforms.decode import read_image
from lightning_zoo.transforms.label_maps import MaskReader
from lightning_zoo.transforms.segmentation import (
    AlbumentationsTransform,
    EvalTransform,
    TrainTransform,
)

Mask = NDArray[np.uint8]
Transform = TrainTransform | AlbumentationsTransform | EvalTransform
# Makes the mask, uint8 (H, W), of the sample at an index, whose image has the size (H, W).
Masks = Callable[[int, tuple[int, int]], Mask]


class SegmentationDataset(ZooDataset):
    """Images with a class at each pixel: ``image`` uint8 (3, H, W), ``mask`` uint8 (H, W), ``id``.

    Args:
        split: Split that the images belong to.
        root: Folder that the names are relative to.
        images: Files, with forward slashes.
        masks: Makes the masks of the images.
        transform: Changes an image and its mask.
    """

    def __init__(
        self, split: Split, root: Path, images: Sequence[str], masks: Masks, transform: Transform
    ) -> None:
        super().__init__(split)
        self.root = str(root)
        self.images = images
        self.masks = masks
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Return the image's path relative to the root."""
        return self.images[index]

    def load(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one sample.

        Raises:
            DecodeError: If the image or its mask cannot be read, or they do not fit together.
        """
        pixels = read_image(f"{self.root}/{self.name(index)}")
        mask = self.masks(index, (pixels.shape[0], pixels.shape[1]))
        image, mask_tensor = self.transform(pixels, mask, rng)
        return {"image": image, "mask": mask_tensor, "id": self.name(index)}


class MaskFiles:
    """Masks that lie in a file each.

    Args:
        root: Folder that the names are relative to.
        names: Files, in the order of the images.
        reader: Reads one.
    """

    def __init__(self, root: Path, names: Sequence[str], reader: MaskReader) -> None:
        self.root = str(root)
        self.names = names
        self.reader = reader

    def __call__(self, index: int, size: tuple[int, int]) -> Mask:
        """Return the mask of the sample at ``index``.

        Raises:
            DecodeError: If it cannot be read, has another size, or holds a strange value.
        """
        return self.reader(f"{self.root}/{self.names[index]}", size)


class SegmentationDataModule(ZooDataModule):
    """Splits, transforms and batches that the data sets of segmentation share.

    Training batches hold ``image`` uint8 (N, 3, H, W) and ``mask`` uint8 (N, H, W) with 255 for
    void. In evaluation, where sizes differ and padding would change the figures, both are lists.

    Args:
        root: Folder of the data.
        train: The training split.
        val: The validation split; None for none.
        test: The test split; None takes val.
        train_resize: Shortest and longest length of a training image's shorter side in pixels.
        train_crop: Side in pixels of the square that is cut out in training.
        flip: Chance that a training image is mirrored.
        eval_resize: Length in pixels that the shorter side is resized to in evaluation, mask
            and all; None keeps the size.
        albumentations: albumentations transforms in place of resize and flip.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: What happens at a broken file, ``"refuse"`` or ``"skip"``.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; None: as in training.
    """

    target = "segmentation"

    def __init__(
        self,
        *,
        root: str,
        train: str,
        val: str | None,
        test: str | None,
        train_resize: Sequence[int],
        train_crop: int,
        flip: float,
        eval_resize: int | None,
        albumentations: list[Any] | None,
        workers: int,
        on_error: OnError,
        drop_last: bool,
        eval_batch: int | None,
    ) -> None:
        super().__init__(
            root=root,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )
        self.folders: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.eval_transform = EvalTransform(eval_resize)
        self.train_transform: Transform
        if albumentations is not None:
            self.train_transform = AlbumentationsTransform(albumentations, crop=train_crop)
        else:
            self.train_transform = TrainTransform(train_crop, resize=train_resize, flip=flip)

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; test and prediction take val where test is null."""
        if stage in ("test", "predict") and self.folders["test"] is None:
            return ("val",)
        return super().splits(stage)

    def transform(self, split: Split) -> Transform:
        """Return the transform of a split."""
        return self.train_transform if split == "train" else self.eval_transform

    def check_files(
        self, split: Split, folder: Path, names: Sequence[str], *, what: str = "images"
    ) -> None:
        """Say at once which files are missing, unless broken ones are to be skipped.

        Args:
            split: Split that they belong to.
            folder: Folder that the names are relative to.
            names: The files.
            what: What they are, for the error.

        Raises:
            ZooError: If one is missing.
        """
        if self.on_error == "skip":
            return
        present = set(os.listdir(folder)) if folder.is_dir() else set()
        absent = [
            n for n in names if n not in present and not ("/" in n and (folder / n).is_file())
        ]
        if absent:
            raise self.missing(
                f"{len(absent)} of {len(names)} {what} are not in {str(folder)!r} (data.{split}), "
                f"the first is {absent[0]!r}; --data.on_error skip goes on without them"
            )

    @staticmethod
    def collate_eval(samples: list[Any]) -> Any:
        """Join samples into a batch of lists."""
        return collate_lists(samples)
