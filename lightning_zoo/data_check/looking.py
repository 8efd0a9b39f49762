"""Every image is read once, as training reads it, and what is worth remembering is kept."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.transforms.decode import KINDS, DecodeError, decode_image

ORIENTATION = 0x0112  # EXIF's tag
THUMBNAIL = 16  # side in pixels

Given = TypeVar("Given")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen in one image file.

    Attributes:
        error: Why it cannot be read; the rest is empty then.
        width: Width in pixels as it is stored.
        height: Height, likewise.
        orientation: EXIF's orientation, 1 to 8; 1 is upright.
        file_hash: Of its bytes.
        pixel_hash: Of its decoded pixels.
        gradients: The 64 bits of its difference hash: whether each of 8 x 8 cells is brighter than
            its left neighbour (http://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That).
        thumbnail: uint8 (16, 16), grey.
    """

    error: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    file_hash: bytes = b""
    pixel_hash: bytes = b""
    gradients: NDArray[np.bool_] | None = None
    thumbnail: NDArray[np.uint8] | None = None


def look_at(path: str | os.PathLike[str]) -> Look:
    """Read an image file."""
    try:
        with open(path, "rb", buffering=0) as stream:
            data = stream.read()
        image = decode_image(data, name=os.fspath(path))
    except OSError as error:
        return Look(error=error.strerror or str(error))
    except DecodeError as error:
        return Look(error=error.reason)
    thumbnail, gradients = small_views(image)
    pixels = hashlib.blake2b(image.data, digest_size=16)
    pixels.update(str(image.shape).encode())
    return Look(
        width=image.shape[1],
        height=image.shape[0],
        orientation=orientation(data),
        file_hash=hashlib.blake2b(data, digest_size=16).digest(),
        pixel_hash=pixels.digest(),
        gradients=gradients,
        thumbnail=thumbnail,
    )


def small_views(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return an RGB image's thumbnail, uint8 (16, 16), and the bits of its difference hash (64)."""
    import cv2

    grey = cv2.cvtColor(cv2.resize(image, (72, 64), interpolation=cv2.INTER_AREA),
                        cv2.COLOR_RGB2GRAY).astype(np.float32)  # fmt: skip
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    cells: NDArray[np.float32] = grey.reshape(8, 8, 9, 8).mean(axis=(1, 3))  # (8, 9)
    return np.rint(thumbnail).astype(np.uint8), (cells[:, 1:] > cells[:, :-1]).ravel()


def orientation(data: bytes) -> int:
    """Return EXIF's orientation of an encoded image, 1 where it has none."""
    if b"Exif" not in data and b"eXIf" not in data:
        return 1
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=KINDS) as image:
            value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's plugins raise nearly everything on damaged files
        return 1
    return value if value in range(1, 9) else 1


def look_at_all(
    root: Path, files: Sequence[str], *, workers: int, progress: bool
) -> dict[str, Look]:
    """Return what is seen in each file, given relative to ``root``."""
    found = each(lambda file: look_at(root / file), files, "reading images", workers, progress)
    return dict(zip(files, found, strict=True))


def each(
    function: Callable[[Given], Found],
    values: Sequence[Given],
    what: str,
    workers: int,
    progress: bool,
) -> list[Found]:
    """Return the function's value of each, from several threads, with a bar on a terminal.

    Decoding and hashing run outside of Python's lock, so that threads do.
    """
    if workers <= 1 or len(values) < 2:
        return list(_shown(map(function, values), len(values), what, progress))
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(_shown(pool.map(function, values), len(values), what, progress))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _shown(found: Iterable[Any], total: int, what: str, progress: bool) -> Iterable[Any]:
    if not progress or not sys.stderr.isatty():
        return found
    from rich.console import Console
    from rich.progress import track

    return track(found, what, total=total, console=Console(stderr=True), transient=True)


def all_cores() -> int:
    """Return the number of cores that this process may use, at most 16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(count or 1, 16)
