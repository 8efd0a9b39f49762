"""Damaged files from whole ones: what a bad disk, a bad copy or a bad person makes of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG = b"\x89PNG\r\n\x1a\n"


def mutate(data: bytes, rng: np.random.Generator, donor: bytes = b"") -> bytes:
    """Return a file with 1 to 8 kinds of damage; the checksums of a PNG are mostly made right.

    Args:
        data: A whole file.
        rng: Where the damage comes from.
        donor: Another file, of which parts may be taken.
    """
    out = bytearray(data)
    # where nothing moves, a container's table of contents still leads to the damaged parts
    in_place = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.9 else 8):
        if out:
            _damage(out, rng, donor, in_place)
    if data.startswith(PNG) and rng.random() < 0.8:
        return with_checksums(bytes(out))
    return bytes(out)


def _damage(out: bytearray, rng: np.random.Generator, donor: bytes, in_place: bool) -> None:
    # often near the start, where the headers of images are, but seldom in the first bytes
    reach = len(out) if rng.random() < 0.7 else min(len(out), 400)
    at = int(rng.integers(min(16, reach - 1), reach)) if rng.random() < 0.95 else 0
    kind = int(rng.integers(6 if in_place else 10))
    size = int(rng.integers(1, 64))
    here = min(size, len(out) - at)
    start = int(rng.integers(len(donor))) if donor else 0
    if kind == 0:
        out[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        out[at] = int(rng.integers(256))
    elif kind == 2:  # a number that is as large as can be, or negative
        width = (1, 2, 4)[int(rng.integers(3))]
        value = EXTREMES[int(rng.integers(len(EXTREMES)))] % (1 << 8 * width)
        number = value.to_bytes(width, "big" if rng.random() < 0.7 else "little")
        out[at : at + width] = number[: len(out) - at]
    elif kind == 3:
        out[at : at + here] = rng.bytes(here)
    elif kind == 4:
        out[at : at + here] = bytes(here)
    elif kind == 5:
        part = donor[start : start + here] or bytes(here)
        out[at : at + len(part)] = part
    elif kind == 6:
        del out[at : at + size]
    elif kind == 7:
        out[at:at] = out[at : at + size]
    elif kind == 8:
        out[at:at] = rng.bytes(size)
    else:
        del out[at:]


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have right checksums, so that a decoder looks into them."""
    out, at = bytearray(data), len(PNG)
    while at + 12 <= len(out):
        (length,) = struct.unpack(">I", out[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)
