"""Finding the files of a data set, and keeping a million of their names in little memory."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.transforms.decode import EXTENSIONS


class FileNames(Sequence[str]):
    """Names joined in one bytes object: workers that fork share it, as nothing in it is counted.

    A list of 1.28 million strings takes 120 MB, and each worker that reads it gets a copy in time,
    because Python writes reference counts into the strings.

    Args:
        names: Names, in order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._joined = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} files")
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._joined[start : int(self._ends[index])])


def has_extension(name: str, extensions: Container[str]) -> bool:
    """Tell whether a file's extension, in any case and without the dot, is one of those."""
    return name.rpartition(".")[2].lower() in extensions


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders inside, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def images_below(folder: Path) -> list[str]:
    """Return the images in a folder and its sub-folders, relative to it, sorted."""
    return files_below(folder, EXTENSIONS)


def files_below(folder: Path, extensions: Container[str]) -> list[str]:
    """Return the files of some kinds in a folder and its sub-folders, relative to it, sorted."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    todo = [""]
    while todo:
        prefix = todo.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if has_extension(entry.name, extensions):
                    found.append(prefix + entry.name)
                elif entry.is_dir():
                    stat = entry.stat()  # followed, so that a link in a circle is seen once
                    if (stat.st_dev, stat.st_ino) not in seen:
                        seen.add((stat.st_dev, stat.st_ino))
                        todo.append(f"{prefix}{entry.name}/")
    return sorted(found)


def scan_classes(
    root: Path, split: str, classes: Sequence[str], extensions: Container[str] = EXTENSIONS
) -> tuple[FileNames, NDArray[np.int64], list[str]]:
    """Find the files of a split, class by class.

    Args:
        root: Folder of the data set.
        split: Folder of the split within it.
        classes: Names of the class folders; absent ones count as empty.
        extensions: Those of the files, in lower case and without the dot.

    Returns:
        Names relative to ``root`` with forward slashes; labels, int64 (N); the empty classes.
    """
    counts, empty = [], []

    def names() -> Iterable[str]:
        for name in classes:
            folder = root / split / name
            files = files_below(folder, extensions) if folder.is_dir() else []
            counts.append(len(files))
            if not files:
                empty.append(name)
            yield from (f"{split}/{name}/{file}" for file in files)

    found = FileNames(names())
    return found, np.repeat(np.arange(len(classes), dtype=np.int64), counts), empty
