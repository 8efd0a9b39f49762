"""COCO JSON: boxes, polygons, run lengths, crowds and keypoints, in the layouts of many exporters.

``annotations/instances_train.json`` with ``train/``; Roboflow's ``train/_annotations.coco.json``
beside its images; one ``annotations.json`` with a folder of images. Images are found by name.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_zoo.batch import counted
from lightning_zoo.datamodules.coco_index import check_categories, finite_numbers, read_json
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.files import IMAGE_EXTENSIONS, files_below, relative, split_of
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
from lightning_zoo.formats.shapes import box_of
from lightning_zoo.formats.words import classes_found, some, splits_found
from lightning_zoo.keypoints import left_right_pairs
from lightning_zoo.transforms.decode import DecodeError
from lightning_zoo.transforms.masks import MaskError, pack, without_degenerate

_HEAD = 64 * 1024  # bytes of a JSON's start and end that recognition looks at
_KEYS = (b'"images"', b'"annotations"')
_NO_BOXES = ("captions", "stuff", "panoptic", "image_info")
_FOLDERS = ("images", "imgs", "img", "data", "JPEGImages", "Images")


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder is COCO's, or None."""
    if annotations is not None:
        return f"COCO annotations ({annotations.name})" if _looks_like_coco(annotations) else None
    found = [path for path in json_files(root) if _looks_like_coco(path)]
    if not found:
        return None
    return f"COCO annotations ({some([relative(p, root) for p in found], 3)})"


def read(root: Path, options: Options) -> DataIndex:
    """Return what the folder's COCO files hold.

    Raises:
        ZooError: If a file is no COCO, it is not clear which one is meant, or no image is there.
    """
    files, decisions = _choose_files(root, options.annotations)
    reader = _Reader(root)
    for split, path in files:
        reader.read_file(path, split)
    return reader.index(decisions)


def json_files(root: Path) -> list[Path]:
    """Return the JSON files where annotations may be: in the root, and one folder below."""
    return sorted([*root.glob("*.json"), *root.glob("*/*.json")])


def what_json_is(path: Path) -> str:
    """Return what a JSON file holds that is not COCO's, in words."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"it cannot be read as JSON ({error}), so it may be truncated"
    if isinstance(content, list):
        return "it holds a list"
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    if "shapes" in content and "imagePath" in content:
        return "it is LabelMe's, one file for each image (labelme2coco makes COCO of it)"
    if "_via_img_metadata" in content:
        return "it is a project of VIA (export it as COCO there)"
    return f"it has the keys {some(content, 5) or 'none'}"


def _looks_like_coco(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            text = stream.read(_HEAD)
            stream.seek(max(_HEAD, path.stat().st_size - _HEAD))
            text += stream.read(_HEAD)
    except OSError:
        return False
    return text.lstrip()[:1] == b"{" and any(key in text for key in _KEYS)


def _choose_files(
    root: Path, annotations: Path | None
) -> tuple[list[tuple[SplitName, Path]], list[str]]:
    """Return the file of each split, and sentences that say why those."""
    decisions: list[str] = []
    found = [path for path in json_files(root) if _looks_like_coco(path)]
    if annotations is not None:
        # one file of a family names the family: person_keypoints_train.json brings ..._val.json
        family = _family(annotations)
        found = [p for p in found if p.parent == annotations.parent and _family(p) == family]
        found = [annotations, *(p for p in found if p != annotations)]
        if _split_of_file(annotations) is None:
            found = [annotations]
    by_split: dict[SplitName, list[Path]] = defaultdict(list)
    for path in found:
        if path != annotations and path.stem.startswith(_NO_BOXES):
            decisions.append(f"{relative(path, root)} is not read: it has no boxes")
            continue
        by_split[_split_of_file(path) or "train"].append(path)
    if not by_split:
        raise ZooError(
            f"{str(root)!r} holds no COCO file with boxes; expected "
            "annotations/instances_train.json or the like, or name it by --annotations"
        )
    chosen: list[tuple[SplitName, Path]] = []
    for split in SPLITS:
        paths = by_split.get(split, [])
        instances = [p for p in paths if p.stem.startswith("instances")]
        if len(paths) > 1 and len(instances) == 1:
            others = some([relative(p, root) for p in paths if p not in instances], 3)
            decisions.append(
                f"{relative(instances[0], root)} is read and {others} is not; --annotations FILE"
            )
            paths = instances
        if len(paths) > 1:
            names = [relative(p, root) for p in paths]
            raise ZooError(
                f"{str(root)!r} holds {len(names)} COCO files for the split {split}: "
                f"{some(names, 4)}; which is meant? "
                + " or ".join(f"--annotations {name}" for name in names[:2])
            )
        chosen += [(split, path) for path in paths]
    return chosen, decisions


def _split_of_file(path: Path) -> SplitName | None:
    """Return the split that a file's name or else its folder's name tells."""
    for word in reversed(re.split(r"[_.\-\s]+", path.stem)):
        if (split := split_of(word)) is not None:
            return split
    return split_of(path.parent.name)


def _family(path: Path) -> tuple[str, ...]:
    """Return the words of a file's name without its split."""
    return tuple(w for w in re.split(r"[_.\-\s]+", path.stem) if split_of(w) is None)


@dataclass
class _Draft:
    """An image while its annotations are collected."""

    file: str
    split: SplitName
    width: int
    height: int
    source: str
    number: int | None
    objects: list[Object] = field(default_factory=list)


class _Reader:
    """Collects the images and annotations of several files into one index."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = files_below(root, IMAGE_EXTENSIONS)
        self.there = set(self.images)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            self.by_name[file.rpartition("/")[2]].append(file)
        self.classes: dict[str, int] = {}  # name: category id of the first file that has it
        self.supers: dict[str, str] = {}
        self.keypoints: tuple[str, ...] = ()
        self.flip_pairs: tuple[tuple[int, int], ...] | None = None  # where the file names them
        self.bones: tuple[tuple[int, int], ...] = ()
        self.drafts: list[_Draft] = []
        self.problems: list[Problem] = []
        self.sources: list[str] = []
        self.by_file_name = 0

    def read_file(self, path: Path, split: SplitName) -> None:
        """Take one annotation file.

        Raises:
            ZooError: If it is no COCO, or none of its images is there.
        """
        source = relative(path, self.root) if path.is_relative_to(self.root) else str(path)
        content = read_json_of_coco(path)
        categories = check_categories(content.get("categories"), path)
        labels = self._take_categories(content["categories"], categories, source)
        images = self._take_images(content["images"], path, source, split)
        self._take_annotations(content["annotations"], images, labels, source)
        self.sources.append(source)

    def index(self, decisions: list[str]) -> DataIndex:
        """Return what was read."""
        names = list(self.classes)
        dropped = self._roboflow_parent()
        if dropped is not None:
            gone = names.index(dropped)
            names.remove(dropped)
            for draft in self.drafts:
                draft.objects = [
                    replace(o, label=o.label - (o.label > gone)) for o in draft.objects
                ]
            decisions.append(
                f"the category {dropped!r} is left out: it has no annotation and is the parent of "
                "the others"
            )
        items = [
            Item(d.file, d.split, d.width, d.height, objects=tuple(d.objects), source=d.source,
                 number=d.number)
            for d in self.drafts
        ]  # fmt: skip
        items.sort(key=lambda i: (SPLITS.index(i.split), i.file))
        pairs = self.flip_pairs
        if pairs is None:
            pairs = left_right_pairs(tuple(name.lower() for name in self.keypoints))
        decisions.append(splits_found(items))
        decisions.append(classes_found(names, self.sources[0]))
        if self.keypoints:
            decisions.append(
                f"{len(self.keypoints)} keypoints; {counted(len(pairs), 'pair')} of them change "
                "places in a mirror image"
            )
        if self.by_file_name:
            decisions.append(
                f"{counted(self.by_file_name, 'image')} lie elsewhere than file_name says, and "
                "were found by their names"
            )
        folders = {item.file.rpartition("/")[0] for item in items}
        used = {item.file for item in items}
        return DataIndex(
            root=self.root,
            format="coco",
            task="detection",
            classes=tuple(names),
            items=tuple(items),
            decisions=tuple(decisions),
            problems=tuple(self.problems),
            keypoints=self.keypoints,
            flip_pairs=pairs,
            bones=self.bones,
            category_ids=tuple(self.classes[name] for name in names),
            unlabelled=tuple(
                f for f in self.images if f not in used and f.rpartition("/")[0] in folders
            ),
        )

    def _problem(self, severity: Severity, kind: str, where: str, what: str, fix: str) -> None:
        self.problems.append(Problem(severity, kind, where, what, fix))

    def _take_categories(
        self, listed: list[dict[str, Any]], categories: dict[int, str], source: str
    ) -> dict[int, int]:
        """Return the label of each category id of a file."""
        before: set[str] = set()
        for number, name in categories.items():
            if name in before:
                self._problem(
                    "warning", "duplicate category name", f"{source}: category {number}",
                    f"another category is called {name!r} too; they are read as one class",
                    "give one of them another name, or remove it",
                )  # fmt: skip
            before.add(name)
            self.classes.setdefault(name, number)
        for category in listed:
            self.supers.setdefault(category["name"], str(category.get("supercategory", "")))
            points = category.get("keypoints")
            if not isinstance(points, list) or not points:
                continue
            names = tuple(str(point) for point in points)
            if not self.keypoints:
                self.keypoints = names
                self.bones = _bones(category.get("skeleton"), len(names))
                if isinstance(category.get("flip_pairs"), list):
                    self.flip_pairs = _bones(category["flip_pairs"], len(names))
            elif names != self.keypoints:
                self._problem(
                    "warning", "two skeletons", f"{source}: category {category['id']}",
                    f"{category['name']!r} has other keypoints than the first category that has "
                    "some; a model learns one skeleton",
                    "keep one kind of object with keypoints",
                )  # fmt: skip
        order = list(self.classes)
        return {number: order.index(name) for number, name in categories.items()}

    def _take_images(
        self, listed: list[Any], path: Path, source: str, split: SplitName
    ) -> dict[Any, _Draft]:
        """Return the images of a file by id."""
        prefixes = self._prefixes(path, split)
        found: dict[Any, _Draft] = {}
        by_file: dict[str, _Draft] = {}
        missing = 0
        for i, image in enumerate(listed):
            number = image.get("id") if isinstance(image, dict) else None
            where = f"{source}: images[{i}]" if number is None else f"{source}: image {number}"
            if not isinstance(number, (int, str)) or isinstance(number, bool):
                self._problem(
                    "error", "image without id", where, "it has no 'id'",
                    "give every image a number of its own",
                )  # fmt: skip
                continue
            if number in found:
                self._problem(
                    "error", "duplicate image id", where,
                    f"another image has the same id; {image.get('file_name')!r} is left out",
                    "give every image a number of its own",
                )  # fmt: skip
                continue
            name = image.get("file_name")
            if not isinstance(name, str) or not name or "\0" in name:
                self._problem(
                    "error", "bad file name", where, f"file_name is {name!r}",
                    "write the image's file, relative to its folder",
                )  # fmt: skip
                continue
            file = self._find(name, prefixes)
            if file is None:
                missing += 1
                self._problem(
                    "error", "image that is not there", where,
                    f"{name!r} is not below the folder; the image is left out",
                    "put the file there, or remove its entry",
                )  # fmt: skip
                continue
            if file in by_file:
                self._problem(
                    "warning", "image listed twice", where,
                    f"{file} is another entry's file too; their annotations are joined",
                    "remove one of the entries",
                )  # fmt: skip
                found[number] = by_file[file]
                continue
            size = self._size(image, file, where)
            if size is None:
                continue
            draft = _Draft(file, split, *size, source, number if type(number) is int else None)
            found[number] = by_file[file] = draft
            self.drafts.append(draft)
        if missing and not found:
            raise ZooError(
                f"none of the {missing} images that {str(path)!r} names is below "
                f"{str(self.root)!r}, the first is {_first_name(listed)!r}; put the images there, "
                "or name the folder that holds both"
            )
        return found

    def _prefixes(self, path: Path, split: SplitName) -> list[str]:
        """Return the folders where a file's images may lie, the likeliest first."""
        beside = path.parent
        own = beside.relative_to(self.root).as_posix() if beside.is_relative_to(self.root) else "."
        words = [w for w in re.split(r"[_.\-\s]+", path.stem) if split_of(w)]
        named = [*reversed(words), split]
        named += [p.name for p in sorted(self.root.iterdir()) if split_of(p.name) == split]
        folders = [] if own.lower() == "annotations" else [own, f"{own}/images"]
        for name in dict.fromkeys(named):
            folders += [name, f"{name}/images"]
            folders += [f"{folder}/{name}" for folder in _FOLDERS]
        folders += [*_FOLDERS, ".", own]
        return ["" if f == "." else f.removeprefix("./") + "/" for f in dict.fromkeys(folders)]

    def _find(self, name: str, prefixes: list[str]) -> str | None:
        """Return an image's file within the root."""
        name = name.replace("\\", "/").removeprefix("./")
        for prefix in prefixes:
            if prefix + name in self.there:
                return prefix + name
        base = name.rpartition("/")[2]
        for prefix in prefixes:
            if prefix + base in self.there:
                self.by_file_name += 1
                return prefix + base
        if len(self.by_name.get(base, ())) == 1:
            self.by_file_name += 1
            return self.by_name[base][0]
        return None

    def _size(self, image: dict[str, Any], file: str, where: str) -> tuple[int, int] | None:
        """Return width and height as stated, else the file's own."""
        width, height = image.get("width"), image.get("height")
        if type(width) is int and type(height) is int and width > 0 and height > 0:
            return width, height
        if width is not None or height is not None:
            self._problem(
                "warning", "bad image size", where,
                f"width and height are {width!r} and {height!r}; the file's own are taken",
                "write the image's size in pixels",
            )  # fmt: skip
        try:
            return image_size(self.root / file)
        except DecodeError as error:
            self._problem(
                "error", "unreadable image", file, f"{error.reason}; the image is left out",
                "mend or remove the file",
            )  # fmt: skip
            return None

    def _take_annotations(
        self, listed: list[Any], images: dict[Any, _Draft], labels: dict[int, int], source: str
    ) -> None:
        """Add the annotations of a file to its images."""
        seen: dict[Any, tuple[Any, ...]] = {}
        for i, annotation in enumerate(listed):
            if not isinstance(annotation, dict):
                self._problem(
                    "error", "annotation that is none", f"{source}: annotations[{i}]",
                    f"it is a {type(annotation).__name__}; expected an object", "remove it",
                )  # fmt: skip
                continue
            number = annotation.get("id")
            which = f"annotations[{i}]" if number is None else f"annotation {number}"
            image_id, category = annotation.get("image_id"), annotation.get("category_id")
            where = f"{source}: {which} (image {image_id!r})"
            if not isinstance(image_id, (int, str)) or image_id not in images:
                self._problem(
                    "error", "unknown image", where,
                    f"image_id is {image_id!r}, which no image has; the annotation is left out",
                    "remove it, or list its image",
                )  # fmt: skip
                continue
            if type(category) is not int or category not in labels:
                self._problem(
                    "error", "unknown category", where,
                    f"category_id is {category!r}, which no category has; the annotation is left "
                    "out",
                    "remove it, or list its category",
                )  # fmt: skip
                continue
            if number is not None:
                key = (image_id, category, str(annotation.get("bbox")))
                if isinstance(number, (int, str)) and number in seen:
                    same = seen[number] == key
                    self._problem(
                        "warning", "duplicate annotation id", where,
                        "another annotation has the same id"
                        + (" and box; it is left out" if same else "; it is kept"),
                        "give every annotation a number of its own",
                    )  # fmt: skip
                    if same:
                        continue
                elif isinstance(number, (int, str)):
                    seen[number] = key
            found = self._object(annotation, labels[category], images[image_id], where, which)
            if found is not None:
                images[image_id].objects.append(found)

    def _object(
        self, annotation: dict[str, Any], label: int, image: _Draft, where: str, which: str
    ) -> Object | None:
        """Return one object; None where it is lost."""
        crowd = annotation.get("iscrowd", 0)
        if crowd not in (0, 1):
            self._problem(
                "warning", "bad iscrowd", where, f"iscrowd is {crowd!r}; it is read as 0",
                "write 0 or 1",
            )  # fmt: skip
            crowd = 0
        try:
            segmentation = self._segmentation(annotation.get("segmentation"), image, where)
        except MaskError as error:
            self._problem(
                "error", "damaged mask", where, f"{error}; the annotation is left out",
                "export the mask again, or remove the annotation",
            )  # fmt: skip
            return None
        box = _finite(annotation.get("bbox"), 4)
        if box is None and annotation.get("bbox") in (None, []) and segmentation is not None:
            drawn = box_of(segmentation, image.height, image.width)
            box = [*drawn] if drawn is not None else None
        if box is None:
            self._problem(
                "error", "bad box", where,
                f"bbox is {annotation.get('bbox')!r}; expected four finite numbers x, y, width, "
                "height; the annotation is left out",
                "correct the box, or remove the annotation",
            )  # fmt: skip
            return None
        area = _finite([annotation.get("area")], 1)
        if area is None and annotation.get("area") is not None:
            self._problem(
                "warning", "bad area", where,
                f"area is {annotation['area']!r}; that of the box or mask is taken",
                "write the area in pixels, or leave it out",
            )  # fmt: skip
        return Object(
            label=label,
            box=(box[0], box[1], box[2], box[3]),
            segmentation=segmentation,
            keypoints=self._points(annotation.get("keypoints"), where),
            crowd=bool(crowd),
            where=which,
            area=area[0] if area else None,
        )

    def _segmentation(self, value: Any, image: _Draft, where: str) -> Any:
        """Return polygons or run lengths that can be decoded; None where there is nothing in them.

        Raises:
            MaskError: If they are damaged.
        """
        if value is None or value == [] or value == {}:
            return None
        try:
            pack(value, image.height, image.width)
            return value
        except MaskError as error:
            if not error.degenerate:
                raise
        rest = without_degenerate(value)
        self._problem(
            "warning", "polygon without area", where,
            "a polygon has fewer than three points and is left out",
            "remove it, or draw it again",
        )  # fmt: skip
        if not rest:
            return None
        pack(rest, image.height, image.width)
        return rest

    def _points(self, value: Any, where: str) -> tuple[float, ...] | None:
        if value is None or value == []:
            return None
        if not self.keypoints and isinstance(value, list) and value and len(value) % 3 == 0:
            self.keypoints = tuple(f"keypoint {i + 1}" for i in range(len(value) // 3))
        points = _finite(value, 3 * len(self.keypoints))
        if points is None or any(v not in (0, 1, 2) for v in points[2::3]):
            length = f"{len(value)} values" if isinstance(value, list) else repr(value)
            self._problem(
                "error", "bad keypoints", where,
                f"keypoints has {length}; expected {3 * len(self.keypoints)} finite numbers, x y "
                f"visibility (0, 1, 2) for each of {len(self.keypoints)} keypoints; the box is "
                "kept without them",
                "correct the keypoints, or remove the annotation",
            )  # fmt: skip
            return None
        return tuple(points)

    def _roboflow_parent(self) -> str | None:
        """Return the category without objects that Roboflow adds as the parent of all others."""
        used = {o.label for draft in self.drafts for o in draft.objects}
        for label, name in enumerate(self.classes):
            others = [other for other in self.classes if other != name]
            if label not in used and others and all(self.supers[o] == name for o in others):
                return name
        return None


def read_json_of_coco(path: Path) -> dict[str, Any]:
    """Return the content of a COCO file, with its three lists.

    Raises:
        ZooError: If it is something else.
    """
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ZooError(
                f"{str(path)!r} is no COCO file: {what_json_is(path)}; expected lists 'images', "
                "'annotations' and 'categories'; name another file by --annotations"
            )
    return content


def _first_name(listed: list[Any]) -> str:
    return next(str(i["file_name"]) for i in listed if isinstance(i, dict) and "file_name" in i)


def _bones(skeleton: Any, count: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of places from COCO's, which count from 1; some exporters count from 0."""
    pairs = [
        (a, b)
        for a, b in (p for p in skeleton or () if isinstance(p, (list, tuple)) and len(p) == 2)
        if type(a) is int and type(b) is int
    ]
    first = 0 if any(0 in pair for pair in pairs) else 1
    moved = [(a - first, b - first) for a, b in pairs]
    return tuple((a, b) for a, b in moved if 0 <= a < count and 0 <= b < count)


def _finite(values: Any, count: int) -> list[float] | None:
    """Return ``count`` finite numbers as floats; None where it is something else."""
    found = finite_numbers(values, count)
    return None if found is None else [float(v) for v in found]
