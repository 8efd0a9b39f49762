"""Images in one folder a class, with splits or without: ``train/ants/*.jpg`` or ``ants/*.jpg``."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_zoo.batch import counted
from lightning_zoo.datamodules.files import class_folders
from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.formats.files import (
    IMAGE_EXTENSIONS,
    files_below,
    has_extension,
    split_folders,
    split_of,
)
from lightning_zoo.formats.index import (
    SPLITS,
    DataIndex,
    Item,
    Problem,
    SplitName,
    TaskName,
)

if TYPE_CHECKING:
    from lightning_zoo.formats.recognise import Options

# Folders of other formats, which are never classes
NO_CLASSES = frozenset({
    "__macosx", "annotation", "annotations", "annots", "bboxes", "frames", "groundtruth",
    "ground_truth", "gt", "image", "images", "imagesets", "img", "imgs", "jpegimages", "json",
    "label", "labels", "mask", "masks", "photos", "segmentation", "segmentationclass",
    "segmentationclassaug", "segmentationobject", "segmentations", "txt", "videos", "xml",
})  # fmt: skip
ANNOTATIONS = frozenset({"xml", "txt", "json"})  # of one image each, named as it is
TABLES = frozenset({"csv", "tsv", "json", "yaml", "yml", "txt"})
# What cameras and browsers write and is not read here
OTHER_IMAGES = frozenset({"gif", "heic", "heif", "avif", "jfif", "jp2", "svg", "dng", "cr2", "nef"})
SHOWN = 8


@dataclass(frozen=True)
class Kind:
    """What lies in the class folders.

    Attributes:
        format: The format's name.
        task: What is learned from them.
        noun: One of them.
        extensions: Those of their files.
        unread: Extensions of files that are of their kind and cannot be read.
    """

    format: str
    task: TaskName
    noun: str
    extensions: frozenset[str]
    unread: frozenset[str] = frozenset()


IMAGES = Kind("folders", "classification", "image", IMAGE_EXTENSIONS, OTHER_IMAGES)


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder holds class folders of images, or None."""
    return recognise_folders(root, IMAGES)


def read(root: Path, options: Options) -> DataIndex:
    """Return the images of all class folders.

    Raises:
        ZooError: If there is no class folder.
    """
    return read_folders(root, IMAGES)


def recognise_folders(root: Path, kind: Kind) -> str | None:
    """Return why the folder holds class folders, or None."""
    parts = _parts(root, kind)
    if not parts:
        return None
    shown = [f"{_inside(part, name)}/" for part, _ in parts for name in _classes(root / part, kind)]
    return f"class folders of {kind.noun}s ({listed(shown, 4)})"


def read_folders(root: Path, kind: Kind) -> DataIndex:
    """Return what lies in all class folders.

    Raises:
        ZooError: If there is none.
    """
    parts = _parts(root, kind)
    if not parts:
        raise ZooError(
            f"no class folder with {kind.noun}s in {str(root)!r}; expected "
            f"train/NAME/*.{_usual(kind)} and val/NAME/*.{_usual(kind)}, or NAME/*.{_usual(kind)}, "
            "one folder a class"
        )
    problems: list[Problem] = []
    unlabelled: list[str] = []
    found: list[tuple[str, Item]] = []  # name of the class, and the item without it
    trained: list[str] = []  # names of the training split, in its spelling
    for part, split in sorted(parts, key=lambda p: SPLITS.index(p[1])):
        folder = root / part
        loose = _loose(folder, kind.extensions)
        if loose:
            unlabelled += [_inside(part, name) for name in loose]
            problems.append(_loose_problem(part, loose, kind))
        for name in _candidates(folder):
            inside = _inside(part, name)
            files = files_below(folder / name, kind.extensions)
            if unread := files_below(folder / name, kind.unread):
                problems.append(_unread_problem(inside, unread, kind))
            if not files:
                problems.append(
                    Problem(
                        "warning", "empty class folder", f"{inside}/",
                        f"it holds no {kind.noun}, and was left out",
                        f"put {kind.noun}s of {name} there, or remove the folder",
                    )
                )  # fmt: skip
                continue
            meant = name if split == "train" else _spelled(name, trained)
            if meant != name:
                problems.append(
                    Problem(
                        "warning", "class folders differ in case", f"{inside}/",
                        f"it was read as the class {meant} of training",
                        f"rename the folder to {meant}",
                    )
                )  # fmt: skip
            if split == "train" and name not in trained:
                trained.append(name)
            found += [(meant, Item(f"{inside}/{file}", split)) for file in files]
    names = sorted(trained or {name for name, _ in found})
    problems += alike(names)
    items, strangers = keep_known(found, names, kind, root)
    used = [split for split in SPLITS if any(i.split == split for i in items)]
    return DataIndex(
        root=root,
        format=kind.format,
        task=kind.task,
        classes=tuple(names),
        items=tuple(items),
        decisions=(
            f"{counted(len(names), 'class', 'es')}, the folders' names: {listed(names)}",
            count_splits(items, used, kind.noun),
        ),
        problems=(*problems, *strangers, *one_class(names, kind.noun)),
        unlabelled=tuple(sorted({*unlabelled, *_outside(root, parts, kind)})),
    )


def keep_known(
    found: Sequence[tuple[str, Item]], classes: Sequence[str], kind: Kind, root: Path
) -> tuple[list[Item], list[Problem]]:
    """Return the items whose class is one of training, in order, and the problems of the others.

    Args:
        found: The class of each item, and the item.
        classes: Classes of training.
        kind: What the items are.
        root: Folder of the data, for the texts.
    """
    place = {name: i for i, name in enumerate(classes)}
    items = [replace(item, labels=(place[name],)) for name, item in found if name in place]
    others: dict[tuple[str, SplitName], list[Item]] = defaultdict(list)
    for name, item in found:
        if name not in place:
            others[name, item.split].append(item)
    problems = [
        stranger(name, split, [i.file for i in left], classes, kind.noun)
        for (name, split), left in others.items()
    ]
    items.sort(key=lambda i: (SPLITS.index(i.split), i.file))
    return items, problems


def stranger(
    name: str, split: str, files: Sequence[str], classes: Iterable[str], noun: str
) -> Problem:
    """Return the problem of a class that training does not have."""
    guess = nearest(name, classes)
    return Problem(
        "error", "class without training", files[0] if len(files) == 1 else f"{files[0]}, ...",
        f"the class {name} is in {split} ({counted(len(files), noun)}) and not in training; "
        "what has it was left out",
        f"add {noun}s of {name} to training, or take them out of {split}"
        + (f"; or is {guess} meant?" if guess else ""),
    )  # fmt: skip


def alike(names: Sequence[str]) -> list[Problem]:
    """Return the problems of classes whose names differ in case and spaces alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_folded(name)].append(name)
    return [
        Problem(
            "warning", "classes with nearly the same name", ", ".join(group),
            "the names differ in upper and lower case or spaces alone, and count as "
            f"{len(group)} classes",
            "give them one name if they are one class",
        )
        for group in groups.values()
        if len(group) > 1
    ]  # fmt: skip


def one_class(names: Sequence[str], noun: str) -> list[Problem]:
    """Return the problem of data with a single class, where each item has one."""
    if len(names) != 1:
        return []
    return [
        Problem(
            "error", "one class", names[0], f"every {noun} is of the class {names[0]}",
            f"add {noun}s of at least one other class: with one there is nothing to tell apart",
        )
    ]  # fmt: skip


def count_splits(items: Sequence[Item], splits: Sequence[str], noun: str) -> str:
    """Return the sentence that counts each split's items."""
    said = [f"{split} ({counted(sum(i.split == split for i in items), noun)})" for split in splits]
    return f"splits as found: {', '.join(said) or 'none'}"


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    """Return names with commas between, the first ones of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _parts(root: Path, kind: Kind) -> list[tuple[str, SplitName]]:
    """Return the folders in the root that hold class folders (``""`` is the root itself)."""
    for base in ("", *_bases(root)):
        folder = root / base
        splits = split_folders(folder)
        parts = [
            (_inside(base, name), split)
            for name, split in splits.items()
            if _classes(folder / name, kind)
        ]
        if parts:
            return parts
        if not splits and (classes := _classes(folder, kind)):
            if len(classes) == 1 and not _alone(folder, classes[0], kind):
                return []
            return [(base, "train")]
    return []


def _bases(root: Path) -> list[str]:
    """Return the folders that may stand around the classes: ``images/``, with nothing beside."""
    folders = [p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))]
    ends = ("images", "videos")
    return folders if len(folders) == 1 and folders[0].lower() in ends else []


def _classes(folder: Path, kind: Kind) -> list[str]:
    """Return the class folders that hold files of the kind."""
    return [
        name
        for name in _candidates(folder)
        if not _is_data(folder / name)
        and (first := _first_files(folder / name, kind.extensions))
        and not _annotated(first)
    ]


def _candidates(folder: Path) -> list[str]:
    """Return the folders inside that may be classes, sorted."""
    return [name for name in class_folders(folder) if not _is_other(name)]


def _is_other(name: str) -> bool:
    """Tell whether a folder is named as a part of another format, or as a split."""
    plain = name.lower()
    parts = "|".join(sorted(NO_CLASSES))
    return (
        plain in NO_CLASSES
        or split_of(plain) is not None
        or re.fullmatch(rf"(train|val|valid|test)[_-]?({parts}|annot)", plain) is not None
    )


def _is_data(folder: Path) -> bool:
    """Tell whether a folder is a data set of its own: splits, or images and their annotations."""
    inside = class_folders(folder)
    return any(map(split_of, inside)) or sum(map(_is_other, inside)) > 1


def _alone(folder: Path, name: str, kind: Kind) -> bool:
    """Tell whether a single folder is a class, not a folder around the data or of its images."""
    if any(has_extension(p.name, TABLES) for p in folder.iterdir() if p.is_file()):
        return False  # which says what the images are
    return bool(_loose(folder / name, kind.extensions))


def _first_files(folder: Path, extensions: frozenset[str], most: int = 10) -> list[Path]:
    """Return a few files of some kinds of a folder, or of the first sub-folder that has some."""
    todo = [folder]
    while todo:
        folders: list[Path] = []
        found: list[Path] = []
        here = todo.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=here == folder):
                    folders.append(here / entry.name)
                elif has_extension(entry.name, extensions):
                    found.append(here / entry.name)
                    if len(found) == most:
                        break
        if found:
            return found
        todo += sorted(folders, reverse=True)
    return []


def _annotated(files: Sequence[Path]) -> bool:
    """Tell whether each file has an annotation of the same name beside it."""
    return all(any(f.with_suffix(f".{e}").is_file() for e in ANNOTATIONS) for f in files)


def _loose(folder: Path, extensions: frozenset[str]) -> list[str]:
    """Return the files of some kinds that lie in the folder itself."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name
            for e in entries
            if not e.name.startswith(".") and has_extension(e.name, extensions) and e.is_file()
        )


def _outside(root: Path, parts: Sequence[tuple[str, SplitName]], kind: Kind) -> list[str]:
    """Return what lies in split folders without a class, and in the root beside them."""
    used = {part for part, _ in parts}
    if "" in used:
        return []
    bases = {part.rpartition("/")[0] for part in used}
    found = [_inside(base, name) for base in bases for name in _loose(root / base, kind.extensions)]
    for base in bases:
        for name in split_folders(root / base):
            part = _inside(base, name)
            if part not in used:
                found += [f"{part}/{file}" for file in files_below(root / part, kind.extensions)]
    return found


def _spelled(name: str, trained: Sequence[str]) -> str:
    """Return the class of training that a folder means: the same but for case, if it is one."""
    if name in trained:
        return name
    same = [other for other in trained if _folded(other) == _folded(name)]
    return same[0] if len(same) == 1 else name


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _loose_problem(part: str, loose: Sequence[str], kind: Kind) -> Problem:
    number = counted(len(loose), kind.noun)
    verb = "lies" if len(loose) == 1 else "lie"
    return Problem(
        "warning", f"{kind.noun}s outside the class folders", _inside(part, loose[0]),
        f"{number} {verb} beside the class folders, without a label, and "
        f"{'was' if len(loose) == 1 else 'were'} left out",
        "move them into the folders of their classes",
    )  # fmt: skip


def _unread_problem(inside: str, unread: Sequence[str], kind: Kind) -> Problem:
    endings = sorted({"." + name.rpartition(".")[2].lower() for name in unread})
    return Problem(
        "warning", f"{kind.noun}s of another kind", f"{inside}/{unread[0]}",
        f"{counted(len(unread), 'file')} ({', '.join(endings)}) cannot be read, and "
        f"{'was' if len(unread) == 1 else 'were'} left out",
        "save them as .jpg or .png",
    )  # fmt: skip


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _usual(kind: Kind) -> str:
    return "jpg" if kind.noun == "image" else "mp4"
