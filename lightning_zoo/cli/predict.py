from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.cli import new_parser
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import list_models
from lightning_zoo.runs import find_run

SECONDS_BETWEEN_REDRAWS = 0.2


def run(args: Sequence[str], *, debug: bool) -> int:
    """Use a model on photos or videos."""
    parser = new_parser(
        "predict",
        "Use a run (folder, 'last', a recipe's name), a checkpoint or a model of the\n"
        "zoo on images and videos. Broken files are named, the rest goes on (exit 1).",
        "  python -m lightning_zoo predict runs/last street.mp4 photos/ --out out/\n"
        "  python -m lightning_zoo predict maskrcnn_resnet50_fpn 'photos/**/*.jpg'",
        usage="python -m lightning_zoo predict RUN_OR_MODEL FILE ... [options]",
    )
    parser.add_argument("what", metavar="RUN_OR_MODEL", help="what predicts")
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE", help="images, videos, folders, 'patterns*.jpg'"
    )
    parser.add_argument("--out", metavar="DIR", help="pictures, mp4s and predictions.json go here")
    parser.add_argument(
        "--save", action="append", default=[], metavar="T",
        help="also predictions_coco.json, .csv: coco,csv",
    )  # fmt: skip
    parser.add_argument("--weights", default="DEFAULT", metavar="W", help="with a model (DEFAULT)")
    parser.add_argument(
        "--threshold", type=float, metavar="S", help="score that counts (the run's own, or 0.5)"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="take each N-th frame of videos (1)"
    )
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--json", action="store_true", help="print the predictions as JSON")
    options = parser.parse_args(list(args))
    models = list_models()
    if options.what not in models and Path(options.what).suffix != ".ckpt":
        find_run(options.what, Path(options.runs), models)

    from lightning_zoo.engine.predict import plan

    job = plan(
        options.what,
        options.inputs,
        out=options.out,
        weights=options.weights,
        threshold=options.threshold,
        every=options.every,
        save=[name for text in options.save for name in text.split(",")],
        runs=options.runs,
        debug=debug,
    )
    if job.uses_thresholds and str(job.thresholds):
        print(job.thresholds, file=sys.stderr if options.json else sys.stdout)
    if options.threshold is not None and not job.uses_thresholds:
        print("--threshold is not used: the model says one class", file=sys.stderr)
    broken: list[str] = []
    plain: list[dict[str, Any]] = []
    count = 0
    width = min(60, max(len(str(file)) for file in job.files))
    with Progress(len(job.files)) as progress:
        for result in job.run(broken, progress.on_frame):
            count += 1
            if options.json:
                plain.append(result.as_json())
            else:
                progress.print(f"{result.file:<{width}}  {result.summary()}")
            progress.on_files(count + len(broken))
    if options.json:
        print(json.dumps(plain, ensure_ascii=False))
    elif options.out and count:
        print(f"pictures: {options.out}/grid.png and one for each file")
    for sentence in broken:
        print(f"skipped: {sentence}", file=sys.stderr)
    if broken and not count:
        raise ZooError(f"none of the {len(broken)} files could be read")
    return 1 if broken else 0


class Progress:
    """A bar with the files done, and one for the film at work; nothing without a terminal.

    Args:
        total: Number of files.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Any = None
        self._film: Path | None = None
        self._start = self._drawn = 0.0

    def __enter__(self) -> Progress:
        on_stdout = sys.stdout.isatty()
        if not on_stdout and not sys.stderr.isatty():
            return self
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=not on_stdout),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=on_stdout,
        )
        self._through_bar = on_stdout
        self._bar.start()
        self._files = self._bar.add_task("files", total=self._total, rate="")
        self._frames = self._bar.add_task("", total=None, rate="", visible=False)
        self._start = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def print(self, text: str) -> None:
        """Print a line, above the bar where both are on the terminal."""
        if self._bar is not None and self._through_bar:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def on_files(self, done: int) -> None:
        """Show how many files are done."""
        if self._bar is None:
            return
        self._film = None
        rate = done / max(time.monotonic() - self._start, 1e-6)
        self._bar.update(self._frames, visible=False)
        self._bar.update(self._files, completed=min(done, self._total), rate=f"{rate:.1f} files/s")

    def on_frame(self, film: Path, done: int, total: int) -> None:
        """Show how many frames of a film are done; most calls return at once."""
        if self._bar is None:
            return
        now = time.monotonic()
        if film != self._film:
            self._film, self._film_start, self._drawn = film, now, 0.0
            name = film.name if len(film.name) <= 24 else film.name[:23] + "…"
            self._bar.reset(self._frames, total=total, description=name, rate="", visible=True)
        if done < total and now - self._drawn < SECONDS_BETWEEN_REDRAWS:
            return
        self._drawn = now
        rate = done / max(now - self._film_start, 1e-6)
        self._bar.update(self._frames, completed=done, rate=f"{rate:.1f} frames/s")
