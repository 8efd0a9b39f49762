"""Images in class folders, or with several labels each from a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_zoo.datamodules.base import Split, ZooDataModule, ZooDataset
from lightning_zoo.datamodules.files import FileNames, class_folders, images_below, scan_classes
from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.transforms.classification import (
    AlbumentationsTransform,
    EvalTransform,
    TrainTransform,
    random_erase_box,
)
from lightning_zoo.transforms.decode import read_image


class ImageDataset(ZooDataset):
    """Labelled images: ``image`` uint8 (3, H, W), ``label``, ``id``, and ``erase`` in training.

    Args:
        split: Split that the images belong to.
        root: Folder that the names are relative to.
        names: Files, relative to the root, with forward slashes.
        labels: int64 (N), or uint8 (N, C) where an image may have several.
        transform: Makes uint8 (3, H, W) of uint8 (H, W, 3) and a generator.
        erasing: Chance that a box is named for erasing.
    """

    def __init__(
        self,
        split: Split,
        root: Path,
        names: Sequence[str],
        labels: NDArray[Any],
        transform: TrainTransform | EvalTransform | AlbumentationsTransform,
        *,
        erasing: float = 0.0,
    ) -> None:
        super().__init__(split)
        self.root = str(root)
        self.names = names
        self.labels = labels
        self.transform = transform
        self.erasing = erasing

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the file's path relative to the root."""
        return self.names[index]

    def load(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one sample.

        Raises:
            DecodeError: If the file cannot be read.
        """
        name = self.names[index]
        image = self.transform(read_image(f"{self.root}/{name}"), rng)
        label = self.labels[index]
        sample = {
            "image": image,
            "label": int(label) if label.ndim == 0 else torch.from_numpy(label.astype(np.float32)),
            "id": name,
        }
        if self.erasing > 0:
            height, width = image.shape[-2:]
            box = random_erase_box(height, width, rng, probability=self.erasing)
            sample["erase"] = torch.tensor(box, dtype=torch.int64)
        return sample


class ImageFolderDataModule(ZooDataModule):
    """Images in one folder a class, or with labels from a table where an image may have several.

    Without ``labels_csv`` the classes are the folders in ``train``, sorted. With it, the table has
    a column ``file`` (relative to the root) and either one column of 0 and 1 for each class, or one
    column ``labels`` with names separated by ``;``. One table for all splits needs a column
    ``split`` with the values ``train``, ``val`` and ``test``; ``{split}`` in the table's name means
    one table a split (``labels_csv="{split}.csv"`` reads train.csv, val.csv and test.csv). Labels
    are then float32 (N, C).

    Read are .jpg .jpeg .png .webp .bmp .tif .tiff in any case, in sub-folders too.

    Args:
        root: Folder of the data.
        train: Folder of the training split in it.
        val: Folder of the validation split; null for none.
        test: Folder of the test split; null for none. It is looked for only when it is needed.
        labels_csv: Table of labels in the root; null takes the labels from the folders.
        train_crop: Side of the training images in pixels.
        eval_resize: Length in pixels that the shorter side is resized to in evaluation.
        eval_crop: Side in pixels of the square cut from the middle in evaluation.
        auto_augment: AutoAugment's ImageNet policy, RandAugment, TrivialAugment-wide, or null.
        auto_augment_interpolation: Resampling of their geometric operations.
        random_erasing: Chance that a box of a training image is erased (by the task).
        scale: Range of the random crop's share of the image's area.
        flip: Chance that a training image is mirrored.
        repeated_augmentation: Draws of each training image in a row of the order.
        albumentations: albumentations transforms in place of crop, flip and auto-augment.
        train_views: What training images go through: ``random`` is all of the above, ``eval`` the
            transform of evaluation, as INT8 calibration wants it.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken file, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Images of one batch of evaluation on one device; null: as in training.
    """

    LAYOUT: ClassVar[str] = """
ROOT/
  train/<class>/*.jpg     one folder a class
  val/<class>/*.jpg       the same classes
  test/<class>/*.jpg      only for the verb test
"""
    SOURCE: ClassVar[str] = "put your own images there, or name their folder by --data.root"

    def __init__(
        self,
        *,
        root: str = "data/images",
        train: str = "train",
        val: str | None = "val",
        test: str | None = "test",
        labels_csv: str | None = None,
        train_crop: int = 224,
        eval_resize: int = 256,
        eval_crop: int = 224,
        auto_augment: Literal["imagenet", "rand", "trivial"] | None = None,
        auto_augment_interpolation: Literal["nearest", "bilinear"] = "nearest",
        random_erasing: float = 0.0,
        scale: tuple[float, float] = (0.08, 1.0),
        flip: float = 0.5,
        repeated_augmentation: int = 1,
        albumentations: list[Any] | None = None,
        train_views: Literal["random", "eval"] = "random",
        workers: int = 4,
        on_error: Literal["refuse", "skip"] = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = None,
    ) -> None:
        super().__init__(
            root=root,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
            repeats=repeated_augmentation,
        )
        if not 0 <= random_erasing <= 1:
            raise ZooError(f"random_erasing is {random_erasing}; expected a probability, 0 to 1")
        self.folders: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.labels_csv = labels_csv
        self.random_erasing = random_erasing
        self.train_views = train_views
        self.eval_transform = EvalTransform(eval_resize, eval_crop)
        self.train_transform: TrainTransform | AlbumentationsTransform
        if albumentations is not None:
            if auto_augment is not None:
                raise ZooError(
                    "data.albumentations replaces data.auto_augment; set one of the two to null"
                )
            self.train_transform = AlbumentationsTransform(albumentations, crop=train_crop)
        else:
            self.train_transform = TrainTransform(
                train_crop,
                scale=scale,
                flip=flip,
                auto_augment=auto_augment,
                interpolation=auto_augment_interpolation,
            )
        self._classes: list[str] | None = None

    @property
    def multilabel(self) -> bool:
        """Whether labels come from a table, so that an image may have several."""
        return self.labels_csv is not None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return list(self._label_names())

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; prediction takes val where there is no test."""
        if stage == "predict" and not self._exists("test"):
            return ("val",)
        return super().splits(stage)

    def make_dataset(self, split: Split) -> ImageDataset | None:
        """Return the samples of a split; None where the split was switched off.

        Raises:
            ZooError: If the files are missing or the labels do not fit together.
        """
        found = self.find_images(split)
        if found is None:
            return None
        names, labels = found
        random = split == "train" and self.train_views == "random"
        return ImageDataset(
            split,
            self.root,
            names,
            labels,
            self.train_transform if random else self.eval_transform,
            erasing=self.random_erasing if random else 0.0,
        )

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of coloured noise in class folders.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes.
            images: Images of each split, at least one a class.
            size: About the side of an image in pixels.
            seed: Seed of the pixels.
        """
        rng = np.random.default_rng(seed)
        for split in ("train", "val", "test"):
            for i in range(max(images, classes)):
                name = f"class_{i % classes}"
                path = root / split / name / f"{split}_{i:04d}.jpg"
                write_fake_image(path, i % classes, size, rng)

    def find_images(self, split: Split) -> tuple[FileNames, NDArray[Any]] | None:
        """Return the files of a split relative to the root, and their labels.

        Labels are int64 (N), or uint8 (N, C) where an image may have several. None where the split
        was switched off.

        Raises:
            ZooError: If the files are missing or the labels do not fit together.
        """
        if self.folders[split] is None:
            return None
        return self._from_table(split) if self.multilabel else self._from_folders(split)

    def _exists(self, split: Split) -> bool:
        folder = self.folders[split]
        if folder is None:
            return False
        if self.labels_csv is not None and "{split}" in self.labels_csv:
            return (self.root / self.labels_csv.replace("{split}", split)).is_file()
        if self.labels_csv is not None:
            return any(row["split"] == split for row in self._table_rows("train")[1])
        return (self.root / folder).is_dir()

    def _label_names(self) -> list[str]:
        """Return the classes as the training split has them, in the order of the labels."""
        if self._classes is None:
            self.check_root()
            if self.multilabel:
                self._classes = self._table_classes()
            else:
                train = self.folders["train"] or "train"
                if not (self.root / train).is_dir():
                    raise self.missing(f"no folder {str(self.root / train)!r} (data.train)")
                self._classes = class_folders(self.root / train)
            if not self._classes:
                raise self.missing(
                    f"no class in {str(self.root)!r}: there is no folder in data.train "
                    f"{self.folders['train']!r}"
                )
        return self._classes

    def _from_folders(self, split: Split) -> tuple[FileNames, NDArray[Any]]:
        classes = self._label_names()
        folder = str(self.folders[split])
        path = self.root / folder
        if not path.is_dir():
            way_out = "" if split == "train" else f" (data.{split}; null goes without it)"
            raise self.missing(f"no folder {str(path)!r}{way_out}")
        strangers = sorted(set(class_folders(path)) - set(classes))
        strangers = [name for name in strangers if images_below(path / name)]
        if strangers:
            guess = nearest(strangers[0], classes)
            raise ZooError(
                f"{_some(strangers, 'class', 'classes')} of {str(path)!r} not among the "
                f"{len(classes)} of training"
                + (f"; did you mean {guess}?" if guess else "")
                + f" Add images to {str(self.root / str(self.folders['train']))!r}, or take the "
                "folders away"
            )
        names, labels, empty = scan_classes(self.root, folder, classes)
        if not names:
            raise self.missing(f"no image in the class folders of {str(path)!r}")
        if empty and split == "train":
            raise ZooError(
                f"no image of {_some(empty, 'class', 'classes')} in {str(path)!r}; add some or "
                "remove the folders"
            )
        if empty:
            rank_zero_warn(f"no image of {_some(empty, 'class', 'classes')} in {str(path)!r}")
        return names, labels

    def _table_path(self, split: Split) -> Path:
        return self.root / str(self.labels_csv).replace("{split}", split)

    def _table_rows(self, split: Split) -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns and rows of the table that holds a split."""
        path = self._table_path(split)
        if not path.is_file():
            raise ZooError(
                f"no table {str(path)!r} (data.labels_csv {self.labels_csv!r}); expected a CSV "
                "file with a column 'file' and one 0/1 column a class, or a column 'labels'"
            )
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            try:
                columns = list(reader.fieldnames or [])
                rows = list(reader)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ZooError(f"{str(path)!r}, line {reader.line_num}: {error}") from None
        if "file" not in columns:
            raise ZooError(
                f"{str(path)!r} has no column 'file'; it has {', '.join(columns) or 'no column'}"
            )
        if "{split}" not in str(self.labels_csv) and "split" not in columns:
            raise ZooError(
                f"{str(path)!r} has no column 'split'; add one with train, val and test, or name "
                "one table a split: --data.labels_csv '{split}.csv'"
            )
        return columns, rows

    def _table_classes(self) -> list[str]:
        columns, rows = self._table_rows("train")
        if "labels" not in columns:
            return [name for name in columns if name not in ("file", "split")]
        mine = [row for row in rows if row.get("split", "train") == "train"]
        return sorted({name for row in mine for name in _split_labels(row["labels"])})

    def _from_table(self, split: Split) -> tuple[FileNames, NDArray[Any]]:
        classes = self._label_names()
        path = self._table_path(split)
        columns, rows = self._table_rows(split)
        position = {name: i for i, name in enumerate(classes)}
        if "labels" not in columns and set(columns) - {"file", "split"} != set(classes):
            difference = sorted(set(columns) - {"file", "split"} ^ set(classes))
            raise ZooError(
                f"{str(path)!r} has other classes than the training table: {', '.join(difference)}"
            )
        labels: list[NDArray[np.uint8]] = []
        seen: dict[str, int] = {}
        for line, row in enumerate(rows, start=2):
            where = f"{str(path)!r}, row {line}"
            if None in row or None in row.values():
                raise ZooError(f"{where}: expected {len(columns)} columns")
            if row.get("split", split) not in ("train", "val", "test"):
                raise ZooError(f"{where}: split is {row['split']!r}; expected train, val or test")
            name = row["file"].strip().replace("\\", "/")
            if name in seen:
                raise ZooError(f"{where}: the file {name!r} stands in row {seen[name]} already")
            seen[name] = line
            if row.get("split", split) != split:
                continue
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ZooError(f"{where}: the file {name!r} is no path within {str(self.root)!r}")
            if not (self.root / name).is_file():
                raise ZooError(f"{where}: there is no file {name!r} in {str(self.root)!r}")
            labels.append(_label_row(row, position, where))
        names = FileNames(
            name for name, line in seen.items() if rows[line - 2].get("split", split) == split
        )
        if not names:
            raise ZooError(f"{str(path)!r} has no row of the split {split!r}")
        return names, np.stack(labels)


def _label_row(row: dict[str, str], position: dict[str, int], where: str) -> NDArray[np.uint8]:
    """Return one image's labels, uint8 (C) of 0 and 1."""
    label = np.zeros(len(position), np.uint8)
    if "labels" in row:
        for name in _split_labels(row["labels"]):
            if name not in position:
                guess = nearest(name, position)
                raise ZooError(
                    f"{where}: {name!r} is no class of training"
                    + (f"; did you mean {guess}?" if guess else "")
                )
            label[position[name]] = 1
        return label
    for name, i in position.items():
        if row[name].strip() not in ("0", "1"):
            raise ZooError(f"{where}: {name} is {row[name]!r}; expected 0 or 1")
        label[i] = int(row[name])
    return label


def _split_labels(text: str) -> list[str]:
    return [name.strip() for name in text.split(";") if name.strip()]


def _some(names: Sequence[str], noun: str, plural: str) -> str:
    """Return "class a", or "classes a, b, c and 5 more"."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{noun if len(names) == 1 else plural} {shown}"


def write_fake_image(path: Path, label: int, size: int, rng: np.random.Generator) -> None:
    """Write an image of coloured noise whose colour tells its label, about ``size`` pixels wide."""
    import cv2

    height, width = (int(n) for n in rng.integers(max(2, size * 3 // 4), size + 1, size=2))
    colour = 40 + np.array([label * 89, label * 53 + 60, label * 151 + 120]) % 176
    pixels = np.clip(colour + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".jpg" if path.suffix == ".JPEG" else path.suffix, pixels)[1]
    path.write_bytes(encoded.tobytes())
