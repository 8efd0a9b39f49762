"""Read frames of a video file as RGB: those that are wanted, equal to a full decode's.

A file is looked at once, by :func:`probe`, which finds the time of every frame and decodes the
first alone; :func:`read_frames` then seeks to the key frame before the first wanted frame, decodes
on from there and converts the wanted frames alone. Where a seek does not lead to the wanted frames,
they are decoded from the file's start. :func:`stream_frames` gives all of them, one after another.

Frames are turned and mirrored as players show them; the shape of pixels (sample aspect ratio) is
left as stored. A frame is identified by its presentation time. Files that have none (AVI with
B-frames, bare streams) are decoded once while they are probed, and from their start when read.

A file may mean harm. Only the containers below are opened, as a playlist in disguise would open
other files; what a file claims (frames, pixels, hours) is held against what its bytes can be before
room is made for it.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import DecodeError
from lightning_zoo.transforms.mp4_claims import exaggeration

VIDEO_EXTENSIONS = frozenset(
    {"mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "wmv", "flv", "3gp", "ogv"}
)

# FFmpeg's names of what these extensions stand for, and of bare streams
_CONTAINERS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,h264,hevc,m4v,ivf"
MAX_PIXELS = 35_651_584  # a frame's: 8192 x 4352, the most of all levels of H.264 and H.265
MAX_PACKETS_IN_VAIN = 2_000  # until the first frame comes out of the decoder
MAX_HOURS = 100  # in all
MAX_GAP_HOURS = 1  # between two frames
MAX_DENOMINATOR = 100_000  # of a rate that is asked for, so that sums of its steps are exact
# containers that store presentation times; others leave them to be guessed from the codec's order
_TIMED = frozenset({"mov", "matroska", "webm", "mpegts", "flv", "ogg"})
_NO_VIDEO = "it is no video, or it lacks its table of contents"
# profiles of codecs with B-frames that have none
_IN_ORDER = frozenset({"Simple Profile", "Baseline", "Constrained Baseline"})


class VideoError(DecodeError):
    """A file whose frames cannot be read."""

    kind = "video"


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """Where the F frames of a video lie in time, and what is needed to read them.

    Attributes:
        pts: int64 (F), ascending presentation times in ticks.
        time_base: Numerator and denominator of a tick in seconds.
        keyframes: int32 (K), ascending positions of the frames that decoding can start at.
        size: Height and width in pixels, as displayed.
        rotation: Degrees anticlockwise that stored frames are turned by: 0, 90, 180 or 270.
        mirrored: Whether stored frames are flipped left to right before they are turned.
        stream: Number of the stream in the file.
        by_time: Whether ``pts`` identify the frames; if not, they are counted from the start.
    """

    pts: NDArray[np.int64]
    time_base: tuple[int, int]
    keyframes: NDArray[np.int32]
    size: tuple[int, int]
    rotation: int = 0
    mirrored: bool = False
    stream: int = 0
    by_time: bool = True

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Times of the frames (F), from the first frame on."""
        num, den = self.time_base
        return (self.pts - self.pts[0]) * (num / den)


def probe(path: str | os.PathLike[str]) -> FrameTimes:
    """Return the times of a video's frames, from one pass over its packets.

    Of several video streams the largest that has frames counts; cover pictures of music do not.

    Raises:
        VideoError: If the file is missing, empty, no video, or holds no frame that can be decoded.
    """
    file = os.fspath(path)
    if os.path.isfile(file) and (claim := exaggeration(file)):
        total = os.path.getsize(file)
        raise VideoError(file, f"it claims {claim} in {total} bytes; it is damaged")
    with _opened(file) as container:
        streams = _video_streams(container)
        if not streams:
            raise VideoError(file, _without_video(container))
        tables = {stream.index: _PacketTable() for stream in streams}
        _check_size(file, streams[0].width, streams[0].height)
        for packet in _packets(container, streams):
            tables[packet.stream.index].add(packet)
        for stream in streams:
            tables[stream.index].finish(stream)
        for stream in streams:
            table = tables[stream.index]
            if table.first is not None:
                break
        else:
            count = sum(len(table.pts) for table in tables.values())
            what = f"none of its {count} frames can be decoded" if count else "it has no frames"
            raise VideoError(file, what)
        rate = stream.average_rate or Fraction(25)
        tick = stream.time_base or 1 / rate
        by_order = _has_guessed_times(container, stream)
        number = stream.index
    times = None if by_order else table.times()
    if times is None:
        pts = _count(file, number, 1 / (rate * tick))
        keys = pts[:1]
    else:
        pts, keys = times
    _check_gaps(file, pts, tick)
    size = table.first.height, table.first.width
    _check_size(file, size[1], size[0])
    rotation, mirrored = _orientation(table.first)
    return FrameTimes(
        pts=pts,
        time_base=(tick.numerator, tick.denominator),
        keyframes=np.searchsorted(pts, keys).astype(np.int32),
        size=size[::-1] if rotation % 180 else size,
        rotation=rotation,
        mirrored=mirrored,
        stream=number,
        by_time=times is not None,
    )


def read_frames(
    path: str | os.PathLike[str], frames: FrameTimes, indices: ArrayLike, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Return frames of a video as RGB, uint8 (T, H, W, 3), equal to those of a full decode.

    Args:
        path: The file.
        frames: What :func:`probe` found in it.
        indices: Integers (T), positions of the frames, in any order, repeats allowed.
        threads: Threads of the decoder; 0 leaves the number to FFmpeg.

    Raises:
        VideoError: If the file or one of the frames cannot be read.
        IndexError: If a position lies outside the video.
    """
    file = os.fspath(path)
    wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(frames):
        raise IndexError(f"frames {wanted[0]} to {wanted[-1]} of {len(frames)} in {file!r}")
    pictures = _Pictures(frames, wanted)
    if frames.by_time and len(wanted):
        with _opened(file, threads) as container:
            for group in _groups(frames, wanted):
                _read_group(container, frames, group, pictures)
    if pictures.missing:
        with _opened(file, threads) as container:
            _read_from_start(container, frames, pictures)
    if pictures.missing:
        lost = min(pictures.missing)
        raise VideoError(
            file,
            f"frame {np.searchsorted(frames.pts, lost) if frames.by_time else lost} of "
            f"{len(frames)} cannot be decoded; the file is cut off or damaged",
        )
    if len(places) == len(wanted) and np.all(places[1:] > places[:-1]):
        return pictures.array
    return pictures.array[places]


def stream_frames(
    path: str | os.PathLike[str], frames: FrameTimes, *, every: int = 1, threads: int = 1
) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
    """Yield each n-th frame of a video with its position, as RGB, uint8 (H, W, 3), one at a time.

    Args:
        path: The file.
        frames: What :func:`probe` found in it.
        every: Which frames: those whose position it divides.
        threads: Threads of the decoder; 0 leaves the number to FFmpeg.

    Raises:
        VideoError: After all frames that can be decoded, if there should have been more.
    """
    file = os.fspath(path)
    converter = _Converter(frames)
    good = 0
    with _opened(file, threads) as container:
        stream = container.streams[frames.stream]
        watched = _Watched(_packets(container, [stream]))
        for i, frame in enumerate(_frames(watched, stream)):
            place = i
            if frames.by_time:
                place = len(frames) if frame.pts is None else frames.pts.searchsorted(frame.pts)
            if place >= len(frames) or frame.is_corrupt:
                continue
            if frames.by_time and frames.pts[place] != frame.pts:
                continue
            good += 1
            if place % every == 0:
                yield int(place), converter.rgb(frame)
        total = max(len(frames), _declared(container, stream, frames))
        if good < len(frames) or watched.corrupt or watched.count < total:
            raise VideoError(
                file, f"the file is cut off or damaged; {good} of {total} frames could be decoded"
            )


class _Watched:
    """Packets on their way to the decoder, counted."""

    def __init__(self, packets: Iterator[Any]) -> None:
        self._packets = packets
        self.count = 0
        self.corrupt = False

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets:
            self.count += 1
            self.corrupt |= packet.is_corrupt
            yield packet


def _declared(container: Any, stream: Any, frames: FrameTimes) -> int:
    """Return how many frames the file's header promises, 0 where it says nothing sure."""
    kind = container.format.name.partition(",")[0]
    if kind == "mov":
        return int(stream.frames)
    if (
        kind == "matroska"
        and len(container.streams) == 1
        and container.duration
        and len(frames) > 1
    ):
        rate = (len(frames) - 1) / float(frames.seconds[-1])
        promised = int(container.duration / 1e6 * rate)
        return promised if promised > len(frames) + rate else 0  # a second is no proof
    return 0


def resample(frames: FrameTimes, rate: float | None) -> NDArray[np.int32]:
    """Return the frame to show at each tick of another rate, int32 (K).

    At a constant rate of the video that is ``floor(k * fps / rate)``, K being
    ``floor(F * rate / fps)`` and at least 1, as the reference does. Where it takes every n-th frame
    exactly, it counts an incomplete last step too. At a variable rate it is the last frame that has
    appeared by then, over the video's duration.

    Args:
        frames: Times of the F frames.
        rate: Frames a second; None keeps every frame.
    """
    count = len(frames)
    if rate is None:
        return np.arange(count, dtype=np.int32)
    if not rate > 0 or math.isinf(rate):
        raise ZooError(f"rate is {rate}; expected frames a second, more than 0")
    if count == 1:
        return np.zeros(1, np.int32)
    step = constant_step(frames.pts, frames.time_base)
    new_step = 1 / Fraction(rate).limit_denominator(MAX_DENOMINATOR)
    if step is not None:
        ratio = new_step / step
        kept = max(1, math.floor(count / ratio))
        if ratio.denominator == 1:
            kept = math.ceil(count / ratio)
        at = np.arange(kept, dtype=np.int64) * ratio.numerator // ratio.denominator
    else:
        seconds = frames.seconds
        duration = seconds[-1] * count / (count - 1)  # the last frame is shown as long as others
        kept = max(1, math.floor(duration * rate + 1e-6))
        tick = frames.time_base[0] / frames.time_base[1]
        at = np.searchsorted(seconds, np.arange(kept) / rate + tick, side="right") - 1
    return np.minimum(at, count - 1).astype(np.int32)


def constant_step(pts: NDArray[np.int64], time_base: tuple[int, int]) -> Fraction | None:
    """Return seconds from frame to frame where that is constant, up to the rounding to ticks.

    Of the rates that fit, the one that a camera has counts: 30 rather than 29.98.
    """
    tick = Fraction(*time_base)
    since = pts - pts[0]
    last = int(since[-1])
    mean = Fraction(last, len(pts) - 1) * tick
    nominal = [mean]
    if since[1] * (len(pts) - 1) != last or np.any(np.diff(since) != since[1]):
        whole = max(1, round(1 / mean))
        nominal = [Fraction(1, whole), Fraction(1001, 1000 * whole), mean]
    for step in nominal:
        ratio = step / tick
        numbers = np.arange(len(pts), dtype=np.int64)
        error = np.abs(numbers * ratio.numerator - since * ratio.denominator)
        if int(error.max()) <= ratio.denominator:
            return step
    return None


class _PacketTable:
    """What the packets of one stream tell."""

    def __init__(self) -> None:
        self.pts: list[int | None] = []
        self.keys: list[int | None] = []
        self.first: Any = None
        self._tried = 0

    def add(self, packet: Any) -> None:
        """Take one packet, in the file's order; the first frame is decoded on the way."""
        if packet.size and not packet.is_corrupt and _is_shown(packet):
            self.pts.append(packet.pts)
            if packet.is_keyframe:
                self.keys.append(packet.pts)
        if self.first is None and self._tried < MAX_PACKETS_IN_VAIN:
            self._tried += 1
            self.first = _first_of(packet.stream, packet)

    def finish(self, stream: Any) -> None:
        """Bring out a first frame that the decoder still holds back."""
        if self.first is None and self.pts:
            self.first = _first_of(stream, None)

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return the frames' times and those of key frames, ascending; None where they are unsure.

        Frames before the first that comes out of the decoder never do: they need what was cut off.
        """
        start = self.first.pts
        if None in self.pts or start not in self.pts or len(set(self.pts)) < len(self.pts):
            return None
        pts = np.sort(np.array(self.pts, np.int64))
        keys = np.sort(np.array(self.keys, np.int64))
        return pts[pts >= start], keys[keys >= start]


class _Converter:
    """Makes RGB of decoded frames, turned and mirrored as they are displayed."""

    def __init__(self, frames: FrameTimes) -> None:
        self._frames = frames
        self._reformatter = _av().video.reformatter.VideoReformatter()
        # by default PyAV 17 and later start a thread for each core, for each file
        self._threads = {"threads": 1} if int(_av().__version__.partition(".")[0]) >= 17 else {}

    def rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame, uint8 (H, W, 3)."""
        rotation = self._frames.rotation
        height, width = self._frames.size[::-1] if rotation % 180 else self._frames.size
        # streams that change their size are scaled to the first frame's
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", **self._threads)
        pixels = rgb.to_ndarray()
        if self._frames.mirrored:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, rotation // 90)


class _Pictures:
    """The wanted frames, by time or, where times do not identify them, by position."""

    def __init__(self, frames: FrameTimes, wanted: NDArray[np.int64]) -> None:
        keys = frames.pts[wanted] if frames.by_time else wanted
        self._rows = {int(key): row for row, key in enumerate(keys)}
        self.missing = set(self._rows)
        self.array = np.empty((len(wanted), *frames.size, 3), np.uint8)
        self._converter = _Converter(frames)

    def add(self, key: int, frame: Any) -> None:
        """Convert a frame if it is wanted; one that the decoder had to mend stays missing."""
        if key not in self.missing or frame.is_corrupt:
            return
        self.array[self._rows[key]] = self._converter.rgb(frame)
        self.missing.discard(key)


def _groups(frames: FrameTimes, wanted: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split ascending positions where a key frame lies between, so that a seek saves frames."""
    keys: NDArray[np.int64] = np.append(np.int64(0), frames.keyframes)
    key: NDArray[np.int64] = keys[np.searchsorted(keys[1:], wanted, side="right")]
    return np.split(wanted, np.flatnonzero(key[1:] > wanted[:-1] + 1) + 1)


def _read_group(
    container: Any, frames: FrameTimes, group: NDArray[np.int64], pictures: _Pictures
) -> None:
    """Seek to the key frame before the first position and decode up to the last one."""
    stream = container.streams[frames.stream]
    unsent = {int(tick) for tick in frames.pts[group]}

    def packets() -> Iterator[Any]:
        for packet in _seek(container, stream, frames, int(group[0])):
            # frames that no other one needs
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in unsent else "NONREF"
            unsent.discard(packet.pts)
            yield packet
            if not unsent:
                return

    for frame in _frames(packets(), stream):
        pictures.add(frame.pts, frame)


def _read_from_start(container: Any, frames: FrameTimes, pictures: _Pictures) -> None:
    """Decode everything until no wanted frame is missing."""
    stream = container.streams[frames.stream]
    for i, frame in enumerate(_frames(_packets(container, [stream]), stream)):
        pictures.add(frame.pts if frames.by_time else i, frame)
        if not pictures.missing:
            return


def _count(file: str, stream: int, step: Fraction) -> NDArray[np.int64]:
    """Return the times of the frames that a full decode gives, or even ones of so many frames.

    Args:
        file: The file.
        stream: The stream's number.
        step: Ticks between even times.
    """
    with _opened(file) as container:
        video = container.streams[stream]
        found = [frame.pts for frame in _frames(_packets(container, [video]), video)]
    if not found:
        raise VideoError(file, "none of its frames can be decoded")
    if None not in found and len(set(found)) == len(found):
        return np.sort(np.array(found, np.int64))
    numbers = np.arange(len(found), dtype=np.int64)
    return numbers * step.numerator // step.denominator


def _check_size(file: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(file, f"{width} x {height} pixels are more than {MAX_PIXELS}")


def _check_gaps(file: str, pts: NDArray[np.int64], tick: Fraction) -> None:
    """Refuse times that a damaged file made up: resampled, a single gap could fill the memory."""
    hours = (int(pts[-1]) - int(pts[0])) * float(tick) / 3600  # which may not fit into 64 bits
    if hours > MAX_HOURS:
        raise VideoError(file, f"its {len(pts)} frames last {hours:.0f} hours; it is damaged")
    gaps = np.diff(pts)
    if len(gaps) and (hours := float(gaps.max() * tick) / 3600) > MAX_GAP_HOURS:
        where = int(gaps.argmax())
        raise VideoError(
            file, f"frames {where} and {where + 1} lie {hours:.0f} hours apart; it is damaged"
        )


def _seek(container: Any, stream: Any, frames: FrameTimes, position: int) -> Iterator[Any]:
    """Yield packets from the key frame before a position on; none where the file leads past it."""
    keys = frames.pts[frames.keyframes]
    tick = int(frames.pts[position])
    at = int(np.searchsorted(keys, tick, side="right")) - 1
    if at < 0 or keys[at] == frames.pts[0]:
        yield from _packets(container, [stream])  # nothing has been read before
        return
    # some containers seek by the time of decoding, and may land one key frame too late
    for key in keys[max(at - 1, 0) : at + 1][::-1].tolist():
        try:
            container.seek(key, stream=stream)
        except _av().error.FFmpegError:
            continue
        packets = _packets(container, [stream])
        first = next((packet for packet in packets if packet.is_keyframe), None)
        if first is not None and first.pts is not None and first.pts <= keys[at]:
            yield first
            yield from packets
            return


def _packets(container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    """Yield the streams' packets, up to the file's end or the place where it is damaged."""
    while True:
        try:
            for packet in container.demux(*streams):
                if packet.size:
                    yield packet
            return
        except IndexError:  # a packet of a stream that appeared on the way, unknown to PyAV
            continue
        except _av().error.FFmpegError:
            return


def _frames(packets: Iterable[Any], stream: Any) -> Iterator[Any]:
    """Decode packets and yield the frames as they are displayed, up to the first damage."""
    begun = False
    for packet in chain(packets, [None]):  # None brings out what is held back to be put in order
        try:
            frames = stream.codec_context.decode(packet)
        except _av().error.FFmpegError:
            if begun:  # what comes before the first key frame may fail
                return
            continue
        for frame in frames:
            begun = True
            yield frame


def _first_of(stream: Any, packet: Any) -> Any:
    """Return the first frame that a packet brings out of the decoder, None if there is none."""
    try:
        frames = stream.codec_context.decode(packet)
    except _av().error.FFmpegError:
        return None
    return frames[0] if frames else None


def _video_streams(container: Any) -> list[Any]:
    """Return the streams that hold moving pictures, the largest one first."""
    found = [s for s in container.streams.video if s.codec_context and not _is_cover(s)]
    return sorted(found, key=lambda s: (-s.width * s.height, s.index))


def _has_guessed_times(container: Any, stream: Any) -> bool:
    """Tell whether frames may be displayed in another order than their times say."""
    if container.format.name.partition(",")[0] in _TIMED:
        return False
    decoder = stream.codec_context
    in_order = not decoder.codec.reorder or decoder.profile in _IN_ORDER
    return decoder.has_b_frames or not in_order


def _without_video(container: Any) -> str:
    if any(_is_cover(stream) for stream in container.streams.video):
        return "it has no video stream, only a cover picture"
    if container.streams.video:
        return "its video stream is of a kind that FFmpeg does not know"
    kinds = sorted({stream.type for stream in container.streams})
    return f"it has no video stream, only {' and '.join(kinds) or 'a header'}"


def _is_cover(stream: Any) -> bool:
    flags = getattr(stream, "disposition", None)  # PyAV 14 tells none
    return flags is not None and bool(flags & type(flags).attached_pic)


def _is_shown(packet: Any) -> bool:
    """Tell whether a packet becomes a frame that is displayed."""
    if packet.is_discard:  # an edit list leaves it out
        return False
    # VP8's hidden frames have packets of their own (bit 4 of RFC 6386's frame header)
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] >> 4 & 1)


def _orientation(frame: Any) -> tuple[int, bool]:
    """Return (degrees anticlockwise, mirrored before) by which a stored frame is displayed."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            mirrored = a * d - b * c < 0
            if mirrored:
                a, b = -a, -b
            return round(math.degrees(math.atan2(-b, a)) / 90) % 4 * 90, mirrored
    return 0, False


@contextmanager
def _opened(file: str, threads: int = 1) -> Iterator[Any]:
    """Open a file with FFmpeg and close it again.

    Raises:
        VideoError: If that fails.
    """
    av = _av()
    try:
        if os.path.getsize(file) == 0:
            raise VideoError(file, "the file is empty")
        container = av.open(
            os.path.abspath(file),  # so that no name is taken for a protocol
            metadata_errors="ignore",
            # a playlist in disguise opens nothing else; given as `options`, PyAV up to 16 crashes
            container_options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
        )
    except av.error.InvalidDataError:
        raise VideoError(file, _NO_VIDEO) from None
    except av.error.EOFError:
        raise VideoError(file, "it ends before its first frame") from None
    except (OSError, av.error.FFmpegError) as error:
        if error.errno == errno.EINVAL:  # none of the containers
            raise VideoError(file, _NO_VIDEO) from None
        raise VideoError(file, error.strerror or str(error)) from None
    with container:
        for stream in _video_streams(container):
            stream.codec_context.thread_count = threads
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            if threads != 1:
                stream.codec_context.thread_type = "AUTO"
        yield container


@cache
def _av() -> Any:
    """Return PyAV, which takes a moment to import."""
    import av
    import av.error
    import av.video.reformatter

    return av
