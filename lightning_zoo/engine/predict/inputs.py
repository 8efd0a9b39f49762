"""What is predicted on: files, folders and patterns become a list, and are read ahead."""

from __future__ import annotations

import glob
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.transforms.decode import EXTENSIONS, DecodeError
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS

T = TypeVar("T")
END = object()
# What a model can be given: the files' extensions, and what one of them is called.
KINDS = {"images": (EXTENSIONS, "an image"), "videos": (VIDEO_EXTENSIONS, "a video")}


def kind_of(file: Path) -> str | None:
    """Return what a file is by its extension, None for anything else."""
    extension = file.suffix[1:].lower()
    return next((kind for kind, (known, _) in KINDS.items() if extension in known), None)


def find_files(
    inputs: Sequence[str | Path],
    *kinds: str,
    user: str = "this model",
    leave_out: Path | None = None,
) -> list[Path]:
    """Return the files that are named, lie in folders or fit patterns; each once, in that order.

    Args:
        inputs: Files; folders, which are searched in depth; patterns such as ``photos/**/*.jpg``,
            for shells and scripts that do not replace them by names.
        kinds: ``images``, ``videos`` or both, by their extensions; both if left out. A file that
            is named stays whatever it is called.
        user: What they are for, for the error.
        leave_out: Folder within the inputs whose files do not count: what was written before.

    Raises:
        ZooError: If something named is not there, nothing is found, or only files of another kind.
    """
    kinds = kinds or tuple(KINDS)
    files: list[Path] = []
    named: set[Path] = set()
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            files += _in_folder(path, leave_out)
        elif path.is_file():
            files.append(path)
            named.add(path)
        elif glob.has_magic(str(item)):
            for match in _matches(str(item)):
                files += _in_folder(match, leave_out) if match.is_dir() else [match]
        else:
            raise _not_there(path)
    files = [file for file in dict.fromkeys(files) if file in named or kind_of(file)]
    found = [file for file in files if file in named or kind_of(file) in kinds]
    if any(kind_of(file) in (*kinds, None) for file in found):
        return found
    expected = " or ".join(", ".join(sorted(KINDS[kind][0])) for kind in kinds)
    if other := files and kind_of(files[0]):
        kind = " or ".join(kinds)
        raise ZooError(
            f"{user} takes {kind} ({expected}), and {str(files[0])!r} is {KINDS[other][1]}; "
            f"name {kind}, or another model"
        )
    shown = ", ".join(str(i) for i in inputs) or "nothing"
    raise ZooError(f"no {' or '.join(kinds)} in {shown}; expected {expected} files")


def _in_folder(folder: Path, leave_out: Path | None) -> list[Path]:
    """Return the images and videos in a folder, in depth, sorted."""
    out = leave_out.resolve() if leave_out is not None else None
    inside = out is not None and folder.resolve() in out.parents
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and kind_of(path) is not None
        and not (inside and out in path.resolve().parents)
    ]


def _matches(pattern: str) -> list[Path]:
    """Return what fits a pattern, sorted; files in all folders below for ``**``."""
    found = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
    if "**" in pattern:  # it fits folders too, whose files are there already
        found = [path for path in found if path.is_file()]
    if found:
        return found
    fixed = Path(*(part for part in _before_magic(Path(pattern).parts)))
    if not fixed.is_dir():
        raise _not_there(fixed, f" for the pattern {pattern!r}")
    endings = Counter(p.suffix.lower() for p in fixed.rglob("*") if p.is_file())
    holds = ", ".join(f"{n} {ending or 'other'}" for ending, n in endings.most_common(4))
    raise ZooError(f"no file fits {pattern!r}; {str(fixed)!r} holds {holds or 'nothing'}")


def _before_magic(parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _not_there(path: Path, why: str = "") -> ZooError:
    """Return the error for a path that is not there, with the nearest one that is."""
    there = path
    while not there.parent.is_dir():  # the first part of the path that is wrong
        there = there.parent
    guess = nearest(there.name, (p.name for p in there.parent.iterdir()))
    hint = ""
    if guess is not None:
        hint = f"; did you mean {there.parent / guess / path.relative_to(there)}?"
    elif there != path:
        hint = f"; there is no folder {there}"
    return ZooError(f"no file or folder at {str(path)!r}{why}{hint}")


def decoded(
    files: Iterable[Path], read: Callable[[Path], Any]
) -> Iterator[tuple[Path, Any | DecodeError]]:
    """Yield each file with its image, or with the error where it cannot be read."""
    for file in files:
        try:
            yield file, read(file)
        except DecodeError as error:
            yield file, error


def read_ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """Yield the items; a thread makes the next ``count`` of them while the caller works."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="read_ahead")  # one: they come in order
    pending: deque[Future[Any]] = deque()
    try:
        pending.extend(pool.submit(next, items, END) for _ in range(count))
        while (item := pending.popleft().result()) is not END:
            pending.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last one of what is left."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
