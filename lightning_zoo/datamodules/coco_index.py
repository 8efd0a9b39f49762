"""A COCO annotation file in a few arrays, checked line by line while it is read.

COCO's 860,000 annotations as Python objects take gigabytes, and each worker that reads them gets a
copy in time, because Python writes reference counts into the objects. Arrays and bytes are shared
by workers that fork, whatever they read.
"""

from __future__ import annotations

import gc
import json
import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import MAX_PIXELS
from lightning_zoo.transforms.masks import MaskError, pack, without_degenerate

Target = Literal["boxes", "masks", "keypoints"]
OnBadAnnotation = Literal["reference", "refuse", "skip"]

_MEND = "mend the file, or leave such annotations out by --data.on_bad_annotation skip"


class Problem(NamedTuple):
    """Something wrong with one entry of an annotation file.

    Attributes:
        where: The entry, such as ``annotation 12 (image 25)``.
        what: What is wrong and what was expected.
        kind: A few words for counting.
        degenerate: Whether it is merely an object without area, which the reference leaves out.
    """

    where: str
    what: str
    kind: str
    degenerate: bool = False


class _BadError(Exception):
    """One entry is wrong; carries a problem's ``what`` and ``kind``."""

    def __init__(self, what: str, kind: str) -> None:
        super().__init__(what)
        self.what = what
        self.kind = kind


@dataclass
class CocoIndex:
    """N images, sorted by id, and their A annotations, in the order of the images.

    Attributes:
        image_ids: int64 (N).
        sizes: int32 (N, 2), height and width in pixels as the file says.
        names: Files of the images, relative to their folder.
        starts: int64 (N + 1), the first annotation of each image.
        ids: int64 (A), at least 1.
        labels: int64 (A).
        boxes: float64 (A, 4), ``x y width height`` as in the file.
        areas: float64 (A); NaN where the file has none.
        crowds: bool (A).
        usable: bool (A), whether the object can be trained on: it has an area within its image.
        has_masks: Whether the masks were kept.
        segments: Every mask as :func:`lightning_zoo.transforms.masks.pack` gives it, joined.
        segment_ranges: int64 (A, 2), start and end of each mask in ``segments``; (0, 2) without.
        keypoints: float (A, K, 3), ``x y visibility``; K is 0 without.
        num_keypoints: int32 (A), labelled keypoints as the file counts them.
        problems: What was wrong and is left out, in the order of the file.
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    names: FileNames
    starts: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    has_masks: bool
    segments: bytes
    segment_ranges: NDArray[np.int64]
    keypoints: NDArray[Any]
    num_keypoints: NDArray[np.int32]
    problems: list[Problem]

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, image: int) -> slice:
        """Return the annotations of the image at a position."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def segment(self, row: int) -> bytes:
        """Return one annotation's packed mask."""
        start, end = self.segment_ranges[row]
        return self.segments[start:end]

    def has_objects(self) -> NDArray[np.bool_]:
        """Tell which images (N) the reference trains on: a box with both sides over one pixel."""
        large = np.all(self.boxes[:, 2:] > 1, axis=1)
        return self._count(large) > 0

    def visible_keypoints(self) -> NDArray[np.int64]:
        """Return the number of labelled keypoints of all objects in each image (N)."""
        return self._count((self.keypoints[..., 2] > 0).sum(axis=1))

    def aspect_ratios(self) -> NDArray[np.float64]:
        """Return width / height of each image (N)."""
        return self.sizes[:, 1] / self.sizes[:, 0]

    def _count(self, values: NDArray[Any]) -> NDArray[np.int64]:
        sums = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
        counts: NDArray[np.int64] = sums[self.starts[1:]] - sums[self.starts[:-1]]
        return counts


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object.

    Raises:
        ZooError: If it cannot be read or holds something else.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look in vain through millions of new objects, again and again
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ZooError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ZooError(
            f"{str(path)!r} is not JSON ({error}); download or export it again"
        ) from None
    finally:
        if collecting:
            gc.enable()
    if not isinstance(content, dict):
        raise ZooError(
            f"{str(path)!r} holds a {type(content).__name__}; expected an object with "
            "'images', 'annotations' and 'categories'"
        )
    return content


def read_categories(path: Path) -> dict[int, str]:
    """Return the categories of an annotation file by id, ascending, without reading the rest.

    Raises:
        ZooError: If the file is no JSON or its categories make no sense.
    """
    listed = _categories_at_once(path)
    if listed is None:
        listed = read_json(path).get("categories")
    return check_categories(listed, path)


def check_categories(listed: Any, path: Path) -> dict[int, str]:
    """Return ids and names of a file's ``categories``, ascending.

    Raises:
        ZooError: If they make no sense.
    """
    if not isinstance(listed, list) or not listed:
        raise ZooError(
            f"{str(path)!r} has no list 'categories'; expected [{{'id': 1, 'name': ...}}]"
        )
    found: dict[int, str] = {}
    for i, category in enumerate(listed):
        if not isinstance(category, dict) or not _is_id(category.get("id")):
            raise ZooError(f"{str(path)!r}, categories[{i}] has no 'id' that is a whole number")
        number, name = category["id"], category.get("name")
        if number in found:
            raise ZooError(f"{str(path)!r} has two categories of the id {number}")
        if not isinstance(name, str) or not name:
            raise ZooError(f"{str(path)!r}, the category {number} has no 'name'")
        found[number] = name
    return dict(sorted(found.items()))


def _categories_at_once(path: Path) -> list[Any] | None:
    """Return the list behind the file's last ``"categories":``; None where that is in doubt."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ZooError(f"cannot read {str(path)!r}: {error.strerror}") from None
    key = b'"categories"'
    at = data.rfind(key)
    if at < 0 or data.find(key) != at:
        return None
    text = data[at + len(key) :].decode("utf-8", errors="replace").lstrip()
    if not text.startswith(":"):
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def read_index(
    path: Path,
    *,
    labels: Mapping[int, int | None],
    categories: Mapping[int, str] | None = None,
    target: Target = "boxes",
    num_keypoints: int = 0,
    policy: OnBadAnnotation = "reference",
    needs_annotations: bool = True,
) -> CocoIndex:
    """Read and check an annotation file.

    Args:
        path: The JSON file.
        labels: Label of each category id; None leaves the category's annotations out.
        categories: Names by id that the file's own must agree with, those of training.
        target: What is kept beside the boxes.
        num_keypoints: Number K of keypoints, for ``target="keypoints"``.
        policy: ``"reference"`` leaves out objects without area, as the reference does, and refuses
            what is damaged; ``"refuse"`` refuses both; ``"skip"`` leaves out both.
        needs_annotations: Whether the file must have annotations.

    Raises:
        ZooError: If the file makes no sense, or by the policy.
    """
    return make_index(
        read_json(path),
        path,
        labels=labels,
        categories=categories,
        target=target,
        num_keypoints=num_keypoints,
        policy=policy,
        needs_annotations=needs_annotations,
    )


def make_index(
    content: dict[str, Any],
    path: Path,
    *,
    labels: Mapping[int, int | None],
    categories: Mapping[int, str] | None = None,
    target: Target = "boxes",
    num_keypoints: int = 0,
    policy: OnBadAnnotation = "reference",
    needs_annotations: bool = True,
) -> CocoIndex:
    """Check what an annotation file holds; its lists of images and annotations are used up.

    Args:
        content: The file's content. An annotation's ``where`` says in texts which one it is.
        path: Its name, for texts.
        labels: See :func:`read_index`, also for the others.
        categories: See there.
        target: See there.
        num_keypoints: See there.
        policy: See there.
        needs_annotations: See there.

    Raises:
        ZooError: If it makes no sense, or by the policy.
    """
    for key in ("images", "annotations") if needs_annotations else ("images",):
        if not isinstance(content.get(key), list):
            keys = ", ".join(str(k) for k in content) or "nothing"
            raise ZooError(
                f"{str(path)!r} has no list {key!r} (it has {keys}); expected the keys 'images', "
                "'annotations' and 'categories' of COCO's format"
            )
    if categories is not None and "categories" in content:
        _compare(path, check_categories(content["categories"], path), categories)
    if target == "keypoints":
        _compare_keypoints(path, content.get("categories"), num_keypoints)
    reader = _Reader(labels, target, num_keypoints)
    reader.read_images(content.pop("images"))
    reader.read_annotations(content.pop("annotations", []))
    report(path, reader.problems, policy)
    return reader.index()


def _compare(path: Path, found: Mapping[int, str], expected: Mapping[int, str]) -> None:
    """Refuse categories that differ from those of training."""
    for number, name in found.items():
        known = expected.get(number)
        if known != name:
            there = "has no such id" if known is None else f"calls it {known!r}"
            raise ZooError(
                f"{str(path)!r} has the category {number} {name!r} and the training file {there}; "
                "expected the same categories in every split"
            )


def _compare_keypoints(path: Path, categories: Any, count: int) -> None:
    """Refuse a file whose keypoints are not as many as the skeleton's."""
    for category in categories if isinstance(categories, list) else ():
        names = category.get("keypoints")
        if isinstance(names, list) and names and len(names) != count:
            raise ZooError(
                f"{str(path)!r} has {len(names)} keypoints ({', '.join(map(str, names[:3]))}, ...) "
                f"for {category.get('name')!r} and the skeleton has {count}; describe yours in a "
                "YAML file: --data.keypoints FILE.yaml"
            )


def report(path: Path, problems: list[Problem], policy: OnBadAnnotation) -> None:
    """Refuse the problems that the policy does not let pass.

    Raises:
        ZooError: If there is one.
    """
    fatal = [
        p for p in problems if policy == "refuse" or (policy == "reference" and not p.degenerate)
    ]
    if fatal:
        more = f" ({summary(fatal)} in all)" if len(fatal) > 1 else ""
        raise ZooError(f"{str(path)!r}, {fatal[0].where}: {fatal[0].what}{more}; {_MEND}")


def summary(problems: list[Problem]) -> str:
    """Return what is wrong how often: ``3 boxes without area, 1 unknown category``."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())


class _Reader:
    """Fills the arrays of an index, one entry of the file after the other."""

    def __init__(
        self, labels: Mapping[int, int | None], target: Target, num_keypoints: int
    ) -> None:
        self.label_of = labels
        self.target = target
        self.num_keypoints = num_keypoints if target == "keypoints" else 0
        self.problems: list[Problem] = []
        self.images: dict[int, tuple[int, int, str]] = {}
        self.position: dict[int, int] = {}
        self.seen: set[int] = set()
        self.image_at, self.ids, self.labels = array("q"), array("q"), array("q")
        self.boxes, self.areas = array("d"), array("d")
        self.crowds, self.usable, self.segments = array("b"), array("b"), bytearray()
        self.ranges, self.keypoints, self.labelled = array("q"), array("d"), array("i")

    def read_images(self, images: list[Any]) -> None:
        """Take the file's images."""
        for i, image in enumerate(images):
            where = f"image {image.get('id')!r}" if isinstance(image, dict) else f"images[{i}]"
            try:
                number, entry = self._image(image)
            except _BadError as bad:
                self.problems.append(Problem(where, bad.what, bad.kind))
                continue
            self.images[number] = entry
        self.position = {number: i for i, number in enumerate(sorted(self.images))}

    def _image(self, image: Any) -> tuple[int, tuple[int, int, str]]:
        if not isinstance(image, dict) or not _is_id(image.get("id")):
            raise _BadError("it has no 'id' that is a whole number", "image without id")
        name, height, width = image.get("file_name"), image.get("height"), image.get("width")
        if image["id"] in self.images:
            raise _BadError("another image has the same id", "duplicate image id")
        if not isinstance(name, str) or not name or "\0" in name:
            raise _BadError(f"file_name is {name!r}; expected a file's name", "bad file name")
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise _BadError(
                f"file_name is {name!r}; expected a path within the folder", "bad file name"
            )
        if type(height) is not int or type(width) is not int or height < 1 or width < 1:
            raise _BadError(
                f"height and width are {height!r} and {width!r}; expected pixels", "bad image size"
            )
        if height * width > MAX_PIXELS:
            raise _BadError(
                f"{height} x {width} pixels are more than {MAX_PIXELS}", "bad image size"
            )
        return image["id"], (height, width, name)

    def read_annotations(self, annotations: list[Any]) -> None:
        """Take the file's annotations."""
        # an exporter that numbers none is understood; one that numbers some is not
        unnumbered = all(isinstance(a, dict) and "id" not in a for a in annotations)
        for i, annotation in enumerate(annotations):
            if unnumbered:
                annotation["id"] = i + 1
            try:
                self._annotation(annotation)
            except _BadError as bad:
                where = f"annotations[{i}]"
                if isinstance(annotation, dict):
                    where = _where(annotation)
                self.problems.append(Problem(where, bad.what, bad.kind))

    def _annotation(self, annotation: Any) -> None:
        """Append one annotation, or nothing if it raises."""
        if not isinstance(annotation, dict) or not _is_id(annotation.get("id")):
            raise _BadError("it has no 'id' that is a whole number", "annotation without id")
        number: int = annotation["id"]
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if number in self.seen:
            raise _BadError("another annotation has the same id", "duplicate annotation id")
        if image is None or not _is_id(image) or image not in self.images:
            raise _BadError(f"image_id is {image!r}, which no image has", "unknown image")
        if category is None or not _is_id(category) or category not in self.label_of:
            raise _BadError(
                f"category_id is {category!r}, which no category has", "unknown category"
            )
        label = self.label_of[category]
        if label is None:
            return
        crowd = annotation.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise _BadError(f"iscrowd is {crowd!r}; expected 0 or 1", "bad iscrowd")
        height, width, _ = self.images[image]
        box = finite_numbers(annotation.get("bbox"), 4)
        if box is None:
            raise _BadError(
                f"bbox is {annotation.get('bbox')!r}; expected four finite numbers x, y, width, "
                "height", "bad box"
            )  # fmt: skip
        area = annotation.get("area")
        if area is not None and finite_numbers([area], 1) is None:
            raise _BadError(f"area is {area!r}; expected a finite number", "bad area")
        flaws = []
        if not _has_area(box, height, width):
            flaws.append(
                (f"bbox is {annotation['bbox']!r}, which has no area within the image of {width} x "
                f"{height} pixels", "box without area")
            )  # fmt: skip
        segment = b""
        if self.target == "masks":
            segment = self._segment(annotation, height, width, flaws)
        keypoints: list[float] = []
        if self.num_keypoints:
            keypoints = self._keypoints(annotation)
        # nothing is appended before this line
        where = _where(annotation)
        self.problems += [Problem(where, what, kind, degenerate=True) for what, kind in flaws]
        self.seen.add(number)
        self.ids.append(number)
        self.image_at.append(self.position[image])
        self.labels.append(label)
        self.boxes.extend(box)
        self.areas.append(math.nan if area is None else area)
        self.crowds.append(crowd)
        self.usable.append(not flaws)
        if self.target == "masks":
            self.ranges.extend((len(self.segments), len(self.segments) + len(segment)))
            self.segments += segment
        if self.num_keypoints:
            self.keypoints.extend(keypoints)
            self.labelled.append(self._labelled(annotation, keypoints))

    def _segment(
        self, annotation: dict[str, Any], height: int, width: int, flaws: list[tuple[str, str]]
    ) -> bytes:
        """Return the packed mask; adds to ``flaws`` where there is nothing in it."""
        segmentation = annotation.get("segmentation")
        try:
            return pack(segmentation, height, width)
        except MaskError as error:
            if not error.degenerate:
                raise _BadError(f"{error}", "damaged mask") from None
        rest = without_degenerate(segmentation)
        what = "a polygon has fewer than three points" if segmentation else "segmentation is empty"
        if not rest:
            flaws.append((what, "empty mask"))
            return b""
        self.problems.append(
            Problem(_where(annotation), what, "polygon without area", degenerate=True)
        )
        return pack(rest, height, width)

    def _keypoints(self, annotation: dict[str, Any]) -> list[float]:
        listed = annotation.get("keypoints")
        count = 3 * self.num_keypoints
        if listed is None:
            return [0.0] * count
        points = finite_numbers(listed, count)
        if points is None:
            length = f"{len(listed)} values" if isinstance(listed, list) else repr(listed)
            raise _BadError(
                f"keypoints has {length}; expected {count} finite numbers, x y visibility for each "
                f"of {self.num_keypoints} keypoints", "bad keypoints"
            )  # fmt: skip
        strange = [v for v in points[2::3] if v not in (0, 1, 2)]
        if strange:
            raise _BadError(f"a visibility is {strange[0]}; expected 0, 1 or 2", "bad keypoints")
        return points

    def _labelled(self, annotation: dict[str, Any], keypoints: list[float]) -> int:
        count = annotation.get("num_keypoints")
        if type(count) is int and 0 <= count <= self.num_keypoints:
            return count
        return sum(v > 0 for v in keypoints[2::3])

    def index(self) -> CocoIndex:
        """Return what was read, sorted by image."""
        at = np.array(self.image_at, np.int64)
        order = np.argsort(at, kind="stable")
        numbers = sorted(self.images)
        entries = [self.images[number] for number in numbers]
        ids = np.array(self.ids, np.int64)[order]
        if len(ids) and ids.min() < 1:
            ids += 1 - ids.min()  # COCO's evaluation takes the id 0 for "no match"
        keypoints: NDArray[Any] = np.zeros((len(at), 0, 3))
        labelled = np.zeros(len(at), np.int32)
        if self.num_keypoints:
            shape = (-1, self.num_keypoints, 3)
            keypoints = np.array(self.keypoints, np.float64).reshape(shape)[order]
            half = keypoints.astype(np.float32)
            if np.array_equal(half, keypoints):  # COCO's are whole numbers
                keypoints = half
            labelled = np.array(self.labelled, np.int32)[order]
        ranges = np.zeros((0, 2), np.int64)
        if self.target == "masks":
            ranges = np.array(self.ranges, np.int64).reshape(-1, 2)[order]
        return CocoIndex(
            image_ids=np.array(numbers, np.int64),
            sizes=np.array([entry[:2] for entry in entries], np.int32).reshape(-1, 2),
            names=FileNames(entry[2] for entry in entries),
            starts=np.searchsorted(at[order], np.arange(len(numbers) + 1)),
            ids=ids,
            labels=np.array(self.labels, np.int64)[order],
            boxes=np.array(self.boxes, np.float64).reshape(-1, 4)[order],
            areas=np.array(self.areas, np.float64)[order],
            crowds=np.array(self.crowds).astype(np.bool_)[order],
            usable=np.array(self.usable).astype(np.bool_)[order],
            has_masks=self.target == "masks",
            segments=bytes(self.segments),
            segment_ranges=ranges,
            keypoints=keypoints,
            num_keypoints=labelled,
            problems=self.problems,
        )


def _where(annotation: Mapping[str, Any]) -> str:
    """Return which annotation it is, for texts."""
    known = annotation.get("where")
    if isinstance(known, str):
        return known
    return f"annotation {annotation.get('id')!r} (image {annotation.get('image_id')!r})"


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**62


def finite_numbers(values: Any, count: int) -> list[float] | None:
    """Return ``count`` finite numbers; None where it is something else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    for value in values:
        # a whole number may be too large for a float, and a sum of two for float32
        if type(value) not in (int, float) or not abs(value) <= 2**62:
            return None
    return values


def _has_area(box: list[float], height: int, width: int) -> bool:
    """Tell whether a box x y w h has an area within the image, as float32 sees it."""
    x, y, w, h = box
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
    if not (x1 > x0 and y1 > y0):
        return False
    # an object thinner than float32 can tell at its place would have a side of 0
    return (x1 - x0 > 0.1 and y1 - y0 > 0.1) or bool(
        np.float32(x1) > np.float32(x0) and np.float32(y1) > np.float32(y0)
    )
