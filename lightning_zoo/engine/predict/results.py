"""What predicting returns: one result an image or video, and of a film one for each frame."""

from __future__ import annotations

import json
import tempfile
import weakref
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.runs import write_text
from lightning_zoo.transforms.decode import read_image
from lightning_zoo.transforms.video_decode import probe, read_frames

Pixels = NDArray[np.uint8]
Row = dict[str, Any]


@dataclass(frozen=True)
class Result(ABC):
    """What a model says of one file.

    Attributes:
        file: The image or video.
        width: Its width in pixels.
        height: Its height in pixels.
    """

    file: str
    width: int = field(default=0, kw_only=True)
    height: int = field(default=0, kw_only=True)

    @abstractmethod
    def summary(self) -> str:
        """Return what a person reads of it, in one line."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Yield a table's row for each object or class: ``label, score`` and what else there is.

        Boxes are ``x, y, width, height`` in pixels; of films there are ``frame`` and ``time``.
        """

    @abstractmethod
    def plot(self) -> Image.Image:
        """Return the picture with what was found, in its own size.

        No result keeps its picture, so that many of them need little memory: the file is read
        again.

        Raises:
            DecodeError: If the file is no longer there.
        """

    @abstractmethod
    def to_coco(
        self, image_id: int = 1, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Return entries of COCO's results format, which ``COCO.loadRes`` takes.

        Objects have ``bbox`` (``x, y, width, height`` in pixels), ``area``, ``score``, and where
        they were predicted ``segmentation`` (run lengths) and ``keypoints`` (``x, y, v``, v being 2
        where the network is sure, else 0). Segmentation gives one such mask a class, with score 1;
        classifiers give ``image_id, category_id, score`` of the classes that are on.

        Args:
            image_id: The image's number in your annotations; a film's frames count up from it.
            category_ids: Number of each class by its name; left out, the network's own labels count
                (COCO's numbers for published detectors; a classifier's begin with 0).

        Raises:
            ZooError: If a class that was found has no number.
        """

    def save(self, path: str | Path) -> Path:
        """Write the picture, in the format of the extension, or with ``.json`` the plain data.

        Args:
            path: The file; its folder is made where there is none.

        Raises:
            ZooError: If no picture has such an extension.
        """
        path = Path(path)
        extension = path.suffix.lower()
        if extension != ".json" and Image.registered_extensions().get(extension) not in Image.SAVE:
            raise ZooError(
                f"path is {str(path)!r}; expected a picture (.png, .jpg, .webp ...) or .json"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if extension == ".json":
            write_text(path, json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")
        else:
            self.plot().save(path)
        return path


@dataclass(frozen=True)
class ImageResult(Result):
    """What a model says of one image, or of one frame of a film.

    Attributes:
        file: The image or video.
        width: Its width in pixels.
        height: Its height in pixels.
        frame: Of a film's frames: which one, counted from 0; None for files of their own.
        time: Of a film's frames: seconds since the first one.
    """

    frame: int | None = field(default=None, kw_only=True)
    time: float | None = field(default=None, kw_only=True)

    @abstractmethod
    def found(self) -> dict[str, Any]:
        """Return what was found as plain data, rounded."""

    @abstractmethod
    def draw(self, image: Pixels) -> Pixels:
        """Return the image, uint8 RGB ``(H, W, 3)``, with what was found drawn into it."""

    @abstractmethod
    def coco_entries(self) -> list[dict[str, Any]]:
        """Return COCO's entries with ``label``, ``category_id`` being the network's label."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return all that :meth:`restored` needs, as plain data."""

    @abstractmethod
    def restored(self, record: Mapping[str, Any]) -> Self:
        """Return another result of the same network and file from its record."""

    def place(self) -> dict[str, Any]:
        """Return frame and time where the result is a frame's, rounded."""
        if self.frame is None or self.time is None:
            return {}
        return {"frame": self.frame, "time": round(self.time, 6)}

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"file": self.file, **self.place(), **self.found()}

    def plot(self) -> Image.Image:
        """Return the picture with what was found; see :meth:`Result.plot`."""
        if self.frame is None:
            return Image.fromarray(self.draw(read_image(self.file)))
        return Image.fromarray(self.draw(read_frames(self.file, probe(self.file), [self.frame])[0]))

    def to_coco(
        self, image_id: int = 1, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Return COCO's entries; see :meth:`Result.to_coco`."""
        entries = []
        for entry in self.coco_entries():
            label = entry.pop("label")
            if category_ids is not None:
                if label not in category_ids:
                    raise unknown("class (category_ids)", label, category_ids)
                entry["category_id"] = category_ids[label]
            entries.append({"image_id": image_id, **entry})
        return entries


class FrameResults(Sequence[ImageResult]):
    """The results of a film's frames: a list that lies in a temporary file.

    So memory does not grow with the length of the film; each is read when it is asked for, without
    the network's tensors.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the list
        weakref.finalize(self, self._file.close)
        self._starts = array("q")
        self._like: ImageResult | None = None

    def append(self, result: ImageResult) -> None:
        """Add the next frame's result."""
        record = result.record()
        if self._like is None:
            self._like = result.restored(record)
        self._starts.append(self._file.seek(0, 2))
        line = json.dumps({**record, "frame": result.frame, "time": result.time})
        self._file.write(line.encode() + b"\n")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        self._file.seek(self._starts[place])
        assert self._like is not None
        return self._like.restored(json.loads(self._file.readline()))


@dataclass(frozen=True)
class VideoResult(Result):
    """What an image model says of a film, frame by frame.

    Attributes:
        file: The film.
        width: Its width in pixels.
        height: Its height in pixels.
        rate: Frames a second of the results: the film's own, fewer where each n-th was taken.
        frames: A :class:`Prediction`, :class:`Detections` or :class:`Segmentation` for each frame,
            with ``frame`` and ``time``.
        seen: In how many frames each class was found.
        video: The annotated film that was written; None without ``out``.
    """

    rate: float
    frames: FrameResults = field(default_factory=FrameResults, repr=False)
    seen: Counter[str] = field(default_factory=Counter)
    video: str | None = None

    def append(self, result: ImageResult) -> None:
        """Add the next frame's result."""
        self.frames.append(result)
        self.seen.update(dict.fromkeys(row["label"] for row in result.rows()).keys())

    def summary(self) -> str:
        """Return what a person reads of it, in one line."""
        count = len(self.frames)
        common = self.seen.most_common(3)
        names = ", ".join(f"{label} in {n}" for label, n in common) or "nothing"
        more = f" and {len(self.seen) - 3} more" if len(self.seen) > 3 else ""
        plural = "" if count == 1 else "s"
        return f"{count} frame{plural}, {self.rate:.4g} a second: {names}{more}"

    def head(self) -> dict[str, Any]:
        """Return the film's own facts as plain data."""
        rate = round(self.rate, 6)
        return {"file": self.file, "width": self.width, "height": self.height, "rate": rate}

    def frames_as_json(self) -> Iterator[dict[str, Any]]:
        """Yield the frames as plain data; file and size stand in the film's own entry."""
        for one in self.frames:
            left_out = ("file", "width", "height")
            yield {key: value for key, value in one.as_json().items() if key not in left_out}

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, with a list of all frames."""
        return {**self.head(), "frames": list(self.frames_as_json())}

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all frames."""
        for one in self.frames:
            for row in one.rows():
                yield {**one.place(), **row}

    def plot(self) -> Image.Image:
        """Return the frame in the middle with what was found; others by ``frames[i].plot()``."""
        return self.frames[len(self.frames) // 2].plot()

    def to_coco(
        self, image_id: int = 1, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Return the entries of all frames; see :meth:`Result.to_coco`."""
        frames = enumerate(self.frames, start=image_id)
        return [entry for number, one in frames for entry in one.to_coco(number, category_ids)]
