"""Files out of zip and tar archives, one by one, whoever made the archive.

Nothing is unpacked under a name that the archive chose: the caller is given names that stay within
a folder, and decides. What an archive claims is held against its own size, so that a small one
cannot fill the disk or the memory.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from lightning_zoo.errors import ZooError

# what an archive may become, in multiples of its own bytes and beside that; JSON shrinks to an 8th
MAX_RATIO, MAX_FREE = 20, 64 * 2**20
MAX_HEADER = 16 * 2**10  # bytes; searching a long one takes tarfile the square of its length
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, NotImplementedError,
    OverflowError, RecursionError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: Its name there, which does not lead out of a folder.
        size: Its bytes.
        content: Gives them, until the next member is asked for.
    """

    name: str
    size: int
    content: IO[bytes]


def zip_members(archive: Path) -> Iterator[Member]:
    """Yield the files of a zip; folders are passed over.

    Raises:
        ZooError: If a member is a link, a device or encrypted, its name would leave the target
            folder or is there twice, the members are far larger than the archive, or it is damaged.
    """
    total = archive.stat().st_size
    try:
        with zipfile.ZipFile(archive) as content:
            infos = content.infolist()
            if sum(info.compress_size for info in infos) > total:
                raise ZooError(f"refused {str(archive)!r}: its members share their bytes")
            if sum(info.file_size for info in infos) > MAX_RATIO * total + MAX_FREE:
                raise ZooError(f"refused {str(archive)!r}: {_bomb(total)}")
            seen: set[str] = set()
            for info in infos:
                _check_name(archive, info.filename, seen)
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind == stat.S_IFLNK:
                    raise refused(archive, info.filename, "it is a link")
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise refused(archive, info.filename, "it is a device")
                if info.flag_bits & 1:
                    raise refused(archive, info.filename, "it is encrypted")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    why = f"it is compressed by the method {info.compress_type}"
                    raise refused(archive, info.filename, why)
                if "\0" in info.orig_filename:
                    why = "its name holds a special character"
                    raise refused(archive, info.orig_filename, why)
                if info.is_dir():
                    continue
                with content.open(info) as file:
                    yield Member(info.filename, info.file_size, file)
    except ZooError:
        raise
    except (*DAMAGE, OSError) as error:
        raise _damaged(archive, error) from None


def tar_members(
    archive: Path, content: IO[bytes] | None = None, *, within: str = ""
) -> Iterator[Member]:
    """Yield the files of a tar, which may be compressed by gzip; folders are passed over.

    Args:
        archive: The archive, also for errors.
        content: A tar within the archive, not compressed; None reads the archive itself.
        within: Name of that inner tar, for errors.

    Raises:
        ZooError: If a member is a link or a device, its name would leave the target folder or is
            there twice, the members are far larger than the archive, or it is damaged.
    """
    seen: set[str] = set()
    try:
        with _Bounded(archive, content) as source, source.tar() as tar:
            while (member := tar.next()) is not None:
                _check_name(archive, member.name, seen, within)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    why = "it is a link or a device" if not member.isreg() else "it has holes"
                    raise refused(archive, member.name, why, within)
                file = tar.extractfile(member)
                if file is not None:
                    source.in_header = False
                    yield Member(member.name, member.size, file)
                    source.in_header = True
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
    except ZooError:
        raise
    except (*DAMAGE, OSError) as error:
        raise _damaged(archive, error) from None


def write(content: IO[bytes], size: int, path: Path) -> None:
    """Write a file so that it has its name only when it is whole; one that is there is kept.

    Raises:
        ZooError: If the archive ends before the file does.
    """
    if path.is_file() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(content, file)
    except DAMAGE as error:
        part.unlink()
        raise ZooError(
            f"the archive is damaged within {path.name} ({error or type(error).__name__}); "
            "download it again"
        ) from None
    if part.stat().st_size != size:
        raise ZooError(f"{path.name} ends after {part.stat().st_size} of {size} bytes")
    part.replace(path)


def refused(archive: Path, name: str, why: str, within: str = "") -> ZooError:
    """Return the error for a member that is not taken."""
    place = f"{str(archive)!r}" + (f", in {within}" if within else "")
    return ZooError(f"refused {_short(name)!r} of {place}: {why}")


def _check_name(archive: Path, name: str, seen: set[str], within: str = "") -> None:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
        raise refused(archive, name, "it would leave the target folder", within)
    if any(c in "\\:" or not c.isprintable() for c in name):
        raise refused(archive, name, "its name holds a special character", within)
    if name in seen:
        raise refused(archive, name, "it is there twice", within)
    seen.add(name)


def _damaged(archive: Path, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.filename is not None:
        return error  # the disk's error, which names its file
    said = str(error) or type(error).__name__
    return ZooError(f"{str(archive)!r} is damaged ({said}); download it again")


def _bomb(total: int) -> str:
    return f"it would become more than {MAX_RATIO} times its {total} bytes"


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:200]}..."


class _Bounded:
    """Reads a tar, compressed or not, as far as one of its size may reach.

    Attributes:
        in_header: Whether only headers are to be read now, which are short.
    """

    def __init__(self, archive: Path, content: IO[bytes] | None) -> None:
        self.in_header = True
        self._archive = archive
        self._total = archive.stat().st_size
        self._end = MAX_RATIO * self._total + MAX_FREE
        self._opened: list[IO[bytes]] = []
        if content is None:
            content = archive.open("rb")
            self._opened.append(content)
            compressed = content.read(2) == b"\x1f\x8b"
            content.seek(0)
            if compressed:
                content = cast(IO[bytes], gzip.GzipFile(fileobj=content))
                self._opened.append(content)
        self._stream = content

    def __enter__(self) -> _Bounded:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in reversed(self._opened):
            stream.close()

    def tar(self) -> tarfile.TarFile:
        """Return what reads it."""
        return tarfile.open(fileobj=cast(IO[bytes], self), mode="r:")

    def read(self, size: int) -> bytes:
        """Return bytes, as tarfile asks for them."""
        if self.in_header and size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, from the start."""
        self._check(position)
        return self._stream.seek(position, whence)

    def seekable(self) -> bool:
        """Tell that it can."""
        return True

    def tell(self) -> int:
        """Return the place."""
        return self._stream.tell()

    def _check(self, position: int) -> None:
        if position > self._end:
            raise ZooError(f"refused {str(self._archive)!r}: {_bomb(self._total)}")
