"""Which format a folder has: every format looks at it and says why it fits."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.formats.files import kinds_of_files, relative
from lightning_zoo.formats.index import DataIndex, TaskName
from lightning_zoo.formats.splits import make_splits

# name: one line for people
FORMATS: dict[str, str] = {
    "coco": "COCO JSON: boxes, masks or keypoints (annotations/instances_train.json, train/*.jpg)",
    "yolo": "YOLO txt: boxes, polygons or pose (data.yaml, images/train, labels/train)",
    "voc": "Pascal VOC XML: boxes (Annotations/*.xml, JPEGImages/*.jpg, ImageSets/Main)",
    "folders": "class folders: a label for each image (train/NAME/*.jpg, or NAME/*.jpg)",
    "csv": "CSV: a label or several for each image (a column of files, one or more of labels)",
    "masks": "mask folders: a class at each pixel (images/train/*.jpg, masks/train/*.png)",
    "video_folders": "video folders: a label for each video (train/NAME/*.mp4, or NAME/*.mp4)",
    "video_csv": "video CSV: a label for each video (a column of files, one of labels)",
}
TASKS: dict[str, TaskName] = {
    "coco": "detection",
    "yolo": "detection",
    "voc": "detection",
    "folders": "classification",
    "csv": "classification",
    "masks": "segmentation",
    "video_folders": "video",
    "video_csv": "video",
}
_MODULES = {
    "folders": "class_folders",
    "csv": "csv_table",
    "masks": "mask_folders",
}
# An annotation file's extension: the formats that it may be of
_BY_SUFFIX = {
    ".json": ("coco",),
    ".yaml": ("yolo",),
    ".yml": ("yolo",),
    ".csv": ("csv", "video_csv"),
    ".tsv": ("csv", "video_csv"),
}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_HELP = "python -m lightning_zoo data formats"


@dataclass(frozen=True, slots=True)
class Options:
    """How data is to be read.

    Attributes:
        task: Task of the model that is to learn from it, where it is known.
        val_share: Share of the training images that become the validation split where there is
            none; 0 makes none.
        split_seed: Seed of that split.
        annotations: The one annotation file to read, as an absolute path of a file that is there;
            None: those that are found.
    """

    task: TaskName | None = None
    val_share: float = 0.2
    split_seed: int = 0
    annotations: Path | None = None


class Format(Protocol):
    """The module of one format."""

    def recognise(self, root: Path, annotations: Path | None = None) -> str | None:
        """Return why the folder (or its annotation file) is of this format, or None.

        The reason goes on from "it holds": ``COCO annotations (annotations/instances_train.json)``.
        It looks at names and at the start of a few files only, never raises, and returns None
        where files of this format are not there.
        """

    def read(self, root: Path, options: Options) -> DataIndex:
        """Return what the folder holds; a val split need not be made.

        Raises:
            ZooError: If nothing can be read at all; one bad annotation is a problem of the index.
        """


def read_data(
    root: str | Path,
    *,
    format: str = "auto",
    task: TaskName | None = None,
    val_share: float = 0.2,
    split_seed: int = 0,
    annotations: str | Path | None = None,
) -> DataIndex:
    """Read one's own data, in whatever format of :data:`FORMATS` it is.

    Args:
        root: Its folder; or its annotation file (JSON of COCO, ``data.yaml``, a table).
        format: Name of the format; ``auto`` looks.
        task: Task of the model that is to learn from it: settles which of two readings is meant.
            What is read may still be of another task: :attr:`DataIndex.task` says which.
        val_share: Share of the training images that become the validation split where there is
            none; 0 makes none.
        split_seed: Seed of that split.
        annotations: The one annotation file to read, relative to the root or to where we are.

    Raises:
        ZooError: If there is no such folder, nothing in it is known, or it is not clear what.
    """
    if not 0 <= val_share < 1:
        raise ZooError(f"val_share is {val_share}; expected a share from 0 to below 1, such as 0.2")
    if format != "auto" and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    folder, file = _locate(Path(root), annotations)
    options = Options(task, val_share, split_seed, file)
    decisions: tuple[str, ...] = ()
    if format == "auto":
        folder, format, decisions = _recognise(folder, options)
    index = get_format(format).read(folder, options)
    index = replace(index, decisions=(*decisions, *index.decisions))
    return make_splits(index, options.val_share, options.split_seed)


def get_format(name: str) -> Format:
    """Return the module of a format, a key of :data:`FORMATS`."""
    module = importlib.import_module(f"lightning_zoo.formats.{_MODULES.get(name, name)}")
    return cast(Format, module)


def _locate(root: Path, annotations: str | Path | None) -> tuple[Path, Path | None]:
    """Return the folder, and the annotation file if one was named, both as absolute paths."""
    root = root.expanduser()
    if not root.exists():
        raise ZooError(
            f"there is no {str(root)!r} (from {str(Path.cwd())!r}); expected the folder of your "
            "data, or its annotation file"
        )
    if root.is_file():
        suffix = root.suffix.lower()
        if suffix in _ARCHIVES:
            raise ZooError(
                f"{str(root)!r} is an archive; unpack it first, and name the folder that it makes"
            )
        if suffix not in _BY_SUFFIX:
            raise ZooError(
                f"{str(root)!r} is a file; expected the folder of your data, or an annotation file "
                f"({', '.join(sorted(_BY_SUFFIX))})"
            )
        if annotations is not None:
            raise ZooError(
                f"{str(root)!r} is a file already, and annotations names {str(annotations)!r}; "
                "name the folder, and the file by --annotations"
            )
        file = root.absolute()
        parent = file.parent
        return (parent.parent if parent.name.lower() == "annotations" else parent), file
    folder = root.absolute()
    if not any(not p.name.startswith(".") for p in folder.iterdir()):
        raise ZooError(f"{str(root)!r} is an empty folder; expected images and their labels in it")
    if annotations is None:
        return folder, None
    for path in (folder / annotations, Path(annotations).expanduser().absolute()):
        if path.is_file():
            return folder, path
    raise ZooError(
        f"there is no annotation file {str(annotations)!r}, neither in {str(root)!r} nor from "
        f"{str(Path.cwd())!r} (--annotations)"
    )


def _recognise(folder: Path, options: Options) -> tuple[Path, str, tuple[str, ...]]:
    """Return the folder that holds the data, the format's name, and why."""
    file = options.annotations
    names: tuple[str, ...] = tuple(FORMATS)
    if file is not None:
        names = _BY_SUFFIX.get(file.suffix.lower(), ())
        if not names:
            raise ZooError(
                f"the annotation file {str(file)!r} is of no known kind; expected "
                f"{', '.join(sorted(_BY_SUFFIX))}, or say what it is by --format"
            )
    fits = _fits(folder, file, names)
    if not fits and file is None:
        inside = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
        folders = [p for p in inside if p.is_dir()]
        if len(folders) == 1 and (found := _fits(folders[0], None, names)):
            said = f"the data lies one folder below: {folders[0].name}/"
            name, reason = _one(folders[0], found, options.task)
            return folders[0], name, (said, reason)
    if not fits:
        raise ZooError(_nothing_fits(folder, file))
    name, reason = _one(folder, fits, options.task)
    return folder, name, (reason,)


def _fits(folder: Path, file: Path | None, names: tuple[str, ...]) -> dict[str, str]:
    reasons = {name: get_format(name).recognise(folder, file) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _one(folder: Path, fits: dict[str, str], task: TaskName | None) -> tuple[str, str]:
    """Return the format that is meant, and why; a question where that is not clear."""
    why = ""
    if len(fits) > 1 and task is not None:
        of_task = {name: reason for name, reason in fits.items() if TASKS[name] == task}
        if of_task:
            others = [name for name in fits if name not in of_task]
            if others:
                why = f" ({' and '.join(others)} would fit too; the model's task is {task})"
            fits = of_task
    if len(fits) > 1:
        listed = " and ".join(fits.values())
        flags = " or ".join(f"--format {name}" for name in fits)
        raise ZooError(f"{str(folder)!r} holds {listed}; which are meant? {flags}")
    ((name, reason),) = fits.items()
    return name, f"format {name}: the folder holds {reason}{why}"


def _nothing_fits(folder: Path, file: Path | None) -> str:
    known = ", ".join(text.partition(":")[0] for text in FORMATS.values())
    if file is not None:
        strange = ""
        if file.suffix.lower() == ".json":
            from lightning_zoo.formats.coco import what_json_is

            strange = f": {what_json_is(file)}"
        return (
            f"{str(file)!r} is no annotation file that is known{strange}; expected one of "
            f"{known}; how each is laid out: {_HELP}"
        )
    kinds = kinds_of_files(folder)
    seen = ", ".join(f"{count} {kind} files" for kind, count in kinds.most_common(4))
    strange = ""
    if kinds[".json"]:
        from lightning_zoo.formats.coco import json_files, what_json_is

        strange = "".join(
            f"; {relative(path, folder)} is no COCO: {what_json_is(path)}"
            for path in json_files(folder)[:1]
        )
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.lower() in ("mask", "masks"):
            strange += f"; {path.name}/ is there, and no images/ of the same names beside it"
    if kinds[".csv"] or kinds[".tsv"]:
        try:  # what is wrong with the table
            get_format("csv").read(folder, Options())
        except ZooError as error:
            strange += f"; {error}"
    return (
        f"{str(folder)!r} holds {seen or 'no files'} and no labels that are known{strange}; "
        f"expected one of {known}; how each is laid out: {_HELP}"
    )
