"""One call of ``predict``: everything found and loaded first, then one result after another."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_zoo.engine.predict.films import Film
from lightning_zoo.engine.predict.inputs import chunks, decoded, find_files, kind_of, read_ahead
from lightning_zoo.engine.predict.results import Result
from lightning_zoo.engine.predict.sources import Predictor, find_source, load_predictor
from lightning_zoo.engine.predict.thresholds import Thresholds, choose_thresholds
from lightning_zoo.engine.predict.writers import Writer, check_out, check_save, check_targets
from lightning_zoo.engine.session import hush
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import DecodeError, read_image
from lightning_zoo.transforms.video_decode import VideoError

# Called with a film, how many of its frames are done, and how many there are.
OnFrame = Callable[[Path, int, int], None]


@dataclass
class Job:
    """What predicts, and on what.

    Attributes:
        predictor: The network with all that belongs to it.
        files: The files, each once.
        task: The model's task.
        thresholds: From which score something counts.
        out: Folder for what is written; None for none.
        every: Which frames of films are taken.
        save: Tables beside ``predictions.json``.
    """

    predictor: Predictor
    files: list[Path]
    task: str
    thresholds: Thresholds
    out: Path | None = None
    every: int = 1
    save: Sequence[str] = ()

    @property
    def frame_by_frame(self) -> bool:
        """Whether films are taken frame by frame, rather than as clips."""
        return self.task != "video"

    @property
    def uses_thresholds(self) -> bool:
        """Whether the model's scores are held against thresholds."""
        return getattr(self.predictor, "thresholds", None) is not None

    def run(
        self, broken: list[str] | None = None, on_frame: OnFrame | None = None
    ) -> Iterator[Result]:
        """Yield a result for each file that can be read, after it was written.

        Args:
            broken: List that takes one sentence for each file that cannot be read, or not to its
                end; without it, the first such file is an error.
            on_frame: Called after each frame of a film.

        Raises:
            DecodeError: If a file cannot be read and there is no ``broken``.
        """
        with contextlib.ExitStack() as stack:
            writer = None
            if self.out is not None:
                writer = stack.enter_context(
                    Writer(
                        self.out, self.files, self.predictor, endings=endings_of(self.task),
                        frame_by_frame=self.frame_by_frame, save=self.save,
                    )
                )  # fmt: skip
            for is_film, files in itertools.groupby(self.files, self._is_film):
                if is_film:
                    for file in files:
                        yield from self._film(file, writer, broken, on_frame)
                else:
                    yield from self._images(files, writer, broken)

    def _is_film(self, file: Path) -> bool:
        return self.frame_by_frame and kind_of(file) == "videos"

    def _images(
        self, files: Iterator[Path], writer: Writer | None, broken: list[str] | None
    ) -> Iterator[Result]:
        predictor: Any = self.predictor
        read = read_image if self.frame_by_frame else predictor.read
        size = self.predictor.batch
        with contextlib.closing(read_ahead(decoded(files, read), size)) as ahead:
            for chunk in chunks(_readable(ahead, broken), size):
                for (file, image), result in zip(chunk, self.predictor(chunk), strict=True):
                    if writer is not None:
                        writer.add(file, image, result)
                    yield result

    def _film(
        self,
        file: Path,
        writer: Writer | None,
        broken: list[str] | None,
        on_frame: OnFrame | None,
    ) -> Iterator[Result]:
        film = None
        try:
            target = None if writer is None else writer.film(file)
            film = Film(file, every=self.every, target=target)
            total = len(film)
            film.run(self.predictor, on_frame and (lambda done: on_frame(file, done, total)))
        except VideoError as error:
            if broken is None:
                raise
            broken.append(str(error))
        finally:  # after Ctrl-C, too
            if film is not None and film.result.frames and writer is not None:
                writer.add_film(film)
        if film is not None and film.result.frames:
            yield film.result


def endings_of(task: str) -> tuple[str, ...]:
    """Return what follows the names of a file's pictures."""
    return ("", "_mask") if task == "segmentation" else ("",)


def _readable(
    items: Iterator[tuple[Path, Any]], broken: list[str] | None
) -> Iterator[tuple[Path, Any]]:
    """Yield the files that could be read; the others are named in ``broken``, or an error."""
    for file, image in items:
        if not isinstance(image, DecodeError):
            yield file, image
        elif broken is None:
            raise image
        else:
            broken.append(str(image))


def plan(
    what: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    weights: str = "DEFAULT",
    threshold: float | None = None,
    every: int = 1,
    save: Sequence[str] = (),
    runs: str | Path = "runs",
    debug: bool = False,
) -> Job:
    """Find and load everything; see :func:`lightning_zoo.predict` for the arguments.

    Raises:
        ZooError: If something is missing or makes no sense; nothing was written by then.
    """
    hush(debug)
    folder = None if out is None else check_out(Path(out))
    check_save(save, folder)
    if every < 1:
        raise ZooError(f"--every is {every}; expected a whole number of frames of at least 1")
    choose_thresholds(threshold)  # a number that is none is said before anything is searched
    source = find_source(what, Path(runs))
    if every > 1 and source.task == "video":
        raise ZooError(f"--every is {every}, but {source.model} looks at clips, not at frames")
    # a text alone would be taken for a sequence of letters, and "/" for a folder
    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    files = find_files(inputs, *source.kinds, user=source.model, leave_out=folder)
    if folder is not None:
        check_targets(folder, files, endings_of(source.task))
    thresholds = choose_thresholds(threshold, source.checkpoint)
    predictor = load_predictor(source, weights, thresholds)
    return Job(predictor, files, source.task, thresholds, folder, every, save)
