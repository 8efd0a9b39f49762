"""Run folders: ``runs/<recipe>/<time>/`` holds all that one run leaves behind.

recipe.yaml        the resolved recipe: rerun it with fit --recipe <this file>
run.json           command, status, process, W&B run, result
run.lock           held by the process that trains, empty otherwise
environment.json   versions, machine, git revision
metrics.csv        every logged figure by step
ledger.jsonl       broken files that were skipped
checkpoints/       best.ckpt and last.ckpt
pictures/          predictions drawn on validation images
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.revision import revision, source_digest
from lightning_zoo.run_lock import process_lives

SECONDS_TO_CHANGE = 5.0  # for another thread's change of run.json
_changing = threading.RLock()

PACKAGES = (
    "torch",
    "lightning",
    "torchmetrics",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "albumentations",
    "wandb",
    "torchao",
)


@dataclass
class RunState:
    """What ``run.json`` says of a run.

    Attributes:
        recipe: Name of the recipe.
        command: The command line that started it.
        status: ``running``, ``finished``, ``interrupted`` or ``failed``.
        started: Local time, ISO 8601.
        finished: Local time of the end, None while it runs.
        process: Process id on ``host``.
        host: Name of the machine.
        wandb_id: Id of the W&B run, so that a resumed run continues it.
        results: Last figures of the evaluation, by metric.
        error: What ended a failed run.
    """

    recipe: str
    command: list[str] = field(default_factory=list)
    status: str = "running"
    started: str = ""
    finished: str | None = None
    process: int = 0
    host: str = ""
    wandb_id: str | None = None
    results: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class Run:
    """One run folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``best.ckpt`` and ``last.ckpt``."""
        return self.path / "checkpoints"

    @property
    def pictures(self) -> Path:
        """Folder of the drawn predictions."""
        return self.path / "pictures"

    @property
    def ledger(self) -> Path:
        """JSON lines naming the broken files that were skipped."""
        return self.path / "ledger.jsonl"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The best checkpoint, or the last where none was judged."""
        best = self.checkpoints / "best.ckpt"
        return best if best.is_file() else self.last

    def state(self) -> RunState:
        """Read ``run.json``."""
        try:
            data = json.loads((self.path / "run.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ZooError(f"{self.path} is no run folder: {error}") from None
        known = {f.name for f in dataclasses.fields(RunState)}
        return RunState(**{k: v for k, v in data.items() if k in known})

    def write_state(self, state: RunState) -> None:
        """Replace ``run.json``, all or nothing."""
        write_text(self.path / "run.json", json.dumps(dataclasses.asdict(state), indent=2) + "\n")

    def update(self, **changes: Any) -> None:
        """Change fields of ``run.json``.

        The thread that watches over the ranks does so too, while the main one may be at it; where
        that one waits for its disk, it is not waited for.
        """
        alone = _changing.acquire(timeout=SECONDS_TO_CHANGE)
        try:
            self.write_state(dataclasses.replace(self.state(), **changes))
        finally:
            if alone:
                _changing.release()

    def fail(self, error: str) -> None:
        """Note what ended the run, where the folder can still be written to."""
        with contextlib.suppress(ZooError):
            self.update(status="failed", finished=now(), error=error)

    def clear_leftovers(self) -> None:
        """Remove the half-written files of processes that are gone; the run must be locked."""
        for path in [*self.path.glob(".*.*"), *self.checkpoints.glob(".*.*")]:
            process = path.suffix[1:]
            if process.isdecimal() and path.is_file() and not process_lives(int(process)):
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one, never half.

    Raises:
        ZooError: If the disk is full or the folder cannot be written to.
    """
    # the process's number is last, for clear_leftovers
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ZooError(f"cannot write {path}: {error.strerror or error}") from error


def now() -> str:
    """Return the local time to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def create_run(out: Path, recipe: str, config: dict[str, Any], header: tuple[str, ...]) -> Run:
    """Make a new run folder with the resolved recipe, the environment and ``run.json``."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = out / recipe
    for n in range(1, 1000):
        path = folder / (stamp if n == 1 else f"{stamp}_{n}")
        try:
            path.mkdir(parents=True)
            (path / "checkpoints").mkdir()
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise ZooError(
                f"cannot make the run folder {path}: {error.strerror}; choose one with --out"
            ) from None
    run = Run(path)
    text = "".join(f"# {line}\n" for line in header) + dump(config)
    write_text(run.recipe_file, text)
    write_text(path / "environment.json", json.dumps(environment(), indent=2) + "\n")
    run.write_state(
        RunState(
            recipe=recipe,
            command=sys.argv,
            started=now(),
            process=os.getpid(),
            host=platform.node(),
        )
    )
    _point_last(out, path)
    return run


def dump(config: dict[str, Any]) -> str:
    """Return plain data as YAML, in its own order."""
    return yaml.safe_dump(config, sort_keys=False, width=100)


def _point_last(out: Path, path: Path) -> None:
    """Let ``<out>/last`` point to the newest run, where the file system has links."""
    with contextlib.suppress(OSError):
        temporary = out / f".last.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.relative_to(out), target_is_directory=True)
        os.replace(temporary, out / "last")


def find_run(text: str | Path, out: Path = Path("runs"), models: Sequence[str] = ()) -> Run:
    """Return the run meant by a folder, ``last``, or a recipe's name or folder (its newest run).

    Args:
        text: What was named.
        out: Folder of the run folders.
        models: Models that could have been named as well, for the error.

    Raises:
        ZooError: If there is no such run; the text names the nearest name.
    """
    path = Path(text)
    for candidate in (path, out / path):
        if (candidate / "run.json").is_file():
            return Run(candidate.resolve())
    if runs := list_runs(out, str(text)) or list_runs(path.parent, path.name):
        return runs[-1]
    if path.suffix == ".pt2" and path.is_file():
        if (path.parent / "int8.json").is_file():
            raise ZooError(
                f"{text} is an INT8 program; name its run, {path.parent}, or read it in Python "
                "with lightning_zoo.int8.load"
            )
        raise ZooError(f"{text} is named as a program (.pt2); expected the folder of a run")
    known = sorted({r.path.parent.name for r in list_runs(out)})
    kinds = ["a run folder", "'last'", "a recipe's name"]
    if models:
        kinds.append("a model's name")
    tail = f"expected {', '.join(kinds[:-1])} or {kinds[-1]}"
    if (guess := nearest(str(text), [*known, *models])) is not None:
        tail = f"did you mean {guess}?"
    elif known:
        tail += f"; runs in {out}/: {', '.join(known)}"
    else:
        tail += f"; {out}/ has no runs yet"
    kind = "run or model" if models else "run"
    raise ZooError(f"no {kind} {str(text)!r}; {tail}")


def list_runs(out: Path, recipe: str = "*") -> list[Run]:
    """Return the runs of one recipe or of all, oldest first."""
    if not recipe or "/" in recipe or recipe in (".", ".."):
        return []
    found = {path.parent.resolve() for path in out.glob(f"{recipe}/*/run.json")}
    return [Run(path) for path in sorted(found, key=lambda path: path.name)]


def newest_unfinished(out: Path, recipe: str) -> Run | None:
    """Return a recipe's newest run that did not finish and has a checkpoint.

    A run that ended before its first save is passed over: there is nothing in it to go on from.
    """
    for run in reversed(list_runs(out, recipe)):
        if run.state().status != "finished" and run.last.is_file():
            return run
    return None


def environment() -> dict[str, Any]:
    """Return what a reader needs to repeat the run: versions, machine, revision."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    from lightning_zoo import __version__

    here = Path(__file__).resolve().parent
    found: dict[str, Any] = {
        "lightning_zoo": __version__,
        "python": platform.python_version(),
        "packages": versions,
        # platform.platform() starts a program to ask for the processor
        "machine": "-".join((platform.system(), platform.release(), platform.machine())),
        "cpus": os.cpu_count(),
        "git": revision(here.parent),
        "source": source_digest(here),
    }
    if torch := sys.modules.get("torch"):
        found["gpus"] = [
            torch.cuda.get_device_name(i)
            for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        ]
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, read without running any code that it may hold.

    Raises:
        ZooError: If the file is missing, damaged or no checkpoint.
    """
    from lightning_zoo.models import plain_files

    if not path.is_file() and not path.is_dir():
        raise ZooError(f"no checkpoint at {path}")
    remedy = "take another checkpoint of the run (best.ckpt, last.ckpt)"
    return plain_files.check_checkpoint(plain_files.read(path, remedy=remedy, mmap=True), path)
