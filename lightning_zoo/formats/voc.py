"""Pascal VOC XML: boxes, a file for each image.

``Annotations/*.xml JPEGImages/*.jpg ImageSets/Main/train.txt``; or XML beside the images; or a
folder of both for each split.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from lightning_zoo.batch import counted
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.files import (
    IMAGE_EXTENSIONS,
    files_below,
    has_extension,
    relative,
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
from lightning_zoo.formats.words import classes_found, splits_found
from lightning_zoo.transforms.decode import DecodeError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_XML = 8 * 2**20  # bytes of one image's labels; each element takes about 100 in memory
_HEAD = 2048  # bytes of an XML file that recognition looks at


class XmlError(ValueError):
    """An XML file that cannot be read; the text says why."""


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder is Pascal VOC's, or None."""
    if annotations is not None:
        return None
    for pattern in ("Annotations/*.xml", "annotations/*.xml", "*.xml", "*/*.xml", "*/*/*.xml"):
        paths = sorted(root.glob(pattern))
        if pattern == "*/*/*.xml":  # train/Annotations/*.xml; else a whole data set lies below
            paths = [p for p in paths if _split_of_path(relative(p, root)) is not None]
        for path in paths[:3]:
            try:
                with open(path, "rb") as stream:
                    head = stream.read(_HEAD)
            except OSError:
                continue
            if b"<annotation" in head:
                return f"Pascal VOC annotations ({relative(path, root)})"
    return None


def read(root: Path, options: Options) -> DataIndex:
    """Return what the folder's XML files hold.

    Raises:
        ZooError: If there is no XML file, or none has an image.
    """
    return _Reader(root).index()


def parse_xml(data: bytes) -> Element:
    """Return the root of an XML file; entities of its own are refused, others are not fetched.

    Raises:
        XmlError: If it is damaged, far too long, or declares entities (a few lines of them can fill
            the memory).
    """
    if len(data) > MAX_XML:
        raise XmlError(f"it has {len(data)} bytes; expected at most {MAX_XML}")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise XmlError("it declares entities, which no annotation needs")

    parser.StartElementHandler = lambda tag, attributes: builder.start(tag, attributes)
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:
        raise XmlError(str(error) or "it is empty") from None


@dataclass(frozen=True, slots=True)
class _Found:
    """An object as its file has it: ``box`` is xmin, ymin, xmax, ymax."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    where: str


class _Reader:
    """Reads all XML files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = files_below(root, IMAGE_EXTENSIONS)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            self.by_stem[_stem(file)].append(file)
        self.problems: list[Problem] = []
        self.decisions: list[str] = []

    def index(self) -> DataIndex:
        """Return what was read."""
        sources = files_below(self.root, {"xml"})
        if not sources:
            raise ZooError(f"{str(self.root)!r} holds no XML file; expected Annotations/*.xml")
        lists = self._split_lists()
        drafts: list[tuple[Item, list[_Found]]] = []
        unlisted, missing = 0, []
        for source in sources:
            try:
                tree = parse_xml((self.root / source).read_bytes())
            except (XmlError, OSError) as error:
                self._problem(
                    "error", "damaged XML", source, f"{error}; its image is left out",
                    "export the file again, or remove it and its image",
                )  # fmt: skip
                continue
            if tree.tag != "annotation":
                continue
            stem = _stem(source)
            split: SplitName | None = lists.get(stem) if lists else _split_of_path(source)
            if lists and split is None:
                unlisted += 1
                continue
            file = self._image_of(source, (tree.findtext("filename") or "").strip())
            if file is None:
                missing.append(source)
                self._problem(
                    "error", "labels without image", source,
                    f"no image {stem}.* or {tree.findtext('filename')!r} is below the folder; its "
                    "labels are left out",
                    "put the image there, or remove the file",
                )  # fmt: skip
                continue
            size = self._size(tree, file, source)
            if size is not None:
                item = Item(file, split or "train", *size, source=source)
                drafts.append((item, self._objects(tree, source)))
        if not drafts:
            if missing:
                raise ZooError(
                    f"none of the {counted(len(missing), 'XML file')} in {str(self.root)!r} has "
                    f"its image there, the first is {missing[0]!r}; put the images into JPEGImages/"
                )
            raise ZooError(
                f"no XML file in {str(self.root)!r} is a Pascal VOC annotation that can be read"
                + (f": {self.problems[0].where}: {self.problems[0].what}" if self.problems else "")
            )
        if unlisted:
            self.decisions.append(
                f"{counted(unlisted, 'image')} with XML are in no list of ImageSets and are left "
                "out"
            )
        return self._finish(drafts)

    def _finish(self, drafts: list[tuple[Item, list[_Found]]]) -> DataIndex:
        every = [found for _, objects in drafts for found in objects]
        classes = sorted({found.name for found in every})
        label = {name: i for i, name in enumerate(classes)}
        # VOC counts pixels from 1; a corner at 0 shows an exporter that counts from 0
        zeros = sum(min(found.box[:2]) < 1 for found in every)
        from_zero = zeros > 0 and zeros * 1000 > len(every)
        hard = sum(found.difficult for found in every)
        as_crowd = 0 < hard < len(every)
        items = []
        for item, objects in drafts:
            made = []
            for found in objects:
                x1, y1, x2, y2 = found.box
                shift = 0 if from_zero else 1
                box = (x1 - shift, y1 - shift, x2 - x1 + shift, y2 - y1 + shift)
                made.append(Object(
                    label[found.name], box, crowd=found.difficult and as_crowd, where=found.where
                ))  # fmt: skip
            items.append(replace(item, objects=tuple(made)))
        items.sort(key=lambda i: (SPLITS.index(i.split), i.file))
        self.decisions.append(splits_found(items))
        self.decisions.append(classes_found(classes, "the objects' names, sorted"))
        if from_zero:
            self.decisions.append(
                f"boxes are read as they are: {zeros} begin at 0, so pixels are not counted from 1 "
                "as VOC does"
            )
        else:
            self.decisions.append(
                "boxes count pixels from 1 and include the last, so xmin 1, xmax 10 is x 0, width "
                "10"
            )
        if as_crowd:
            self.decisions.append(
                f"{counted(hard, 'object')} marked difficult are neither trained on nor counted "
                "in evaluation (as crowds)"
            )
        elif hard:
            self.decisions.append("all objects are marked difficult, and are read as others")
        used = {item.file for item in items}
        folders = {item.file.rpartition("/")[0] for item in items}
        with_xml = {_stem(i.source) for i in items} | {_stem(p.where) for p in self.problems}
        return DataIndex(
            root=self.root,
            format="voc",
            task="detection",
            classes=tuple(classes),
            items=tuple(items),
            decisions=tuple(self.decisions),
            problems=tuple(self.problems),
            unlabelled=tuple(
                f
                for f in self.images
                if f not in used and f.rpartition("/")[0] in folders and _stem(f) not in with_xml
            ),
        )

    def _problem(self, severity: Severity, kind: str, where: str, what: str, fix: str) -> None:
        self.problems.append(Problem(severity, kind, where, what, fix))

    def _split_lists(self) -> dict[str, SplitName]:
        """Return the split of each image that the lists of ImageSets name; empty without lists."""
        sets = next(
            (f for f in (self.root / "ImageSets/Main", self.root / "ImageSets") if f.is_dir()), None
        )
        if sets is None:
            return {}
        lists: dict[SplitName, Path] = {}
        for path in sorted(sets.glob("*.txt")):
            split = split_of(path.stem)
            if split is not None:
                lists[split] = path
        both = sets / "trainval.txt"
        if both.is_file():
            if "train" not in lists:
                lists["train"] = both
            elif "val" in lists:
                self.decisions.append("trainval.txt is not read, as train.txt and val.txt are")
        found: dict[str, SplitName] = {}
        for split in SPLITS:
            if split not in lists:
                continue
            where = relative(lists[split], self.root)
            lines = lists[split].read_text("utf-8-sig", errors="replace").splitlines()
            for number, line in enumerate(lines, start=1):
                name = _image_name(line.strip())
                if not name:
                    continue
                if name in found and found[name] != split:
                    self._problem(
                        "error", "image in two splits", f"{where}: line {number}",
                        f"{name!r} is in the list of {found[name]} already, where it stays",
                        "remove it from one of the lists",
                    )  # fmt: skip
                elif name not in self.by_stem:
                    self._problem(
                        "warning", "image that is not there", f"{where}: line {number}",
                        f"no image {name!r} is below the folder", "remove the line",
                    )  # fmt: skip
                else:
                    found.setdefault(name, split)
        return found

    def _image_of(self, source: str, filename: str) -> str | None:
        """Return the image of an XML file: by its own name, else by the name that it states."""
        folder = source.rpartition("/")[0]
        parent = folder.rpartition("/")[0]
        for stem in (_stem(source), _stem(filename.replace("\\", "/"))):
            choices = self.by_stem.get(stem, [])
            if len(choices) > 1:
                beside = [f for f in choices if f.rpartition("/")[0] == folder]
                near = [
                    f for f in choices if f.startswith(f"{parent}/" if parent else "JPEGImages/")
                ]
                same = [f for f in choices if _split_of_path(f) == _split_of_path(source)]
                choices = beside or near or same or choices
            if choices:
                return choices[0]
        return None

    def _size(self, tree: Element, file: str, source: str) -> tuple[int, int] | None:
        """Return width and height as stated, else the file's own."""
        try:
            width, height = (
                int(float(tree.findtext(f"size/{k}", "0"))) for k in ("width", "height")
            )
        except (ValueError, OverflowError):
            width = height = 0
        if width > 0 and height > 0:
            return width, height
        try:
            size = image_size(self.root / file)
        except DecodeError as error:
            self._problem(
                "error", "unreadable image", file, f"{error.reason}; the image is left out",
                "mend or remove the file",
            )  # fmt: skip
            return None
        self._problem(
            "note", "no image size", source, f"the file states none; the image's {size[0]} x "
            f"{size[1]} is taken",
            "write width and height into size",
        )  # fmt: skip
        return size

    def _objects(self, tree: Element, source: str) -> list[_Found]:
        found = []
        for number, element in enumerate(tree.findall("object"), start=1):
            where = f"{source}: object {number}"
            name = (element.findtext("name") or "").strip()
            if not name:
                self._problem(
                    "error", "object without name", where, "its name is empty; it is left out",
                    "write the class's name, or remove the object",
                )  # fmt: skip
                continue
            texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
            try:
                box = [float(text or "nan") for text in texts]
            except ValueError:
                box = [math.nan]
            if not all(math.isfinite(n) for n in box):
                said = ", ".join(f"{k} {t}" for k, t in zip(_CORNERS, texts, strict=True))
                self._problem(
                    "error", "bad box", where,
                    f"bndbox is {said}; expected four finite numbers; the object is left out",
                    "correct the box, or remove the object",
                )  # fmt: skip
                continue
            difficult = (element.findtext("difficult") or "0").strip() == "1"
            corners = (box[0], box[1], box[2], box[3])
            found.append(_Found(name, corners, difficult, f"object {number}"))
        return found


def _stem(file: str) -> str:
    """Return a file's name without folders and extension."""
    name = file.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _image_name(line: str) -> str:
    """Return the image that a line of a list names, usually without an extension."""
    return _stem(line) if has_extension(line, IMAGE_EXTENSIONS) else line.rpartition("/")[2]


def _split_of_path(file: str) -> SplitName | None:
    """Return the split that one of a file's folders names."""
    folders = file.split("/")[:-1]
    return next((split for f in folders if (split := split_of(f)) is not None), None)
