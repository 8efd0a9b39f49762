"""Videos in one folder a class, with splits or without: ``train/run/*.mp4`` or ``run/*.mp4``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_zoo.formats.class_folders import Kind, read_folders, recognise_folders
from lightning_zoo.formats.index import DataIndex
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS

if TYPE_CHECKING:
    from lightning_zoo.formats.recognise import Options

VIDEOS = Kind("video_folders", "video", "video", VIDEO_EXTENSIONS)


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder holds class folders of videos, or None."""
    return recognise_folders(root, VIDEOS)


def read(root: Path, options: Options) -> DataIndex:
    """Return the videos of all class folders.

    Raises:
        ZooError: If there is no class folder.
    """
    return read_folders(root, VIDEOS)
