"""Which code runs: the git revision, read from ``.git`` itself, and a digest of the source.

No process is started: git's own answer would take one for each question.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def source_digest(package: Path) -> str:
    """Return the start of a SHA-256 over a package's Python files, wherever it is installed.

    Two runs with the same digest ran the same code, with changes that nobody committed or without.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def revision(folder: Path) -> str | None:
    """Return the commit that a checkout stands at.

    Args:
        folder: The checkout's top folder.

    Returns:
        The commit's name in hexadecimal; None where the folder is no checkout or has no commit.
    """
    with contextlib.suppress(OSError, ValueError):
        return _resolve("HEAD", *_git_folders(folder))
    return None


def _git_folders(folder: Path) -> tuple[Path, Path]:
    """Return the git folder of this checkout, and the one that it shares with other worktrees."""
    own = folder / ".git"
    if own.is_file():  # a worktree or a submodule
        own = folder / own.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
    common = own / "commondir"
    return own, own / common.read_text(encoding="utf-8").strip() if common.is_file() else own


def _resolve(ref: str, own: Path, common: Path, depth: int = 5) -> str | None:
    """Return the commit that a reference names in the end."""
    for folder in (own, common):
        if (folder / ref).is_file():
            text = (folder / ref).read_text(encoding="utf-8").strip()
            if text.startswith("ref:"):
                target = text.removeprefix("ref:").strip()
                return _resolve(target, own, common, depth - 1) if depth else None
            return text if _OBJECT.fullmatch(text) else None
    if (common / "packed-refs").is_file():
        for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
            name, _, found = line.partition(" ")
            if found == ref and _OBJECT.fullmatch(name):
                return name
    return None
