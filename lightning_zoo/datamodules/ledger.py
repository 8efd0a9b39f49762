"""The ledger of broken files: JSON lines that many workers append to, one line for each file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows; a file may then be named twice, and reading drops the second
    fcntl = None  # type: ignore[assignment]


def append_once(path: Path, *, file: str, error: str, split: str) -> bool:
    """Name a broken file in the ledger, unless its split's entry stands there already.

    The line is written whole under a lock, so any number of processes may call this.

    Returns:
        Whether a line was added.
    """
    return append_new(path, [{"file": file, "error": error, "split": split}]) == 1


def append_new(path: Path, entries: Sequence[dict[str, str]]) -> int:
    """Add those entries (``file``, ``error``, ``split``) that the ledger lacks.

    Returns:
        The number of lines that were added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as ledger:
        _lock(ledger)  # until the file is closed
        ledger.seek(0)
        known = {(entry.get("file"), entry.get("split")) for entry in _parse(ledger.read())}
        new = [entry for entry in entries if (entry["file"], entry["split"]) not in known]
        ledger.write(
            b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in new)
        )
    return len(new)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the ledger's entries, one for each file and split, in the order of discovery."""
    if not path.is_file():
        return []
    entries = _parse(path.read_bytes())
    return list({(entry.get("file"), entry.get("split")): entry for entry in entries}.values())


def _parse(data: bytes) -> list[dict[str, Any]]:
    entries = []
    for line in data.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # half a line, left by a machine that went down
            continue
    return entries


def _lock(file: IO[bytes]) -> None:
    if fcntl is not None and os.name == "posix":
        fcntl.flock(file, fcntl.LOCK_EX)
