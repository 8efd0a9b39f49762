"""Your own videos with labels, in any format of them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.own_index import OwnData
from lightning_zoo.datamodules.video_dataset import VideoDataset
from lightning_zoo.datamodules.video_folder import VideoFolderDataModule


class OwnVideosDataModule(OwnData, VideoFolderDataModule):
    """Your own videos in class folders or with a table of labels, recognised by looking.

    Splits are taken as found; a validation split is made from the training videos where there is
    none, and without a test split val serves. Any format that FFmpeg decodes is read. The frame
    times of all videos are read once and kept beside the data.

    Args:
        root: Folder of the data, or its table.
        format: ``video_folders`` or ``video_csv``; ``auto`` looks.
        val_share: Share of the training videos for validation where there is no such split.
        split_seed: Seed of that split.
        annotations: The one table to read, relative to the root; null: those found.
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
        on_error: At a broken file or row, refuse to go on, or skip it and name it in the ledger.
        drop_last: Drop the incomplete last step of an epoch.
        eval_batch: Clips of one batch of evaluation on one device; null: as in training.
    """

    TASK = "video"
    NOUN = "video"
    LAYOUT: ClassVar[str] = """
ROOT/
  train/<class>/*.mp4 val/<class>/*.mp4     class folders; val and test may be missing
  <class>/*.mp4                             or without splits
  labels.csv videos/*.mp4                   or a table: columns file, label, split
"""
    SOURCE: ClassVar[str] = "python -m lightning_zoo data check ROOT says what a folder holds"

    def __init__(
        self,
        *,
        root: str = "data/videos",
        format: Literal["auto", "video_folders", "video_csv"] = "auto",
        val_share: float = 0.2,
        split_seed: int = 0,
        annotations: str | None = None,
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
        self.remember(
            root,
            format=format,
            val_share=val_share,
            split_seed=split_seed,
            annotations=annotations,
        )

    def make_dataset(self, split: Split) -> VideoDataset | None:
        """Return the clips of a split; None where there is no such split.

        Raises:
            ZooError: If a file is broken and the policy refuses it, or no video has a clip.
        """
        items = self.index.of(split)
        if not items:
            return None
        labels = np.array([item.labels[0] for item in items], np.int64)
        return self.make_clips(split, FileNames(item.file for item in items), labels, split)
