"""What the formats share: names of splits, files below a folder, sizes of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lightning_zoo.datamodules.files import files_below, has_extension
from lightning_zoo.formats.index import SplitName
from lightning_zoo.transforms.decode import EXTENSIONS as IMAGE_EXTENSIONS

__all__ = [
    "IMAGE_EXTENSIONS",
    "files_below",
    "has_extension",
    "kinds_of_files",
    "relative",
    "split_folders",
    "split_of",
]

_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> SplitName | None:
    """Return the split that a name means: ``train``, ``valid``, ``val2017``, ``Test``; or None."""
    return _SPLITS.get(name.lower().rstrip("0123456789").rstrip("_-"))


def split_folders(folder: Path) -> dict[str, SplitName]:
    """Return the folders inside that are named as splits, sorted by name."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    return {name: split for name in names if (split := split_of(name)) is not None}


def relative(path: Path, root: Path) -> str:
    """Return a path within the root, with forward slashes."""
    return path.relative_to(root).as_posix()


def kinds_of_files(folder: Path, *, limit: int = 100_000) -> Counter[str]:
    """Return how many files of each extension (``.jpg``) a folder and its sub-folders hold.

    Hidden files do not count, nor those after the first ``limit``.
    """
    found: Counter[str] = Counter()
    todo = [folder]
    while todo:
        for path in sorted(todo.pop().iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir() and not path.is_symlink():
                todo.append(path)
            elif path.is_file():
                found[path.suffix.lower() or "(no extension)"] += 1
                if found.total() >= limit:
                    return found
    return found
