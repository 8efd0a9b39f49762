"""What thousands of steps leave in memory, open files and processes, seen from outside the run."""

from __future__ import annotations

import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_zoo.engine.scenes import write_scenes
from lightning_zoo.errors import ZooError

GOAL = 1.0  # MB per 1,000 steps
MB = 1e6
WARM_UP = 0.2  # of the steps; caches and the allocator's arenas fill in the first ones
BATCH, SIDE = 2, 64
STEPS_PER_EPOCH = 250
LOG_EVERY = 10  # steps; a sample is taken where the run's figures show that it got so far
DETECTOR = {
    "backbone": "resnet18", "returned_layers": [2, 3], "fpn_channels": 16, "min_size": SIDE,
    "max_size": SIDE, "representation_size": 32, "anchor_sizes": [16, 32, 48],
    "aspect_ratios": [1.0], "rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 16,
    "box_batch_size_per_image": 32, "box_detections_per_img": 8, "mask_layers": [16],
    "mask_dim_reduced": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A look at a run and at all processes that it started.

    Attributes:
        step: Optimizer steps that it has made.
        bytes: Resident memory of each, added up; pages of files left out.
        once: The same, with pages that several share counted once.
        files: Open file descriptors of all, without the batches that wait in a loader's worker.
        processes: How many there are.
    """

    step: int
    bytes: int
    once: int
    files: int
    processes: int


def long_run_benchmark(
    steps: int = 5000,
    *,
    steps_per_epoch: int = STEPS_PER_EPOCH,
    workers: int = 2,
    pause: float = 0.2,
) -> Iterator[dict[str, Any]]:
    """Train a small Mask R-CNN, averaged weights and validation included, and watch it grow.

    What grows without end shows in the memory that each process holds, and that is judged. The
    workers begin as copies of the main process whose pages are shared until one of them writes
    there, so all together take more in time, up to what they hold each: that is told too.

    The slope is the median of the slopes of all pairs of samples (Theil and Sen), so that a save or
    a validation that happens to be looked at does not count.

    Args:
        steps: Optimizer steps of the run.
        steps_per_epoch: Steps between two validations.
        workers: Processes of each loader.
        pause: Seconds between two looks.

    Yields:
        One JSON-able row: megabytes per 1,000 steps after the first fifth of the run, judged and
        with shared pages counted once; and memory, open files and processes, medians of the first
        and of the last fifth of the samples then.

    Raises:
        ZooError: If this is no Linux, whose ``/proc`` tells the figures; or if the run fails.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise ZooError("the benchmark long_run needs /proc/self/smaps_rollup, so Linux")
    if steps < 10:
        raise ZooError(f"--steps is {steps}; expected a whole number of at least 10")
    with tempfile.TemporaryDirectory() as folder:
        recipe = _write(Path(folder), steps, min(steps_per_epoch, steps), workers)
        start = time.monotonic()
        samples = watch(recipe, Path(folder) / "runs", pause)
        seconds = time.monotonic() - start
    yield {"benchmark": "long_run", "steps": steps, "workers": workers,
           "seconds": round(seconds), **judge(samples, steps)}  # fmt: skip


def _write(folder: Path, steps: int, per_epoch: int, workers: int) -> Path:
    root = folder / "data"
    write_scenes(root, train=per_epoch * BATCH, val=8, side=SIDE)
    recipe = {
        "seed_everything": 0,
        "model": {
            "class_path": "DetectionTask",
            "init_args": {
                "model": "mask_rcnn",
                "model_args": DETECTOR,
                "ema_decay": 0.9,
                "optimizer": {
                    "class_path": "torch.optim.SGD",
                    "init_args": {"lr": 0.002, "momentum": 0.9},
                },
            },
        },
        "data": {
            "class_path": "CocoDataModule",
            "init_args": {"root": str(root), "target": "masks", "workers": workers},
        },
        "batch": {"size": BATCH, "per_device": BATCH},
        "trainer": {
            "max_epochs": -(-steps // per_epoch),
            "max_steps": steps,
            "accelerator": "cpu",
            "log_every_n_steps": LOG_EVERY,
        },
        "run": {"loggers": ["csv"], "checkpoint_steps": 1000, "pictures": 0},
    }
    path = folder / "long_run.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def watch(recipe: Path, out: Path, pause: float) -> list[Sample]:
    """Train a recipe on the CPU in a process of its own and look at it while it trains.

    Args:
        recipe: Recipe with the CSV logger.
        out: Folder of the run folders.
        pause: Seconds between two looks.

    Returns:
        At most one sample for each row of the run's figures.
    """
    command = [sys.executable, "-m", "lightning_zoo", "fit", "--recipe", str(recipe)]
    command += ["--devices", "1", "--out", str(out)]
    log = out.with_name("long_run.log")
    samples: list[Sample] = []
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            while process.poll() is None:
                step = _step(out)
                if step is not None and (not samples or step > samples[-1].step):
                    with contextlib.suppress(OSError):  # it ended while it was looked at
                        samples.append(_look(process.pid, step))
                time.sleep(pause)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        said = log.read_text(encoding="utf-8").strip().splitlines()
        raise ZooError(f"the run of the benchmark failed: {said[-1] if said else 'in silence'}")
    return samples


def _step(out: Path) -> int | None:
    """Return the last step that a run's figures name; None before the first."""
    for path in out.glob("*/*/metrics.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row["step"] for row in csv.DictReader(file)]
        if rows:
            return int(rows[-1])
    return None


def _look(pid: int, step: int) -> Sample:
    """Look at a process and at all those that it started."""
    size = once = files = 0
    pids = family(pid)
    for one in pids:
        size += _kilobytes(one, "status", "RssAnon:", "RssShmem:")
        once += _kilobytes(one, "smaps_rollup", "Pss_Anon:", "Pss_Shmem:")
        files += _files(one, waiting=one == pid)
    return Sample(step, size * 1024, once * 1024, files, len(pids))


def family(pid: int) -> list[int]:
    """Return a process and, below it, those that it started and that still live."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # gone meanwhile
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(folder.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _kilobytes(pid: int, file: str, *names: str) -> int:
    """Return the sum of some lines of a process's file in ``/proc``.

    ``Rss`` is what it holds; in ``Pss`` a page that n processes share counts for an n-th. Pages of
    files, libraries above all, stay out: the kernel drops and reads them as it likes.
    """
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names))


def _files(pid: int, *, waiting: bool) -> int:
    """Return a process's open file descriptors.

    Args:
        pid: The process.
        waiting: Count files without a name too: a worker's batches, whose number always changes.
    """
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            count += waiting or not os.readlink(link).endswith("(deleted)")
    return count


def judge(samples: Sequence[Sample], steps: int) -> dict[str, Any]:
    """Return the figures of a run's samples, and whether they are as they should be.

    Raises:
        ZooError: If there are too few samples.
    """
    warm = [sample for sample in samples if sample.step >= WARM_UP * steps]
    if len(warm) < 5:
        raise ZooError(f"the run was looked at only {len(warm)} times; take more --steps")
    steps_seen = [s.step for s in warm]
    slope = 1000 * theil_sen(steps_seen, [s.bytes / MB for s in warm])
    once = 1000 * theil_sen(steps_seen, [s.once / MB for s in warm])
    fifth = len(warm) // 5
    first, last = warm[:fifth], warm[-fifth:]
    row: dict[str, Any] = {
        "samples": len(warm),
        "mb_per_1000_steps": round(slope, 3),
        "mb_once_per_1000_steps": round(once, 3),
    }
    for name, part in (("start", first), ("end", last)):
        row[f"mb_at_{name}"] = round(statistics.median(s.bytes for s in part) / MB, 1)
        row[f"mb_once_at_{name}"] = round(statistics.median(s.once for s in part) / MB, 1)
        row[f"files_at_{name}"] = statistics.median_low(s.files for s in part)
        row[f"processes_at_{name}"] = statistics.median_low(s.processes for s in part)
    constant = all(row[f"{n}_at_end"] <= row[f"{n}_at_start"] for n in ("files", "processes"))
    return {**row, "goal": GOAL, "reached": slope < GOAL and constant}


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the median slope of all pairs of points, which a third of wild ones cannot move."""
    return statistics.median(
        (y[j] - y[i]) / (x[j] - x[i])
        for i in range(len(x))
        for j in range(i + 1, len(x))
        if x[i] != x[j]
    )
