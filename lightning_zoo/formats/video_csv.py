"""Tables of videos: a column of files and one of labels, and a split if there are several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_zoo.errors import ZooError
from lightning_zoo.formats.csv_table import read_tables, recognise_tables
from lightning_zoo.formats.index import DataIndex
from lightning_zoo.formats.video_folders import VIDEOS

if TYPE_CHECKING:
    from lightning_zoo.formats.recognise import Options

ROWS = replace(VIDEOS, format="video_csv")


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder holds a table of videos, or None."""
    return recognise_tables(root, annotations, ROWS)


def read(root: Path, options: Options) -> DataIndex:
    """Return the videos of a table, or of one for each split.

    Raises:
        ZooError: If there is no table, it is not clear which, it lacks a column, or a video has
            several labels.
    """
    index = read_tables(root, options.annotations, ROWS)
    if index.multilabel:
        raise ZooError(
            f"the table of {str(root)!r} has several labels, or none, for some of its videos; "
            "expected one label a video"
        )
    return index
