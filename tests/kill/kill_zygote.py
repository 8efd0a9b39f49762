"""Forks runs from one interpreter that has imported everything, and lets them die as asked.

A fresh interpreter takes seconds to import torch and Lightning, a fork milliseconds, so hundreds of
runs can be killed and resumed. Nothing here starts a thread before the fork.

Run as a program, it reads one request a line from stdin and answers each with a line on stdout;
:class:`Zygote` is the other end.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

GONE_WITHIN = 10.0  # seconds after its death in which nothing of a run may be left
# What runs import, so that it is there before the first fork.
NEEDED = (
    "av", "pycocotools.mask", "torch.distributed", "torchmetrics.detection",
    "lightning_zoo.cli.fit", "lightning_zoo.engine.fit", "lightning_zoo.metrics",
    "lightning_zoo.models.detection", "lightning_zoo.models.segmentation",
    "lightning_zoo.models.video", "lightning_zoo.tasks", "lightning_zoo.datamodules",
)  # fmt: skip
HANGS_AFTER = 150.0  # seconds in which every run ends on machines that others share


@dataclass(frozen=True)
class Kill:
    """When a process ends itself by SIGKILL, or from when on the disk refuses it.

    Attributes:
        hook: Method of the task at whose ``nth`` call it happens; empty for file operations.
        nth: Which call, from 1.
        writes: Whether writes to open files count; otherwise opening, flushing, renaming, linking
            and removing alone.
        part: Of a write: the share of its bytes that reach the file before.
        seconds: Seconds after the call at which a timer kills from outside; None kills at the call.
        error: Number of the error that this and all later file operations get, in place of death.
    """

    hook: str = ""
    nth: int = 1
    writes: bool = True
    part: float = 0.0
    seconds: float | None = None
    error: int | None = None


@dataclass(frozen=True)
class Death:
    """How the processes of one run ended.

    Attributes:
        statuses: Exit status of every rank; negative for a signal.
        seconds: From the first rank's end to the last one's.
        log: What the ranks printed.
        operations: File operations in the folder of the runs, where they were asked for.
    """

    statuses: list[int]
    seconds: float
    log: str
    operations: list[str] = field(default_factory=list)


# --- in the forked process ------------------------------------------------------------------------


def end(kill: Kill) -> None:
    """Die now, or let a timer of the kernel do it."""
    if kill.seconds is None:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whose default is the same sudden death
    signal.setitimer(signal.ITIMER_REAL, max(kill.seconds or 0.0, 1e-6))


class Watched:
    """A file that counts what is written to it."""

    def __init__(self, file: Any, watch: Watch) -> None:
        self._file, self._watch = file, watch

    def write(self, data: Any) -> int:
        self._watch.count(
            f"write {Path(self._file.name).name}", lambda part: self._some(data, part)
        )
        return self._file.write(data)

    def _some(self, data: Any, part: float) -> None:
        self._file.write(data[: int(len(data) * part)])
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __enter__(self) -> Watched:
        self._file.__enter__()
        return self

    def __exit__(self, *args: Any) -> Any:
        return self._file.__exit__(*args)


class Watch:
    """Counts the file operations of this process below a folder, and ends it at one of them."""

    CALLS = ("fsync", "replace", "rename", "link", "symlink", "unlink", "mkdir", "open")

    def __init__(self, folder: Path, kill: Kill | None) -> None:
        self.folder, self.kill, self.operations = f"{folder}/", kill, [] if kill is None else None
        self.calls, self.pid = 0, os.getpid()
        for name in self.CALLS:
            self._wrap(name, getattr(os, name))
        real = io.open

        def watched_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            ours = self._is_ours(file) and set(mode) & set("wax+")
            if ours:
                self.count(f"open {Path(file).name}")
            opened = real(file, mode, *args, **kwargs)
            return Watched(opened, self) if ours else opened

        io.open = builtins.open = watched_open  # type: ignore[assignment]

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(
            self.folder
        )

    def _wrap(self, name: str, real: Callable[..., Any]) -> None:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if name == "fsync":
                with contextlib.suppress(OSError):
                    path = os.readlink(f"/proc/self/fd/{(fd := path)}")
                if self._is_ours(path):
                    self.count(f"fsync {Path(path).name}")
                return real(fd)
            if self._is_ours(path) or any(self._is_ours(other) for other in args):
                self.count(f"{name} {Path(path).name}")
            return real(path, *args, **kwargs)

        setattr(os, name, call)

    def count(self, operation: str, before: Callable[[float], None] | None = None) -> None:
        """Note an operation that is about to happen."""
        if os.getpid() != self.pid:
            return  # a loader's worker
        if self.operations is not None:
            self.operations.append(operation)
        if self.kill is None or self.kill.hook or (before is not None and not self.kill.writes):
            return
        self.calls += 1
        if self.kill.error is not None:
            if self.calls >= self.kill.nth and not operation.startswith("unlink "):
                raise OSError(self.kill.error, os.strerror(self.kill.error))
        elif self.calls == self.kill.nth:
            if before is not None and self.kill.seconds is None:
                before(self.kill.part)
            end(self.kill)


def die_in(kill: Kill) -> None:
    """Let a method of the task end this process at its nth call."""
    from lightning_zoo.tasks.base import Task

    method, calls = getattr(Task, kill.hook), 0

    def dies(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill.nth:
            end(kill)
        return method(self, *args, **kwargs)

    setattr(Task, kill.hook, dies)


def live(request: dict[str, Any], rank: int) -> int:
    """Be one rank of a run; return its exit status."""
    os.setsid()  # what it starts is found by this
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout = open(0), open(1, "w", closefd=False)  # noqa: SIM115
    os.environ.update(request["env"])
    ranks = len(request["kills"])
    if ranks > 1:
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks,
                 "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": request["port"],
                 "TORCHELASTIC_RUN_ID": "none"}  # fmt: skip
        os.environ.update({name: str(value) for name, value in world.items()})
    if request["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    kill = None if request["kills"][rank] is None else Kill(**request["kills"][rank])
    if kill is not None and kill.hook:
        die_in(kill)
    watch = Watch(Path(request["folder"]), kill)
    from lightning_zoo.cli import main

    try:
        return main(request["args"])
    except SystemExit as leave:
        return int(leave.code or 0)
    finally:
        if rank == 0 and watch.operations is not None:
            Path(request["log"]).with_suffix(".json").write_text(json.dumps(watch.operations))


# --- in the zygote --------------------------------------------------------------------------------


def serve() -> int:
    """Answer requests until stdin ends."""
    preload()
    gc.collect()
    gc.freeze()  # so that a fork's collector leaves the shared pages alone
    print(json.dumps("ready"), flush=True)
    # every line is read by a system call of its own: a fork must not inherit a full buffer
    for line in iter(read_line, b""):
        request = json.loads(line)
        pids: list[int] = []
        for rank in range(len(request["kills"])):
            if (pid := os.fork()) == 0:
                status = live(request, rank)
                atexit._run_exitfuncs()  # ends the loaders' workers
                sys.stdout.flush()
                os._exit(status)  # taking the interpreter down takes longer than all the rest
            pids.append(pid)
        print(json.dumps(watch_over(pids, together=request["together"])), flush=True)
    return 0


def read_line() -> bytes:
    """Return one line of stdin."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def preload() -> None:
    """Import what every run needs."""
    import cv2
    import torch

    for name in NEEDED:
        importlib.import_module(name)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def watch_over(pids: list[int], *, together: bool) -> dict[str, Any]:
    """Wait for all ranks; those that outlive a killed one by too long are ended.

    Args:
        pids: The ranks.
        together: End the others with the first, as when the machine goes down.
    """
    patience = 0.0 if together else GONE_WITHIN + 2
    statuses: dict[int, int] = {}
    start, first = time.monotonic(), None
    while len(statuses) < len(pids):
        for pid in pids:
            if pid in statuses:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                statuses[pid] = os.waitstatus_to_exitcode(status)
                first = first or time.monotonic()
            elif time.monotonic() - start > HANGS_AFTER or (
                first and min(statuses.values()) < 0 and time.monotonic() - first > patience
            ):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.003)
    seconds = time.monotonic() - (first or start)
    return {"pids": pids, "statuses": [statuses[pid] for pid in pids], "seconds": seconds}


# --- in the test ----------------------------------------------------------------------------------


class Zygote:
    """Starts runs by forking, and looks after what they leave behind."""

    def __init__(self) -> None:
        variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.logs = tempfile.TemporaryDirectory(prefix="killed_runs_")
        self.dead: list[tuple[float, int]] = []  # sessions and when they ended
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the zygote died"
        return json.loads(line)

    def fit(
        self,
        folder: Path,
        args: list[str],
        kills: list[Kill | None],
        *,
        together: bool = False,
        largest_file: int | None = None,
        env: dict[str, str] | None = None,
    ) -> Death:
        """Run ``lightning_zoo fit`` with one rank for each of ``kills``; wait for its end.

        Args:
            folder: Folder of the run folders.
            args: What follows ``fit``.
            kills: How each rank dies; None: not at all.
            together: End all ranks as soon as one has died.
            largest_file: Bytes that a file may have; None for no limit.
            env: Further environment variables.
        """
        log = Path(self.logs.name) / "run.log"
        log.unlink(missing_ok=True)
        request = {
            "folder": str(folder),
            "args": ["fit", *args, "--out", str(folder)],
            "kills": [None if kill is None else asdict(kill) for kill in kills],
            "together": together,
            "largest_file": largest_file,
            "env": env or {},
            "port": free_port(),
            "log": str(log),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.dead += [(time.monotonic(), pid) for pid in answer.pop("pids")]
        operations: list[str] = []
        noted = log.with_suffix(".json")
        if noted.is_file():
            operations = json.loads(noted.read_text())
            noted.unlink()
        return Death(**answer, log=log.read_text(), operations=operations)

    def check_nothing_is_left(self, *, wait: bool = False) -> None:
        """See that no process outlives its run by more than the seconds allowed.

        Args:
            wait: Wait for the last one; otherwise only runs that ended long ago are looked at.
        """
        while self.dead:
            alive = {session for _, session in processes()}
            now = time.monotonic()
            late = [pid for at, pid in self.dead if pid in alive and now - at > GONE_WITHIN]
            assert not late, f"processes of the sessions {late} outlive their runs"
            self.dead = [(at, pid) for at, pid in self.dead if pid in alive]
            if not wait:
                return
            time.sleep(0.05)

    def close(self) -> None:
        """End the zygote."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.logs.cleanup()


def processes() -> Iterator[tuple[int, int]]:
    """Yield the id and the session of every process that is not dead already."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    yield int(folder.name), int(fields[3])


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(serve())
