"""One process trains in a run folder: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from pathlib import Path
from typing import IO, Any

from lightning_zoo.errors import ZooError

# Locks of this process: a second lock of the same process would be granted by the kernel.
_held: dict[tuple[int, str], RunLock] = {}


class RunLock:
    """Holds ``run.lock`` of a run folder until :meth:`release` or the process's end.

    The lock is the kernel's (POSIX record locks, which NFS knows too, and which forked loader
    workers do not inherit), so none outlives its process, however that ends. The file says whose
    it is. Where the file system has no locks, a run of this machine whose process lives is
    respected all the same.

    Args:
        folder: The run's folder.

    Raises:
        ZooError: If another process trains there; the text names it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "run.lock"
        self._key = os.getpid(), str(self.path.resolve())
        self._file: IO[str] | None = None
        if self._key in _held:
            raise self._taken({"process": os.getpid(), "host": platform.node()})
        try:
            self._file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ZooError(
                f"cannot write to the run folder {folder}: {error.strerror}; "
                "choose another one with --out"
            ) from None
        owner = self._read()
        if not self._lock():
            self._file.close()
            raise self._taken(owner)
        _held[self._key] = self
        self._write({"process": os.getpid(), "host": platform.node()})

    def _lock(self) -> bool:
        """Whether the kernel gave us the lock."""
        assert self._file is not None
        try:
            import fcntl
        except ImportError:  # not a Unix
            return not _is_alive(self._read())
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return not _is_alive(self._read())
        return True

    def _read(self) -> dict[str, Any]:
        assert self._file is not None
        self._file.seek(0)
        with contextlib.suppress(ValueError, OSError):
            owner = json.loads(self._file.read())
            return owner if isinstance(owner, dict) else {}
        return {}

    def _write(self, owner: dict[str, Any] | None) -> None:
        assert self._file is not None
        with contextlib.suppress(OSError):  # the lock is what counts, not the name on it
            self._file.truncate(0)
            if owner is not None:
                self._file.write(json.dumps(owner))
            self._file.flush()

    def _taken(self, owner: dict[str, Any]) -> ZooError:
        who = f"process {owner.get('process', '?')} on {owner.get('host', '?')}"
        return ZooError(
            f"{who} is training in {self.folder}; wait for it, stop it, "
            "or start a run of its own without --resume"
        )

    def release(self) -> None:
        """Give the lock back; the file stays, empty, as removing it would let two runs in."""
        if self._file is not None:
            self._write(None)
            self._file.close()
            self._file = None
            _held.pop(self._key, None)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process that a lock names lives on this machine."""
    process = owner.get("process")
    if owner.get("host") != platform.node() or not isinstance(process, int):
        return False
    return process_lives(process)


def process_lives(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is someone else's
        return True
    return True
