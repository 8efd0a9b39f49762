"""Kinetics-400 as scripts/prepare_kinetics.py lays it out, or flat with the official tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import FileNames, class_folders, files_below
from lightning_zoo.datamodules.video_fake import write_fake_kinetics
from lightning_zoo.datamodules.video_folder import VideoFolderDataModule
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import class_names
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class KineticsDataModule(VideoFolderDataModule):
    """Kinetics-400: about 240,000 videos of 10 seconds to train, 20,000 to validate.

    The classes are the folders of ``train``, or of ``val`` where that alone is there, in sorted
    order; ``_`` in a folder's name counts as a space. Where all 400 are there, they get the order
    and the names of published weights. Videos shorter than a clip are left out, as the reference
    did. Labels of the test split are not used: ``test`` and ``predict`` read val.

    Args:
        root: Folder of the data.
        train: Folder of the training split in it.
        val: Folder of the validation split; null for none.
        annotations: The official tables in the root, with ``{split}`` for train or val, such as
            ``annotations/{split}.csv``, for files ``<id>_<start>_<end>.mp4`` that may lie flat in
            the folders of the splits; null takes the labels from folders of classes.
        clip_frames: Frames of a clip.
        frame_rate: Frames a second that videos are resampled to; null takes every frame.
        train_clips: Random clips of each video in an epoch of training, fewer where it has fewer.
        eval_clips: Evenly spaced clips of each video in evaluation.
        short: What becomes of videos that are shorter than a clip: ``repeat`` lets the last frame
            stand, ``skip`` leaves them out and names them in the ledger.
        train_resize: Height and width in pixels that training frames get.
        train_crop: Side of the window cut out of them.
        eval_resize: Height and width in pixels that frames get in evaluation.
        eval_crop: Side of the square cut from their middle.
        flip: Chance that a training clip is mirrored.
        index_workers: Processes that read the frame times; 0 reads them in the main process.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: At a broken file, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Clips of one batch of evaluation on one device; null: as in training.
    """

    LAYOUT: ClassVar[str] = """
ROOT/
  train/<class>/*.mp4     400 folders, about 240,000 videos
  val/<class>/*.mp4       400 folders, about 20,000 videos
or, with --data.annotations "annotations/{split}.csv":
  train/<youtube_id>_<start>_<end>.mp4     start and end in seconds, six digits each
  val/<youtube_id>_<start>_<end>.mp4
  annotations/{train,val}.csv              columns label,youtube_id,time_start,time_end,...
"""
    SOURCE: ClassVar[str] = (
        "python scripts/prepare_kinetics.py makes it from the archives of "
        "https://github.com/cvdfoundation/kinetics-dataset"
    )

    def __init__(
        self,
        *,
        root: str = "data/kinetics400",
        train: str = "train",
        val: str | None = "val",
        annotations: str | None = None,
        clip_frames: int = 16,
        frame_rate: float | None = 15.0,
        train_clips: int = 5,
        eval_clips: int = 5,
        short: Literal["repeat", "skip"] = "skip",
        train_resize: tuple[int, int] = (128, 171),
        train_crop: int = 112,
        eval_resize: tuple[int, int] = (128, 171),
        eval_crop: int = 112,
        flip: float = 0.5,
        index_workers: int = 4,
        workers: int = 4,
        on_error: Literal["refuse", "skip"] = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = None,
    ) -> None:
        super().__init__(
            root=root,
            train=train,
            val=val,
            clip_frames=clip_frames,
            frame_rate=frame_rate,
            train_clips=train_clips,
            eval_clips=eval_clips,
            short=short,
            train_resize=train_resize,
            train_crop=train_crop,
            eval_resize=eval_resize,
            eval_crop=eval_crop,
            flip=flip,
            index_workers=index_workers,
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )
        if annotations is not None and "{split}" not in annotations:
            raise ZooError(
                f"annotations is {annotations!r}; expected {{split}} in it, which train or val "
                "replaces"
            )
        self.annotations = annotations

    def find_classes(self) -> list[str]:
        """Return the classes in the order of published weights.

        Raises:
            ZooError: If there is none.
        """
        splits: list[Split] = ["train", "val"]
        for split in splits:
            folder = self.folders[split]
            if folder is None:
                continue
            if self.annotations is not None and self._table_path(split).is_file():
                return in_order(read_table(self._table_path(split)).values())
            if self.annotations is None and (self.root / folder).is_dir():
                classes = in_order(class_folders(self.root / folder))
                if not classes:
                    raise self.missing(
                        f"no class in {str(self.root / folder)!r}: there is no folder in it "
                        f"(data.{split})"
                    )
                return classes
        if self.annotations is not None:
            raise self.missing(f"no table {str(self._table_path('train'))!r} (data.annotations)")
        train = self.root / str(self.folders["train"])
        raise self.missing(f"no folder {str(train)!r} (data.train)")

    def find_videos(self, split: Split, folder: str) -> tuple[Sequence[str], NDArray[np.int64]]:
        """Return the files of a split relative to the root, and their labels, int64 (N).

        Args:
            split: The split.
            folder: Its folder in the root, which is there.

        Raises:
            ZooError: If there is none, or labels and files do not fit together.
        """
        if self.annotations is None:
            return super().find_videos(split, folder)
        path = self._table_path(split)
        if not path.is_file():
            raise self.missing(f"no table {str(path)!r} (data.annotations {self.annotations!r})")
        table = read_table(path)
        position = {as_label(name): i for i, name in enumerate(self.class_names)}
        strangers = sorted({name for name in table.values() if as_label(name) not in position})
        if strangers:
            raise ZooError(
                f"{str(path)!r} has the class {strangers[0]!r}, which is not among the "
                f"{len(position)} of training"
            )
        there: dict[str, str] = {}
        for file in files_below(self.root / folder, VIDEO_EXTENSIONS):
            there.setdefault(PurePosixPath(file).stem, file)
        found = [stem for stem in table if stem in there]
        absent = len(table) - len(found)
        if not found:
            raise self.missing(f"none of the {len(table)} videos of {str(path)!r} is in {folder!r}")
        if absent:
            first = next(stem for stem in table if stem not in there)
            rank_zero_warn(
                f"{absent} of {len(table)} videos of {str(path)!r} are not in "
                f"{str(self.root / folder)!r}; the first is {first!r}"
            )
        names = FileNames(f"{folder}/{there[stem]}" for stem in found)
        labels = [position[as_label(table[stem])] for stem in found]
        return names, np.array(labels, np.int64)

    def class_folders(self, folder: str) -> list[str]:
        """Return the folder of each class within a split's folder, in the order of the labels."""
        there = {as_label(name): name for name in class_folders(self.root / folder)}
        return [there.get(as_label(name), name) for name in self.class_names]

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of moving squares in class folders, with the tables.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes.
            images: Videos of each split, at least one a class.
            size: Width of the frames in pixels.
            seed: Seed of the pixels.
        """
        write_fake_kinetics(root, classes=classes, images=images, size=size, seed=seed)

    def _table_path(self, split: Split) -> Path:
        return self.root / str(self.annotations).replace("{split}", split)


def as_label(name: str) -> str:
    """Return a class as the official tables spell it, for a folder's name with ``_`` for spaces."""
    return name.replace("_", " ")


def in_order(names: Iterable[str]) -> list[str]:
    """Return classes in the order of their labels: sorted, which published weights are too.

    Where they are the 400 of Kinetics, it is the published list itself.

    Raises:
        ZooError: If a class stands there in two spellings.
    """
    spelled: dict[str, str] = {}
    for name in names:
        other = spelled.setdefault(as_label(name), name)
        if other != name:
            raise ZooError(
                f"the classes {other!r} and {name!r} differ in spaces alone; move all of their "
                "videos into one folder"
            )
    published = class_names("kinetics400")
    if set(spelled) == set(published):
        return list(published)
    return [spelled[label] for label in sorted(spelled)]


def read_table(path: Path) -> dict[str, str]:
    """Read an official table of Kinetics: the label of each file, without extension.

    Args:
        path: CSV file with the columns label, youtube_id, time_start, time_end; others are unread.

    Raises:
        ZooError: If it lacks a column, or a row makes no sense or contradicts another.
    """
    table: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            columns = reader.fieldnames or []
            lacking = [name for name in COLUMNS if name not in columns]
            if lacking:
                raise ZooError(
                    f"{str(path)!r} has no column {lacking[0]!r}; it has "
                    f"{', '.join(columns) or 'no column'}"
                )
            for row in reader:
                where = f"{str(path)!r}, line {reader.line_num}"
                label, video, *times = (row[name] for name in COLUMNS)
                try:
                    start, end = (int(float(time)) for time in times)
                except (TypeError, ValueError):
                    raise ZooError(
                        f"{where}: time_start and time_end are {times}; expected seconds"
                    ) from None
                if not label or not video or "/" in video or "\\" in video:
                    raise ZooError(
                        f"{where}: label is {label!r} and youtube_id {video!r}; expected a name "
                        "in each"
                    )
                stem = f"{video}_{start:06d}_{end:06d}"
                if table.setdefault(stem, label) != label:
                    raise ZooError(
                        f"{where}: {stem} is {label!r} here and {table[stem]!r} in a line before"
                    )
        except (csv.Error, UnicodeDecodeError) as error:
            raise ZooError(f"{str(path)!r}, line {reader.line_num}: {error}") from None
    if not table:
        raise ZooError(f"{str(path)!r} has no row; expected one for each video")
    return table
