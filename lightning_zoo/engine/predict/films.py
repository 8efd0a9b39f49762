"""Films, frame by frame: read, predicted, drawn and written, in little memory whatever the length.

Not to be taken for ``video.py``, whose networks look at whole clips.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from lightning_zoo.drawing import Tile
from lightning_zoo.engine.predict.inputs import chunks, read_ahead
from lightning_zoo.engine.predict.results import Pixels, VideoResult
from lightning_zoo.engine.predict.sources import Predictor
from lightning_zoo.transforms.video_decode import (
    VideoError,
    constant_step,
    probe,
    stream_frames,
)

BATCH = 4  # most frames at once: those of films are large
STILL = Fraction(1, 25)  # seconds that the only frame of a film is shown
# The largest numerator and denominator of a time base in MPEG-4, and one for a variable rate.
MOST_TICKS, TICKS = 65_535, 60_000


class Film:
    """A film on its way through a network.

    Args:
        file: The film.
        every: Which frames are taken: those whose number it divides.
        target: Where the annotated film is written; None writes and draws nothing.

    Attributes:
        result: What was found so far.
        tile: The frame in the middle with what was found, for a grid; None where none is drawn.

    Raises:
        VideoError: If the file cannot be read at all.
    """

    def __init__(self, file: Path, *, every: int = 1, target: Path | None = None) -> None:
        self._file, self._every, self._target = file, every, target
        self._times = probe(file)
        self._seconds = self._times.seconds
        count = len(self._times)
        step = constant_step(self._times.pts, self._times.time_base) if count > 1 else STILL
        mean = Fraction(float(self._seconds[-1])) / (count - 1) if step is None else step
        self._step = None if step is None else step * every
        height, width = self._times.size
        self.result = VideoResult(
            str(file), float(1 / mean) / every, width=width, height=height,
            video=None if target is None else str(target),
        )  # fmt: skip
        self.tile: Tile | None = None

    def __len__(self) -> int:
        """Return how many frames are to be taken."""
        return -(-len(self._times) // self._every)

    def run(self, predictor: Predictor, on_frame: Callable[[int], None] | None = None) -> None:
        """Predict on the frames, one after another.

        However it ends, by damage in the film or by Ctrl-C, ``result`` has what was found by then,
        and the film that was written can be played.

        Args:
            predictor: What takes images.
            on_frame: Called with the number of frames done.

        Raises:
            VideoError: After the last frame that can be read, if there should have been more.
        """
        size = min(BATCH, predictor.batch)
        damage: list[VideoError] = []
        frames = stream_frames(self._file, self._times, every=self._every)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(frames))
            writer = None
            if self._target is not None:
                rate = self.result.rate
                writer = stack.enter_context(FilmWriter(self._target, rate, self._step))
            ahead = stack.enter_context(contextlib.closing(read_ahead(frames, size)))
            for chunk in chunks(_until_damage(ahead, damage), size):
                found = predictor([(self._file, pixels) for _, pixels in chunk])
                for (place, pixels), one in zip(chunk, found, strict=True):
                    result = replace(one, frame=place, time=float(self._seconds[place]))
                    if writer is not None:
                        writer.add(result.draw(pixels), float(self._seconds[place]))
                        if len(self.result.frames) == len(self) // 2:
                            self.tile = predictor.tile(pixels, result)
                    self.result.append(result)
                    if on_frame is not None:
                        on_frame(len(self.result.frames))
        if damage:
            raise damage[0]


def _until_damage(items: Iterator[Any], damage: list[VideoError]) -> Iterator[Any]:
    """Yield the items; an error at their end is kept for later, so that none of them is lost."""
    try:
        yield from items
    except VideoError as error:
        damage.append(error)


class FilmWriter:
    """Writes frames as H.264, or as MPEG-4 where this FFmpeg has no H.264; without sound.

    The file is made with the first frame, and complete when the writer is closed.

    Args:
        path: The file, an mp4.
        rate: Frames a second.
        step: Seconds from frame to frame; None where they vary.
    """

    def __init__(self, path: Path, rate: float, step: Fraction | None) -> None:
        self._path, self._rate = path, rate
        fits = step is not None and max(step.numerator, step.denominator) <= MOST_TICKS
        self._even = fits
        self._tick = step if step is not None and fits else Fraction(1, TICKS)
        self._pts = -1
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, pixels: Pixels, seconds: float) -> None:
        """Write a frame, uint8 RGB ``(H, W, 3)``, to be shown at that time.

        An odd width or height is made even by repeating the last column or row.
        """
        from av import VideoFrame

        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._open(*pixels.shape[:2])
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        wanted = self._pts + 1 if self._even else round(seconds / self._tick)
        frame.pts = self._pts = max(self._pts + 1, wanted)
        frame.time_base = self._tick
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder holds back and the table of contents."""
        if self._container is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        self._container = None

    def _open(self, height: int, width: int) -> None:
        import av

        codec = find_encoder()
        self._container = av.open(str(self._path), "w", format="mp4")
        rate = 1 / self._tick if self._even else Fraction(self._rate).limit_denominator(1000)
        stream: Any = self._container.add_stream(codec, rate=rate)
        if codec == "libx264":
            stream.options = {"crf": "20", "preset": "fast"}
        else:  # the others know no constant quality, and FFmpeg's own bit rate is for stamps
            stream.bit_rate = round(0.2 * height * width * self._rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._tick
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        self._stream = stream


def find_encoder() -> str:
    """Return FFmpeg's name of the encoder that films are written with."""
    from av import Codec
    from av.codec.codec import UnknownCodecError

    for name in ("libx264", "libopenh264"):
        with contextlib.suppress(UnknownCodecError):
            return str(Codec(name, "w").name)
    return "mpeg4"
