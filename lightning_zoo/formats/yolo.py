"""YOLO txt: a line for each object, normalised to the image; boxes, polygons or pose.

``data.yaml`` with names and folders; without it ``images/`` and ``labels/``, with or without splits
within, or the other way round, or text files beside the images.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from lightning_zoo.batch import counted
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.files import (
    IMAGE_EXTENSIONS,
    files_below,
    has_extension,
    relative,
    split_folders,
    split_of,
)
from lightning_zoo.formats.images import image_size
from lightning_zoo.formats.index import (
    SPLITS,
    DataIndex,
    Item,
    Object,
    Problem,
    Severity,
    SplitName,
)
from lightning_zoo.formats.recognise import Options
from lightning_zoo.formats.shapes import box_of_points
from lightning_zoo.formats.words import classes_found, some, splits_found
from lightning_zoo.keypoints import COCO_PERSON, left_right_pairs
from lightning_zoo.plain_yaml import MAX_CHARACTERS, load_yaml
from lightning_zoo.transforms.decode import DecodeError

_NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "classes.names")
_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NO_LABELS = ("classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt", "notes.txt")
_KEYS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
_FAR = 0.5  # how far outside of 0..1 a value may be before it can be no share of the image


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder is YOLO's, or None."""
    if annotations is not None:
        is_yolo = _yaml_content(annotations) is not None
        return f"YOLO labels ({annotations.name})" if is_yolo else None
    found = find_yaml(root)
    if found is not None:
        return f"YOLO labels ({relative(found, root)})"
    for folder in _label_folders(root):
        names = sorted(p.name for p in folder.glob("*.txt"))
        for name in [n for n in names if n.lower() not in _NO_LABELS][:5]:
            if _looks_like_labels(folder / name):
                where = relative(folder, root)
                return f"YOLO labels ({name if where == '.' else f'{where}/{name}'})"
    return None


def read(root: Path, options: Options) -> DataIndex:
    """Return what the folder's label files hold.

    Raises:
        ZooError: If data.yaml makes no sense, or no image or no label file is there.
    """
    file = options.annotations or find_yaml(root)
    reader = _Reader(root)
    if file is not None:
        reader.read_yaml(file)
    else:
        reader.find_folders()
        for name in _YAML_NAMES:
            if (root / name).is_file():
                reader.problems.append(
                    Problem("error", "bad data.yaml", name, "it is no YAML with 'names' and 'train'"
                            ", so the classes are numbers", "write names: [NAME, ...] and train: "
                            "images/train"))  # fmt: skip
    return reader.index()


def find_yaml(root: Path) -> Path | None:
    """Return the folder's data.yaml, by whatever name."""
    paths = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    paths.sort(key=lambda p: p.stem not in ("data", "dataset"))
    return next((path for path in paths if _yaml_content(path) is not None), None)


def _yaml_content(path: Path) -> dict[str, Any] | None:
    """Return the content of a file that describes YOLO data; None for any other."""
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            return None
        content = load_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(content, dict) or not {"names", "nc"} & set(content):
        return None
    return content if any(key in content for keys in _KEYS.values() for key in keys) else None


def _label_folders(root: Path) -> list[Path]:
    """Return the folders where label files may lie without a data.yaml."""
    folders = [root / "labels", *(root / "labels").glob("*/"), *root.glob("*/labels/"), root]
    folders += [root / name for name in split_folders(root)]
    return [folder for folder in folders if folder.is_dir()]


def _looks_like_labels(path: Path) -> bool:
    """Tell whether the lines of a file are a whole number and 4 or more shares."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = [line.split() for line in stream.read(4096).splitlines()[:3] if line.strip()]
            rows = [[float(word) for word in words] for words in lines]
    except (OSError, ValueError):
        return False
    return bool(rows) and all(len(row) >= 5 and row[0] == int(row[0]) >= 0 for row in rows)


@dataclass
class _Reader:
    """Collects images and their label files."""

    root: Path
    names: dict[int, str] = field(default_factory=dict)
    named: bool = False
    kpt_shape: tuple[int, int] | None = None
    keypoints: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    bones: tuple[tuple[int, int], ...] = ()
    images: dict[Path, SplitName] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    whence: str = ""

    def read_yaml(self, path: Path) -> None:
        """Take names, keypoints and images from data.yaml."""
        content = _yaml_content(path)
        if content is None:
            raise ZooError(
                f"{str(path)!r} does not describe YOLO data; expected 'names' (a list, or names by "
                "number) and 'train' (a folder of images)"
            )
        self.whence = path.name
        self._take_names(content, path)
        self._take_skeleton(content, path)
        for split, keys in _KEYS.items():
            value = next((content[key] for key in keys if content.get(key)), None)
            for entry in value if isinstance(value, list) else [value] if value else []:
                self._take_images(split, str(entry), content, path)
        if not self.images:
            tried = {k: content[k] for keys in _KEYS.values() for k in keys if content.get(k)}
            said = some(f"{key}: {value}" for key, value in tried.items())
            raise ZooError(
                f"no image is where {str(path)!r} says ({said}; path: "
                f"{content.get('path', 'not set')}); correct the paths, relative to the file's own "
                "folder"
            )

    def find_folders(self) -> None:
        """Take images and names where there is no data.yaml."""
        for name in _NAME_FILES:
            if (self.root / name).is_file():
                lines = (self.root / name).read_text("utf-8-sig", errors="replace").splitlines()
                self.names = dict(enumerate(s.strip() for s in lines if s.strip()))
                self.named, self.whence = True, name
                break
        folders: list[tuple[Path, SplitName]] = []
        pictures = self.root / "images"
        if pictures.is_dir():
            inner = split_folders(pictures)
            folders = [(pictures / name, split) for name, split in inner.items()]
            folders = folders or [(pictures, "train")]
        else:
            for name, split in split_folders(self.root).items():
                inside = self.root / name / "images"
                folders.append((inside if inside.is_dir() else self.root / name, split))
        for folder, split in folders or [(self.root, "train")]:
            for file in files_below(folder, IMAGE_EXTENSIONS):
                self.images.setdefault(folder / file, split)
        if not self.images:
            raise ZooError(
                f"{str(self.root)!r} holds label files and no images; expected the images in "
                "images/ beside labels/, named as their label files"
            )

    def index(self) -> DataIndex:
        """Read the label files, and return all."""
        self._enclose()
        items = [
            item
            for image, split in sorted(self.images.items())
            if (item := self._item(image, split)) is not None
        ]
        items.sort(key=lambda i: (SPLITS.index(i.split), i.file))
        labels = [i for i in items if i.source]
        if not labels:
            first = min(self.images)
            raise ZooError(
                f"none of the {counted(len(self.images), 'image')} has a label file; expected "
                f"{str(label_file(first, self.root))!r} for {str(first)!r}"
            )
        self._strangers({self.root / i.source for i in labels})
        if not self.named:
            used = {o.label for i in items for o in i.objects}
            self.names = {k: f"class {k}" for k in range(max(used, default=0) + 1)}
            self.whence = "the numbers in the labels, as there is no data.yaml or classes.txt"
        classes = [self.names[k] for k in sorted(self.names)]
        shapes = ", ".join(f"{n} {kind}" for kind, n in sorted(self.shapes.items()))
        self.decisions += [
            splits_found(items),
            classes_found(classes, self.whence),
            f"the labels hold {shapes or 'no object'}",
        ]
        if self.unlabelled:
            self.decisions.append(
                f"{counted(len(self.unlabelled), 'image')} without a label file count as "
                f"background: {some(self.unlabelled, 3)}"
            )
        return DataIndex(
            root=self.root,
            format="yolo",
            task="detection",
            classes=tuple(classes),
            items=tuple(items),
            decisions=tuple(self.decisions),
            problems=tuple(self.problems),
            keypoints=self.keypoints,
            flip_pairs=self.flip_pairs,
            bones=self.bones,
            unlabelled=tuple(self.unlabelled),
        )

    def _problem(self, severity: Severity, kind: str, where: str, what: str, fix: str) -> None:
        self.problems.append(Problem(severity, kind, where, what, fix))

    def _take_names(self, content: dict[str, Any], path: Path) -> None:
        names, count = content.get("names"), content.get("nc")
        if isinstance(names, dict):
            try:
                self.names = {int(k): str(v) for k, v in names.items()}
            except (TypeError, ValueError):
                raise ZooError(
                    f"names of {str(path)!r} has the keys {some(names, 4)}; expected the classes' "
                    "numbers from 0"
                ) from None
            gaps = set(range(max(self.names, default=-1) + 1)) - set(self.names)
            if gaps or min(self.names, default=0) < 0:
                raise ZooError(
                    f"names of {str(path)!r} has the numbers {some(sorted(self.names), 6)}; "
                    "expected every number from 0"
                )
        elif isinstance(names, list):
            self.names = {k: str(v) for k, v in enumerate(names)}
        elif names is not None:
            raise ZooError(
                f"names of {str(path)!r} is {names!r}; expected a list of names, or names by number"
            )
        elif type(count) is int and count > 0:
            self.names = {k: f"class {k}" for k in range(count)}
            self.decisions.append(f"{path.name} has no names: the classes are numbered (nc)")
        if not self.names:
            raise ZooError(f"names of {str(path)!r} is empty; expected the classes' names")
        self.named = True
        twice = [name for name, n in Counter(self.names.values()).items() if n > 1]
        if twice:
            self._problem(
                "error", "duplicate class name", path.name,
                f"names has {some(map(repr, twice))} more than once",
                "give each class a name of its own",
            )  # fmt: skip
        if count is not None and count != len(self.names):
            self._problem(
                "error", "wrong class count", path.name,
                f"nc is {count!r} and names has {len(self.names)}: {some(self.names.values())}; "
                "the names are taken",
                f"write nc: {len(self.names)}, or complete the names",
            )  # fmt: skip

    def _take_skeleton(self, content: dict[str, Any], path: Path) -> None:
        shape = content.get("kpt_shape")
        if shape is None:
            return
        if (
            not isinstance(shape, list) or len(shape) != 2
            or any(type(n) is not int for n in shape) or shape[0] < 1 or shape[1] not in (2, 3)
        ):  # fmt: skip
            raise ZooError(
                f"kpt_shape of {str(path)!r} is {shape!r}; expected [K, 2] or [K, 3] for K "
                "keypoints of x, y and maybe visibility"
            )
        count = shape[0]
        self.kpt_shape = (count, shape[1])
        names = content.get("kpt_names")
        if isinstance(names, dict):
            names = next(iter(names.values()), None)
        if isinstance(names, list) and len(names) == count:
            self.keypoints = tuple(str(name) for name in names)
        elif count == len(COCO_PERSON):
            self.keypoints, self.bones = COCO_PERSON.names, COCO_PERSON.bones
            self.decisions.append("17 keypoints are taken for those of COCO's person")
        else:
            self.keypoints = tuple(f"keypoint {i + 1}" for i in range(count))
        flips = content.get("flip_idx")
        if flips is None:
            self.flip_pairs = left_right_pairs(tuple(n.lower() for n in self.keypoints))
            said = f"{counted(len(self.flip_pairs), 'pair')} by name"
            self.decisions.append(f"{path.name} has no flip_idx: keypoints change places in {said}")
        elif (
            isinstance(flips, list) and sorted(map(str, flips)) == sorted(map(str, range(count)))
            and all(flips[flips[i]] == i for i in range(count))
        ):  # fmt: skip
            self.flip_pairs = tuple((i, k) for i, k in enumerate(flips) if i < k)
        else:
            self._problem(
                "error", "bad flip_idx", path.name,
                f"flip_idx is {flips!r}; no keypoints change places in mirror images",
                f"write for each of the {count} keypoints the place of its mirror image",
            )  # fmt: skip

    def _take_images(
        self, split: SplitName, entry: str, content: dict[str, Any], path: Path
    ) -> None:
        """Take the images of one entry of data.yaml: a folder, or a file that lists images."""
        found = self._resolve(split, entry, content, path)
        if found is None:
            self._problem(
                "error", "path that is not there", path.name,
                f"{split} is {entry!r}, which is neither below {str(path.parent)!r} nor elsewhere",
                "write the path relative to the file's own folder",
            )  # fmt: skip
            return
        if found.is_dir():
            for file in files_below(found, IMAGE_EXTENSIONS):
                self.images.setdefault(found / file, split)
            return
        bases = [found.parent, path.parent, self._base(content, path)]
        for number, line in enumerate(found.read_text("utf-8-sig", errors="replace").splitlines()):
            if not line.strip():
                continue
            image = _first_there(line.strip(), bases)
            if image is None:
                self._problem(
                    "error", "image that is not there", f"{found.name}: line {number + 1}",
                    f"{line.strip()!r} is not there; the image is left out",
                    "put the file there, or remove the line",
                )  # fmt: skip
            else:
                self.images.setdefault(image, split)

    def _base(self, content: dict[str, Any], path: Path) -> Path:
        return path.parent / str(content.get("path") or ".")

    def _resolve(
        self, split: SplitName, entry: str, content: dict[str, Any], path: Path
    ) -> Path | None:
        """Return the folder or list that an entry means, as exported here or elsewhere."""
        base = self._base(content, path)
        literal = Path(os.path.normpath(base / entry))
        if literal.exists():
            return literal
        found = _first_there(entry, [path.parent, path.parent.parent])
        if found is None:
            usual = [f"images/{name}" for name in _KEYS[split]]
            usual += [f"{name}/images" for name in _KEYS[split]] + [*_KEYS[split]]
            found = next((path.parent / u for u in usual if (path.parent / u).is_dir()), None)
        if found is not None:
            self.decisions.append(
                f"{split}: {entry!r} of {path.name} is not at {str(literal)!r}; "
                f"{os.path.relpath(found, path.parent)} beside the file is taken"
            )
        return found

    def _enclose(self) -> None:
        """Widen the root where data.yaml leads out of it."""
        folders = {str(image.parent) for image in self.images}
        widest = Path(os.path.commonpath([str(self.root), *folders]))
        if widest != self.root:
            self.decisions.append(f"files are named from {str(widest)!r}, as some lie outside")
            self.root = widest

    def _item(self, image: Path, split: SplitName) -> Item | None:
        file = relative(image, self.root)
        try:
            width, height = image_size(image)
        except DecodeError as error:
            self._problem(
                "error", "unreadable image", file, f"{error.reason}; the image is left out",
                "mend or remove the file",
            )  # fmt: skip
            return None
        labels = label_file(image, self.root)
        if not labels.is_file():
            self.unlabelled.append(file)
            return Item(file, split, width, height)
        source = relative(labels, self.root)
        objects: list[Object] = []
        seen: set[tuple[str, ...]] = set()
        text = labels.read_text("utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            words = tuple(line.split())
            if not words:
                continue
            where = f"{source}: line {number}"
            if words in seen:
                self._problem(
                    "warning", "duplicate label", where, "the line is there twice; one is left out",
                    "remove one of the lines",
                )  # fmt: skip
                continue
            seen.add(words)
            found = self._object(words, width, height, where, f"line {number}")
            if found is not None:
                objects.append(found)
        return Item(file, split, width, height, objects=tuple(objects), source=source)

    def _object(
        self, words: tuple[str, ...], width: int, height: int, where: str, which: str
    ) -> Object | None:
        """Return the object of one line; None where it is lost."""
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = [math.nan]
        if not all(math.isfinite(n) for n in numbers):
            self._problem(
                "error", "line that is no label", where,
                f"{_short(words)} is not all numbers; the line is left out",
                "write the class number and the box: 0 0.5 0.5 0.2 0.1",
            )  # fmt: skip
            return None
        label, values = int(numbers[0]), numbers[1:]
        if label != numbers[0] or label < 0 or (self.named and label >= len(self.names)):
            expected = f"0 to {len(self.names) - 1}" if self.named else "a whole number from 0"
            self._problem(
                "error", "unknown class", where,
                f"the class is {words[0]}; expected {expected}; the line is left out",
                "correct the number, or add the class's name",
            )  # fmt: skip
            return None
        count = len(values)
        points = 4 + math.prod(self.kpt_shape) if self.kpt_shape is not None else 0
        if count != 4 and count != points and (count < 6 or count % 2 or self.kpt_shape):
            self._problem(
                "error", "wrong count of numbers", where,
                f"the line has {count + 1} numbers; expected {self._expected(points)}"
                + ("; a sixth may be a model's score" if count == 5 else "")
                + "; the line is left out",
                "write the line again",
            )  # fmt: skip
            return None
        shares = values
        if count == points and self.kpt_shape is not None and self.kpt_shape[1] == 3:
            shares = values[:4] + [v for i, v in enumerate(values[4:]) if i % 3 != 2]
        low, high = min(shares), max(shares)
        if low < -_FAR or high > 1 + _FAR:
            self._problem(
                "error", "values are not shares", where,
                f"values run from {low:g} to {high:g}, as pixels do; expected 0 to 1; the line is "
                "left out",
                f"divide x by the image's width ({width}) and y by its height ({height})",
            )  # fmt: skip
            return None
        if low < 0 or high > 1:
            self._problem(
                "warning", "value outside 0..1", where,
                f"values run from {low:g} to {high:g}; the object leaves the image",
                "cut the object off at the image's edge",
            )  # fmt: skip
        if count == 4 or count == points:
            x, y, w, h = (v * s for v, s in zip(values, (width, height) * 2, strict=False))
            box = (x - w / 2, y - h / 2, w, h)
            if count == 4:
                self.shapes["boxes"] += 1
                return Object(label, box, where=which)
            self.shapes["poses"] += 1
            return Object(
                label, box, keypoints=self._points(values[4:], width, height, where), where=which
            )
        polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
        self.shapes["polygons"] += 1
        return Object(label, box_of_points(polygon), segmentation=[polygon], where=which)

    def _points(
        self, values: list[float], width: int, height: int, where: str
    ) -> tuple[float, ...]:
        assert self.kpt_shape is not None
        step = self.kpt_shape[1]
        points: list[float] = []
        for i in range(0, len(values), step):
            x, y = values[i : i + 2]
            # without a visibility, a keypoint at the corner is one that is not there
            seen = values[i + 2] if step == 3 else float((x, y) != (0, 0)) * 2
            if seen not in (0, 1, 2):
                self._problem(
                    "warning", "bad visibility", where,
                    f"a visibility is {seen:g}; it is read as {2 if seen > 0.5 else 0}",
                    "write 0, 1 or 2",
                )  # fmt: skip
                seen = 2.0 if seen > 0.5 else 0.0
            points += [x * width, y * height, seen] if seen else [0.0, 0.0, 0.0]
        return tuple(points)

    def _expected(self, points: int) -> str:
        if self.kpt_shape is not None:
            return f"5, or {points + 1} with {self.kpt_shape[0]} keypoints"
        return "5 (class, x, y, width, height), or 7 and more, an odd number, for a polygon"

    def _strangers(self, used: set[Path]) -> None:
        """Name label files that belong to no image."""
        images = [p for folder in {i.parent for i in self.images} for p in folder.iterdir()]
        owned = {
            label_file(path, self.root)
            for path in images
            if has_extension(path.name, IMAGE_EXTENSIONS)
        }
        for folder in sorted({path.parent for path in used}):
            for path in sorted(folder.glob("*.txt")):
                if path in owned or path.name.lower() in _NO_LABELS:
                    continue
                if not _looks_like_labels(path):
                    continue
                self._problem(
                    "warning", "labels without image", relative(path, self.root),
                    "no image has this name; its labels are left out",
                    "put the image there, or remove the file",
                )  # fmt: skip


def label_file(image: Path, root: Path) -> Path:
    """Return the label file of an image: ``labels/`` for the last ``images/``, or beside it."""
    parts = list(image.relative_to(root).parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() == "images":
            parts[i] = "labels"
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _first_there(entry: str, bases: list[Path]) -> Path | None:
    """Return the first of the bases' entries that is there, without its first folders if need be.

    Files exported elsewhere begin with folders of another machine, or with ``..``.
    """
    windows = "\\" in entry or entry[1:2] == ":"
    whole = PureWindowsPath(entry) if windows else PurePosixPath(entry)
    parts = [p for p in whole.parts if p not in (whole.anchor, ".", "..")]
    if Path(entry).is_absolute() and Path(entry).exists():
        return Path(entry)
    literal = [Path(os.path.normpath(base / entry)) for base in bases if not windows]
    tails = [base.joinpath(*parts[i:]) for i in range(len(parts)) for base in bases]
    # a last folder alone, such as images/, may hold all splits
    last = tails[-len(bases) :] if len(parts) > 1 and split_of(parts[-1]) is None else []
    last = [path for path in last if path.is_dir()]
    return next((p for p in (*literal, *tails) if p.exists() and p not in last), None)


def _short(words: tuple[str, ...]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
