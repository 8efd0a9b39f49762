"""Frame times of all videos of a data set: found once by many processes, kept in a file.

Finding them means reading every video (no decoding), which takes hours for a data set of Kinetics'
size. The index lies in ``<root>/.lightning_zoo/``, or in the person's cache folder where that
cannot be written. It is kept by each file's name, size and time of change, and by the versions of
PyAV and FFmpeg, so that only new and changed files are looked at again; broken files are kept with
their reason. Every result goes to a journal at once: a build that is killed continues there. One
process builds at a time; others wait for it and take what it found.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.video_probing import Record, look_into, say
from lightning_zoo.transforms.video_decode import MAX_DENOMINATOR, FrameTimes, VideoError, resample

try:
    import fcntl
except ImportError:  # Windows: two builds at once then do the same work, and either result is whole
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # of the files, and of what is found in a video
FOLDER = ".lightning_zoo"

Keys = NDArray[np.int64]

_ROW = np.dtype(
    [
        ("file_size", "i8"),  # bytes
        ("mtime_ns", "i8"),
        ("count", "i4"),  # frames; 0 where the video cannot be read
        ("first", "i8"),  # ticks
        ("num", "i4"),
        ("den", "i4"),
        ("height", "i4"),
        ("width", "i4"),
        ("stream", "i2"),
        ("rotation", "i2"),
        ("mirrored", "?"),
        ("by_time", "?"),
    ]
)


@dataclass(frozen=True, eq=False)
class _Ragged:
    """Rows of different lengths, joined."""

    values: NDArray[Any]
    ends: NDArray[np.int64]

    def __getitem__(self, row: int) -> NDArray[Any]:
        start = int(self.ends[row - 1]) if row else 0
        return self.values[start : int(self.ends[row])]

    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)

    def take(self, rows: NDArray[np.int64]) -> _Ragged:
        lengths = self.lengths()[rows]
        ends = np.cumsum(lengths)
        starts = self.ends[rows] - lengths
        shift = np.repeat(starts - (ends - lengths), lengths)
        return _Ragged(self.values[shift + np.arange(len(shift))], ends)

    @staticmethod
    def of(rows: Sequence[Sequence[int]], dtype: Any) -> _Ragged:
        joined = np.array([value for row in rows for value in row], np.int64)
        ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
        if joined.size and np.abs(joined).max() >= 2**31:
            dtype = np.int64  # ticks of nanoseconds
        return _Ragged(joined.astype(dtype), ends)

    @staticmethod
    def join(parts: Sequence[_Ragged]) -> _Ragged:
        return _Ragged(
            np.concatenate([part.values for part in parts]),
            np.cumsum(np.concatenate([part.lengths() for part in parts])),
        )


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Frame times of N videos, in the order of their names.

    It takes about 80 bytes a video and its name, 4 more for each key frame and, where the rate is
    not constant, 4 for each frame; as it is arrays alone, workers that fork share it.

    Attributes:
        names: The files (N), relative to the data set's folder.
        rows: One record a video (N).
        deltas: int32, ticks from frame to frame; one of them where all are equal.
        keyframes: int32, positions of the key frames.
        reasons: Why a video cannot be read, by its position.
    """

    names: FileNames
    rows: NDArray[Any]
    deltas: _Ragged
    keyframes: _Ragged
    reasons: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def counts(self) -> NDArray[np.int32]:
        """Frames of each video, int32 (N); 0 where it cannot be read."""
        return self.rows["count"]

    @property
    def errors(self) -> dict[str, str]:
        """Names of the videos that cannot be read, and why."""
        return {self.names[row]: reason for row, reason in self.reasons.items()}

    def frames(self, video: int) -> FrameTimes:
        """Return the frame times of the video at a position.

        Raises:
            VideoError: If it cannot be read.
        """
        if not 0 <= video < len(self):
            raise IndexError(f"video {video} of {len(self)}")
        if video in self.reasons:
            raise VideoError(self.names[video], self.reasons[video])
        row = self.rows[video]
        deltas = self.deltas[video]
        if len(deltas) == 1:
            since = np.arange(row["count"], dtype=np.int64) * int(deltas[0])
        else:
            since = np.cumsum(np.append(0, deltas), dtype=np.int64)
        return FrameTimes(
            pts=since + int(row["first"]),
            time_base=(int(row["num"]), int(row["den"])),
            keyframes=self.keyframes[video],
            size=(int(row["height"]), int(row["width"])),
            rotation=int(row["rotation"]),
            mirrored=bool(row["mirrored"]),
            stream=int(row["stream"]),
            by_time=bool(row["by_time"]),
        )

    def lengths(self, rate: float | None) -> NDArray[np.int32]:
        """Return how many frames each video has at another rate, int32 (N); 0 where it is broken.

        That is the length of what :func:`resample` gives, at once for all of a constant rate.
        """
        if rate is None:
            return self.counts.copy()
        table = self.rows
        lengths = np.zeros(len(self), np.int32)
        steady = self.deltas.lengths() == 1
        asked = Fraction(rate).limit_denominator(MAX_DENOMINATOR)
        ticks = self.deltas.values[self.deltas.ends[steady] - 1].astype(np.int64)
        # frames there for one frame here, as a fraction
        above = table["den"][steady] * asked.denominator
        below = ticks * table["num"][steady] * asked.numerator
        counts = table["count"][steady].astype(np.int64)
        whole = above % below == 0  # an incomplete last step counts then
        kept = np.maximum(1, counts * below // above)
        lengths[steady] = np.where(whole, -(-counts * below // above), kept)
        for video in np.flatnonzero(~steady & (self.counts > 0)).tolist():
            lengths[video] = len(resample(self.frames(video), rate))
        return lengths

    def take(self, rows: NDArray[np.int64], names: FileNames) -> VideoIndex:
        """Return the videos at some positions, which have those names."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        broken = np.flatnonzero(self.rows["count"][rows] == 0).tolist()
        return VideoIndex(
            names=names,
            rows=self.rows[rows],
            deltas=self.deltas.take(rows),
            keyframes=self.keyframes.take(rows),
            reasons={i: self.reasons[int(rows[i])] for i in broken},
        )

    def save(self, path: Path) -> None:
        """Write the index so that a reader finds all of it or the file before."""
        names = [os.fsencode(name) for name in self.names]
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    names=np.frombuffer(b"".join(names), np.uint8),
                    name_lengths=np.array([len(name) for name in names], np.int32),
                    rows=self.rows,
                    deltas=self.deltas.values,
                    delta_ends=self.deltas.ends,
                    keyframes=self.keyframes.values,
                    keyframe_ends=self.keyframes.ends,
                    reasons=np.frombuffer(
                        json.dumps(list(self.reasons.items())).encode(), np.uint8
                    ),
                )
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @staticmethod
    def load(path: Path) -> VideoIndex | None:
        """Return the index that was saved; None where there is none or it is damaged."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                joined, lengths = file["names"].tobytes(), file["name_lengths"]
                ends = np.cumsum(lengths, dtype=np.int64)
                names = (
                    os.fsdecode(joined[end - length : end])
                    for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
                )
                index = VideoIndex(
                    names=FileNames(names),
                    rows=file["rows"],
                    deltas=_Ragged(file["deltas"], file["delta_ends"]),
                    keyframes=_Ragged(file["keyframes"], file["keyframe_ends"]),
                    reasons=dict(json.loads(file["reasons"].tobytes())),
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None
        return index if index.rows.dtype == _ROW else None

    @staticmethod
    def of(records: Sequence[Record]) -> VideoIndex:
        """Return the index of what was found in each video."""
        rows = np.zeros(len(records), _ROW)
        for row, record in zip(rows, records, strict=True):
            for name in record.keys() & set(_ROW.names or ()):
                row[name] = record[name]
        return VideoIndex(
            names=FileNames(record["name"] for record in records),
            rows=rows,
            deltas=_Ragged.of([record.get("deltas", ()) for record in records], np.int32),
            keyframes=_Ragged.of([record.get("keyframes", ()) for record in records], np.int32),
            reasons={i: r["error"] for i, r in enumerate(records) if "error" in r},
        )

    @staticmethod
    def join(parts: Sequence[VideoIndex]) -> VideoIndex:
        """Return the videos of several indices, one after the other."""
        reasons: dict[int, str] = {}
        start = 0
        for part in parts:
            reasons |= {start + row: reason for row, reason in part.reasons.items()}
            start += len(part)
        return VideoIndex(
            names=FileNames(name for part in parts for name in part.names),
            rows=np.concatenate([part.rows for part in parts]),
            deltas=_Ragged.join([part.deltas for part in parts]),
            keyframes=_Ragged.join([part.keyframes for part in parts]),
            reasons=reasons,
        )


def build_index(
    root: str | os.PathLike[str],
    names: Sequence[str],
    *,
    workers: int = 0,
    progress: bool = True,
) -> VideoIndex:
    """Return the frame times of videos, from the kept index as far as it holds.

    Args:
        root: Folder of the data set.
        names: The files, relative to ``root``.
        workers: Processes that look into videos; 0 and 1 look in this one.
        progress: Whether a build that takes longer shows a bar (on a terminal) or some lines.

    Returns:
        The index of ``names``, in their order; its ``errors`` name the files that cannot be read.
    """
    folder = Path(root)
    asked = names if isinstance(names, FileNames) else FileNames(names)
    keys = _file_keys(folder, asked)
    places = _places(folder)
    for place in places:
        known = VideoIndex.load(place)
        if known is not None:
            rows = _rows_of(known, asked, keys)
            if np.all(rows >= 0):
                return known.take(rows, asked)
    with _store(places) as store:
        known = store.known()
        rows = _rows_of(known, asked, keys)
        todo = {asked[i]: keys[i].tolist() for i in np.flatnonzero(rows < 0).tolist()}
        found = store.noted(look_into(folder, todo, workers, progress))
        known = VideoIndex.join([known, _gather(found)])
        latest = _latest(known, folder, asked)
        known = known.take(latest, FileNames(known.names[row] for row in latest.tolist()))
        store.keep(known)
    return known.take(_rows_of(known, asked), asked)


def _gather(records: Iterable[Record]) -> VideoIndex:
    """Return the index of records, from some thousands at a time: Python's numbers are large."""
    records = iter(records)
    parts = [VideoIndex.of([])]
    while batch := list(itertools.islice(records, 5000)):
        parts.append(VideoIndex.of(batch))
    return VideoIndex.join(parts)


def _file_keys(root: Path, names: Iterable[str]) -> Keys:
    """Return size and time of change of each file, int64 (N, 2); -1 where there is none."""
    found = []
    for name in names:
        try:
            status = os.stat(f"{root}/{name}")
        except OSError:
            found.append((-1, -1))
        else:
            found.append((status.st_size, status.st_mtime_ns))
    return np.array(found, np.int64).reshape(-1, 2)


def _rows_of(index: VideoIndex, names: Sequence[str], keys: Keys | None = None) -> Keys:
    """Return where the names stand in an index, int64 (N); -1 where not, or with another key."""
    position = {name: row for row, name in enumerate(index.names)}
    rows = np.array([position.get(name, -1) for name in names], np.int64)
    if keys is not None and len(index):
        same = (index.rows["file_size"][rows] == keys[:, 0]) & (
            index.rows["mtime_ns"][rows] == keys[:, 1]
        )
        rows[~same] = -1
    return rows


def _latest(index: VideoIndex, root: Path, asked: Sequence[str]) -> Keys:
    """Return the last row of each name, without the files that are gone."""
    last = {name: row for row, name in enumerate(index.names)}
    asked_for = set(asked)
    return np.array(
        [
            row
            for name, row in last.items()
            if name in asked_for or os.path.exists(f"{root}/{name}")
        ],
        np.int64,
    )


def _places(root: Path) -> list[Path]:
    """Return the files that may hold the index, the better one first."""
    import av

    library = ".".join(map(str, av.library_versions["libavformat"]))
    name = f"videos-{FORMAT}-av{av.__version__}-libavformat{library}.npz"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    data_set = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return [root / FOLDER / name, caches / "lightning_zoo" / f"videos-{data_set}" / name]


class _Store:
    """The index on disk, held under a lock; without a place nothing is kept.

    Args:
        places: Files that may hold the index.
        home: The one that is written, None where none can be.
    """

    def __init__(self, places: Sequence[Path], home: Path | None) -> None:
        self._places = places
        self._home = home
        self._journal: IO[bytes] | None = None

    def known(self) -> VideoIndex:
        """Return what was found before, by finished builds and by one that was killed."""
        # the file that is written comes last, as later entries count
        places = sorted(self._places, key=lambda place: place == self._home)
        kept = [index for place in places if (index := VideoIndex.load(place)) is not None]
        return VideoIndex.join([*kept, _gather(self._unfinished())])

    def noted(self, records: Iterable[Record]) -> Iterator[Record]:
        """Write records down, each before it is passed on."""
        for record in records:
            self._note(record)
            yield record

    def _note(self, record: Record) -> None:
        if self._home is None:
            return
        try:
            if self._journal is None:
                self._journal = self._home.with_suffix(".journal").open("ab")
                self._journal.write(b"\n")  # ends the line that a killed build may have left
            self._journal.write(json.dumps(record).encode() + b"\n")
            self._journal.flush()
        except OSError as error:
            self._give_up(error)

    def keep(self, index: VideoIndex) -> None:
        """Write the whole index, if there is news; the journal has done its work then."""
        if self._home is None or not self._home.with_suffix(".journal").exists():
            return
        try:
            for part in self._home.parent.glob("*.part"):  # left by a killed build
                part.unlink()
            index.save(self._home)
            self.close()
            self._home.with_suffix(".journal").unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _unfinished(self) -> Iterator[Record]:
        if self._home is None:
            return
        with contextlib.suppress(OSError), self._home.with_suffix(".journal").open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:  # half a line
                    continue
                if isinstance(record, dict) and record.keys() >= {"name", "mtime_ns"}:
                    yield record

    def _give_up(self, error: OSError) -> None:
        say(f"the index of the videos cannot be kept in {str(self._home)!r}: {error.strerror}")
        self._home = None


@contextlib.contextmanager
def _store(places: Sequence[Path]) -> Iterator[_Store]:
    """Lock the first place that can be written, and wait for a process that holds it."""
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = place.with_suffix(".lock").open("ab")
        except OSError:
            continue
        with lock:
            _lock(lock)
            store = _Store(places, place)
            with contextlib.closing(store):
                yield store
        return
    yield _Store(places, None)


def _lock(file: IO[bytes]) -> None:
    """Lock a file until it is closed; where a file system has no locks, go on without."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds the index of the videos; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
