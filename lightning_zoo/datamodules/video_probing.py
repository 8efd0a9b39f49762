"""Looking into many videos for their frame times: in processes, with a bar or some lines.

Run as a program, this is one of those processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_zoo.transforms.video_decode import VideoError, probe

SECONDS_BEFORE_BAR = 1.0
SECONDS_BEFORE_LINES = 5.0
SECONDS_BETWEEN_LINES = 30.0
HELPER = ["-m", "lightning_zoo.datamodules.video_probing"]  # what a process runs
VIDEOS_WORTH_A_PROCESS = 25  # it starts in the time of about so many

Record = dict[str, Any]
UNSURE = -2  # a time of change that no file has: look again next time


def look_into(
    root: Path, todo: Mapping[str, Sequence[int]], workers: int, progress: bool
) -> Iterator[Record]:
    """Yield what is found in each video, as it is found."""
    workers = min(workers, len(todo) // VIDEOS_WORTH_A_PROCESS)
    if workers > 1:
        found = _by_processes(root, todo, workers)
    else:
        found = (examine(str(root), name, key) for name, key in todo.items())
    with contextlib.closing(found), _Progress(len(todo), progress) as shown:
        for record in found:
            yield record
            shown.advance()


def examine(root: str, name: str, key: Sequence[int]) -> Record:
    """Return what is in a video, as it stands in the journal."""
    record: Record = {"name": name, "file_size": key[0], "mtime_ns": key[1]}
    path = f"{root}/{name}"
    try:
        with open(path, "rb"):
            pass
    except OSError as error:  # that may change without the file's
        return {**record, "mtime_ns": UNSURE, "error": error.strerror or str(error)}
    try:
        frames = probe(path)
    except VideoError as error:
        return {**record, "error": error.reason}
    deltas = np.diff(frames.pts)
    return {
        **record,
        "count": len(frames),
        "first": int(frames.pts[0]),
        "deltas": (deltas[:1] if np.all(deltas == deltas[:1]) else deltas).tolist(),
        "keyframes": frames.keyframes.tolist(),
        "num": frames.time_base[0],
        "den": frames.time_base[1],
        "height": frames.size[0],
        "width": frames.size[1],
        "stream": frames.stream,
        "rotation": frames.rotation,
        "mirrored": frames.mirrored,
        "by_time": frames.by_time,
    }


def _by_processes(
    root: Path, todo: Mapping[str, Sequence[int]], workers: int
) -> Generator[Record, None, None]:
    """Look into videos in processes of their own, so that a video that crashes FFmpeg ends none."""
    jobs: queue.SimpleQueue[tuple[str, Sequence[int]]] = queue.SimpleQueue()
    for job in todo.items():
        jobs.put(job)
    results: queue.SimpleQueue[Record | Exception] = queue.SimpleQueue()
    helpers = [_Helper() for _ in range(workers)]

    def feed(helper: _Helper) -> None:
        try:
            while not helper.stopped:
                results.put(helper.examine(str(root), *jobs.get_nowait()))
        except queue.Empty:
            pass
        except Exception as error:
            results.put(error)
        finally:
            helper.close()

    threads = [threading.Thread(target=feed, args=(h,), daemon=True) for h in helpers]
    for thread in threads:
        thread.start()
    try:
        for _ in todo:
            result = results.get()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for helper in helpers:
            helper.stop()
        for thread in threads:
            thread.join()


class _Helper:
    """A process that looks into videos; it ends with this one, whatever ends it.

    A plain program rather than a fork or ``multiprocessing``: it shares no threads or CUDA state
    with this process, and the person's script needs no ``if __name__ == "__main__"``.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[str] | None = None

    def examine(self, root: str, name: str, key: Sequence[int]) -> Record:
        """Return what is in a video; a crash is an error of the video."""
        if self._process is None:
            self._process = self._start()
        reply = self._ask(self._process, json.dumps([root, name, list(key)]))
        if reply.endswith("\n"):
            return json.loads(reply)
        self._process.communicate()
        status = self._process.returncode
        self._process = None
        return {
            "name": name,
            "file_size": key[0],
            "mtime_ns": UNSURE,  # it may have been killed for other reasons
            "error": f"the process that read it ended with status {status}",
        }

    def stop(self) -> None:
        """Let the thread that uses it come to its end."""
        self.stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-P", *HELPER],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="ascii",
        )
        if _Helper._ask(process, "") != "\n":
            process.communicate()
            raise RuntimeError(f"{sys.executable} cannot import lightning_zoo from {package!r}")
        return process

    @staticmethod
    def _ask(process: subprocess.Popen[str], question: str) -> str:
        """Send a line and return the line that comes back; it has no end if the process died."""
        if process.stdin is None or process.stdout is None:
            return ""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(question + "\n")
            process.stdin.flush()
        return process.stdout.readline()


def _serve() -> None:
    """Answer the lines of :class:`_Helper` until its process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's matter
    for line in sys.stdin:
        answer = json.dumps(examine(*json.loads(line))) if line.strip() else ""
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


class _Progress:
    """Says how far a long build is; a short one passes in silence."""

    def __init__(self, total: int, wanted: bool) -> None:
        self._total, self._done = total, 0
        self._wanted, self._terminal = wanted, sys.stdout.isatty()
        self._start = time.monotonic()
        self._next = self._start + (SECONDS_BEFORE_BAR if self._terminal else SECONDS_BEFORE_LINES)
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """Count one video more."""
        self._done += 1
        now = time.monotonic()
        if not self._wanted or now < self._next:
            return
        if self._terminal:
            self._next = now + 0.1
            if self._bar is None:
                self._bar = _bar(self._total)
            self._bar.update(self._bar.task_ids[0], completed=self._done)
            return
        self._next = now + SECONDS_BETWEEN_LINES
        rate = self._done / (now - self._start)
        left = (self._total - self._done) / rate
        say(
            f"frame times of videos: {self._done} of {self._total}, {rate:.0f} videos/s, "
            f"{left / 60:.0f} min left"
        )


def _bar(total: int) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )
    bar.start()
    bar.add_task("frame times of videos", total=total)
    return bar


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201  hours may pass without a word otherwise


if __name__ == "__main__":
    _serve()
