"""How many frames the tables of an MP4 claim, before FFmpeg makes room for each of them.

A few bytes can claim a billion frames of one size, or have a thousand edits repeat each frame, and
FFmpeg spends 24 bytes and some time on every one when it opens the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

MAX_TABLE = 2**28  # bytes of a part that is no picture; a day of video has about 2**24
_PICTURES = frozenset({b"mdat", b"free", b"skip", b"wide"})
_COUNTS = {b"stsz": 12, b"stz2": 12, b"trun": 8}  # where the number of frames stands behind a name


def exaggeration(file: str) -> str | None:
    """Return what a file claims and cannot hold, None for a sound file or one that is no MP4."""
    total = os.path.getsize(file)
    frames = edits = 0
    with open(file, "rb") as stream:
        for part in _tables(stream, total):
            if part is None:
                return f"a table of more than {MAX_TABLE >> 20} MiB"
            if b"cmov" in part:
                return "a compressed table, which may be of any size"
            for name, offset in _COUNTS.items():
                frames += sum(_numbers(part, name, offset))
            edits = max([edits, *_numbers(part, b"elst", 8)])
    if frames > total:  # a frame takes a byte at least
        return f"{frames} frames"
    # each edit may repeat all frames; editors write a few of them, most files one or two
    if edits > 2 and edits * frames > total:
        return f"{edits} edits of {frames} frames"
    return None


def _tables(stream: IO[bytes], total: int) -> Iterator[bytes | None]:
    """Yield the file's parts (boxes of ISO/IEC 14496-12) without pictures; None if one is huge."""
    at = 0
    while at + 8 <= total:
        stream.seek(at)
        head = stream.read(16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:  # to the end
            size = total - at
        if size < 8 or (at == 0 and not name.isalnum()):
            return
        if name not in _PICTURES:
            length = min(size, total - at)
            if length > MAX_TABLE:
                yield None
                return
            stream.seek(at)
            yield stream.read(length)
        at += size


def _numbers(part: bytes, name: bytes, offset: int) -> Iterator[int]:
    """Yield the 32-bit numbers that stand behind a name, wherever it is."""
    at = part.find(name)
    while at >= 0:
        yield int.from_bytes(part[at + offset : at + offset + 4], "big")
        at = part.find(name, at + 4)
