"""Videos in class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.base import Split, ZooDataModule, ZooDataset
from lightning_zoo.datamodules.files import class_folders, files_below, scan_classes
from lightning_zoo.datamodules.video_dataset import VideoDataset
from lightning_zoo.datamodules.video_fake import write_fake_folders
from lightning_zoo.datamodules.video_index import VideoIndex, build_index
from lightning_zoo.errors import ZooError, nearest, unknown
from lightning_zoo.transforms.video import EvalTransform, TrainTransform
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS


class VideoFolderDataModule(ZooDataModule):
    """Your own videos in one folder a class; the classes are the folders in ``train``, sorted.

    Any format that FFmpeg decodes is read, in sub-folders too, with or without sound. The frame
    times of all videos are read once and kept beside the data.

    Args:
        root: Folder of the data.
        train: Folder of the training split in it.
        val: Folder of the validation split; null for none.
        test: Folder of the test split for the verb test; null takes val.
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
  train/<class>/*.mp4     one folder a class; .avi .mkv .mov .webm and others too
  val/<class>/*.mp4       the same classes
  test/<class>/*.mp4      only for the verb test, if data.test names it
"""
    SOURCE: ClassVar[str] = "put your own videos there, or name their folder by --data.root"

    target = "video"

    def __init__(
        self,
        *,
        root: str = "data/videos",
        train: str = "train",
        val: str | None = "val",
        test: str | None = None,
        clip_frames: int = 16,
        frame_rate: float | None = 15.0,
        train_clips: int = 5,
        eval_clips: int = 5,
        short: Literal["repeat", "skip"] = "repeat",
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
            workers=workers,
            on_error=on_error,
            drop_last=drop_last,
            eval_batch=eval_batch,
        )
        for name, value in (
            ("clip_frames", clip_frames),
            ("train_clips", train_clips),
            ("eval_clips", eval_clips),
        ):
            if value < 1:
                raise ZooError(f"{name} is {value}; expected a whole number of at least 1")
        if frame_rate is not None and frame_rate <= 0:
            raise ZooError(
                f"frame_rate is {frame_rate:g}; expected frames a second, or null for every frame"
            )
        if short not in ("repeat", "skip"):
            raise unknown("short", str(short), ("repeat", "skip"))
        if index_workers < 0:
            raise ZooError(
                f"index_workers is {index_workers}; expected 0 (read in the main process) or more"
            )
        self.folders: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.clip_frames = clip_frames
        self.frame_rate = frame_rate
        self.train_clips = train_clips
        self.eval_clips = eval_clips
        self.short = short
        self.index_workers = index_workers
        self.train_transform = TrainTransform(train_resize, train_crop, flip=flip)
        self.eval_transform = EvalTransform(eval_resize, eval_crop)
        self._classes: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        if self._classes is None:
            self.check_root()
            self._classes = self.find_classes()
        return list(self._classes)

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads; test and prediction take val where test is null."""
        if stage in ("test", "predict") and self.folders["test"] is None:
            return ("val",)
        return super().splits(stage)

    def make_dataset(self, split: Split) -> VideoDataset | None:
        """Return the clips of a split; None where the split was switched off.

        The frame times of its videos are read first, which takes long for many videos, but once.

        Raises:
            ZooError: If files are missing, the labels do not fit together, a file is broken and the
                policy refuses it, or no video has a clip.
        """
        folder = self.folders[split]
        if folder is None:
            return None
        if not (self.root / folder).is_dir():
            way_out = "" if split == "train" else "; null goes without it"
            raise self.missing(f"no folder {str(self.root / folder)!r} (data.{split}{way_out})")
        return self.make_clips(split, *self.find_videos(split, folder), str(self.root / folder))

    def make_clips(
        self, split: Split, names: Sequence[str], labels: NDArray[np.int64], where: str
    ) -> VideoDataset:
        """Return the clips of some videos, whose frame times are read first.

        Args:
            split: Their split.
            names: Files relative to the root.
            labels: int64 (N).
            where: What they are, for the texts.

        Raises:
            ZooError: If a file is broken and the policy refuses it, or no video has a clip.
        """
        index = build_index(self.root, names, workers=self.index_workers)
        self._check_index(index, len(names))
        train = split == "train"
        dataset = VideoDataset(
            split,
            self.root,
            names,
            labels,
            index,
            self.train_transform if train else self.eval_transform,
            clip_frames=self.clip_frames,
            frame_rate=self.frame_rate,
            clips=self.train_clips if train else self.eval_clips,
            short=self.short,
        )
        self._report(dataset, where)
        return dataset

    def find_classes(self) -> list[str]:
        """Return the classes, in the order of the labels: the folders of the training split.

        Raises:
            ZooError: If there is none.
        """
        train = self.root / str(self.folders["train"])
        if not train.is_dir():
            raise self.missing(f"no folder {str(train)!r} (data.train)")
        classes = class_folders(train)
        if not classes:
            raise self.missing(f"no class in {str(train)!r}: there is no folder in it (data.train)")
        return classes

    def find_videos(self, split: Split, folder: str) -> tuple[Sequence[str], NDArray[np.int64]]:
        """Return the files of a split relative to the root, and their labels, int64 (N).

        Args:
            split: The split.
            folder: Its folder in the root, which is there.

        Raises:
            ZooError: If there is none, or their folders are not the classes of training.
        """
        path, classes = self.root / folder, self.class_folders(folder)
        strangers = [
            name
            for name in class_folders(path)
            if name not in classes and files_below(path / name, VIDEO_EXTENSIONS)
        ]
        if strangers:
            guess = nearest(strangers[0], classes)
            raise ZooError(
                f"{_some(strangers, 'class', 'classes')} of {str(path)!r} not among the "
                f"{len(classes)} of training"
                + (f"; did you mean {guess}?" if guess else "")
                + f" Add videos to {str(self.root / str(self.folders['train']))!r}, or take the "
                "folders away"
            )
        names, labels, empty = scan_classes(self.root, folder, classes, VIDEO_EXTENSIONS)
        if not names:
            raise self.missing(f"no video in the class folders of {str(path)!r}")
        if empty and split == "train":
            raise ZooError(
                f"no video of {_some(empty, 'class', 'classes')} in {str(path)!r}; add some or "
                "remove the folders"
            )
        if empty:
            rank_zero_warn(f"no video of {_some(empty, 'class', 'classes')} in {str(path)!r}")
        return names, labels

    def class_folders(self, folder: str) -> list[str]:
        """Return the folder of each class within a split's folder, in the order of the labels."""
        return self.class_names

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set of moving squares in class folders.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes.
            images: Videos of each split, at least one a class.
            size: Width of the frames in pixels.
            seed: Seed of the pixels.
        """
        write_fake_folders(root, classes=classes, images=images, size=size, seed=seed)

    def _check_index(self, index: VideoIndex, videos: int) -> None:
        """Refuse broken files, unless they are to be skipped."""
        broken = index.errors
        if self.on_error == "skip" or not broken:
            return
        name, reason = next(iter(broken.items()))
        raise ZooError(
            f"{len(broken)} of {videos} videos in {str(self.root)!r} cannot be read, the "
            f"first is {name!r}: {reason}; mend or remove them, or go on without them by "
            "--data.on_error skip (they are then named in the run's ledger)"
        )

    def _report(self, dataset: VideoDataset, folder: str) -> None:
        """Say which videos have no clip.

        Raises:
            ZooError: If none has one.
        """
        if not len(dataset):
            name, reason = dataset.problems[0]
            raise ZooError(
                f"none of the {len(dataset.names)} videos of {folder!r} can be used; the first is "
                f"{name!r}: {reason}"
            )
        if dataset.num_short:
            name, reason = dataset.problems[-dataset.num_short]
            rank_zero_warn(
                f"left out: {dataset.num_short} of {len(dataset.names)} videos of {folder!r} are "
                f"shorter than a clip; the first is {name!r}: {reason} (--data.short repeat keeps "
                "them)"
            )

    def _prepare(self, dataset: ZooDataset) -> None:
        super()._prepare(dataset)
        if self.ledger is not None and isinstance(dataset, VideoDataset) and dataset.problems:
            ledgers.append_new(
                self.ledger,
                [
                    {"file": name, "error": reason, "split": dataset.split}
                    for name, reason in dataset.problems
                ],
            )


def _some(names: Sequence[str], noun: str, plural: str) -> str:
    """Return "class a", or "classes a, b, c and 5 more"."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{noun if len(names) == 1 else plural} {shown}"
