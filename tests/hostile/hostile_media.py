"""Whole images and videos to damage, and files that claim far more than they hold."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
from mutations import with_checksums
from PIL import Image
from videos import moving, write_video


def photo(width: int = 67, height: int = 45) -> Image.Image:
    """Return a picture of smooth colours."""
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def write_images(folder: Path) -> Path:
    """Write JPEG and PNG files of many kinds."""
    folder.mkdir()
    picture, exif = photo(), Image.Exif()
    exif[0x0112] = 6
    palette = picture.convert("P")
    files = {
        **{f"{q}_{s}.jpg": encode(picture, "JPEG", quality=q, subsampling=s)
           for q, s in ((20, 2), (75, 1), (95, 0))},
        "progressive.jpg": encode(picture, "JPEG", progressive=True, exif=exif),
        "restarts.jpg": encode(picture, "JPEG", restart_marker_blocks=3, comment=b"\xff\xd9 hello"),
        "grey.jpg": encode(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        **{f"{m}.png": encode(picture.convert(m), "PNG") for m in ("RGB", "L", "1", "LA", "RGBA")},
        "palette.png": encode(palette, "PNG", transparency=bytes(range(200))),
        "few.png": encode(picture.quantize(4), "PNG", bits=2),
        "sixteen.png": encode(picture.convert("I;16"), "PNG"),
        "animated.png": encode(
            picture, "PNG", save_all=True, append_images=[picture.rotate(90), picture.rotate(180)]
        ),
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def write_others(folder: Path) -> Path:
    """Write images of the other kinds."""
    folder.mkdir()
    picture = photo()
    more = {"save_all": True, "append_images": [picture.rotate(90)]}
    for name, kind, options in (
        ("a.webp", "WEBP", {}), ("b.webp", "WEBP", {"lossless": True}), ("c.webp", "WEBP", more),
        ("a.bmp", "BMP", {}), ("a.gif", "GIF", more), ("a.ppm", "PPM", {}), ("a.tif", "TIFF", {}),
        *((f"{c}.tif", "TIFF", {"compression": c})
          for c in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ):  # fmt: skip
        (folder / name).write_bytes(encode(picture, kind, **options))
    grey = picture.convert("1")
    (folder / "fax.tif").write_bytes(encode(grey, "TIFF", compression="group4"))
    return folder


def write_videos(folder: Path) -> Path:
    """Write MP4 files of several codecs, one of them in fragments."""
    folder.mkdir()
    clip = moving(16)
    write_video(folder / "h264.mp4", clip)
    write_video(folder / "sound.mov", clip, bframes=0, audio=True)
    write_video(folder / "mpeg4.mp4", clip, codec="mpeg4")
    write_video(folder / "turned.mp4", clip[:4], pts=[0, 1, 4, 9])
    options = {"movflags": "frag_keyframe+empty_moov"}
    with (
        av.open(str(folder / "h264.mp4")) as old,
        av.open(str(folder / "fragments.mp4"), "w", options=options) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return folder


# --- files that claim more than they hold ---


def png_of(width: int, height: int, data: bytes | None = None) -> bytes:
    """Return a PNG with another size in its header."""
    out = bytearray(data or encode(photo(), "PNG"))
    out[16:24] = struct.pack(">II", width, height)
    return with_checksums(bytes(out))


def png_with_long_chunk(length: int) -> bytes:
    """Return a PNG with a chunk that claims a length."""
    data = encode(photo(), "PNG")
    return data[:33] + struct.pack(">I", length) + b"tEXt" + b"a\0b" + data[33:]


def jpeg_of(width: int, height: int, data: bytes | None = None) -> bytes:
    """Return a JPEG with another size in its frame header."""
    out = bytearray(data or encode(photo(), "JPEG"))
    at = max(out.find(b"\xff\xc0"), out.find(b"\xff\xc2"))
    out[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(out)


def jpeg_of_many_scans(scans: int) -> bytes:
    """Return a JPEG of 64 million pixels whose last scan is there so many times: hours of work."""
    data = encode(Image.new("RGB", (8000, 8000)), "JPEG", quality=10, progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def box(name: bytes, *parts: bytes) -> bytes:
    """Return a part of an MP4."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def full(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """Return a part with version and flags."""
    return box(name, struct.pack(">I", flags), *parts)


def u32(*values: int) -> bytes:
    """Return numbers of 32 bits."""
    return struct.pack(f">{len(values)}I", *values)


OFFSET = 36  # of the pictures in the files below
_MATRIX = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(
    frame: bytes, *, width: int = 64, height: int = 48, times: int = 1, frames: int | None = None,
    size: int | None = None, chunks: int = 1, seconds: int = 1, ticks: int = 30, edits: int = 0,
    runs: int = 0, run_length: int = 0,
) -> bytes:  # fmt: skip
    """Return an MP4 of JPEG pictures, and tables that need not be true.

    Args:
        frame: A JPEG file.
        width: Pixels that the header tells.
        height: Likewise.
        times: How often the picture is there.
        frames: How many frames the table claims; None: the truth.
        size: Bytes of each; None: the truth.
        chunks: How many chunks lie at the one place, sharing the frames.
        seconds: Ticks from frame to frame.
        ticks: Ticks a second.
        edits: How many times the whole is repeated.
        runs: Fragments behind it, each claiming ``run_length`` frames.
        run_length: See there.
    """
    frames = times if frames is None else frames
    size = len(frame) if size is None else size
    entry = (
        bytes(6) + b"\0\1" + bytes(16) + struct.pack(">HH", width, height)
        + u32(0x480000, 0x480000, 0) + b"\0\1" + bytes(32) + b"\0\x18\xff\xff"
    )  # fmt: skip
    each = frames // chunks
    table = box(
        b"stbl",
        full(b"stsd", u32(1), box(b"jpeg", entry)),
        full(b"stts", u32(1, frames, seconds)),
        full(b"stsc", u32(1, 1, each, 1)),
        full(b"stsz", u32(size, frames)),
        full(b"stco", u32(chunks, *[OFFSET] * chunks)),
    )
    source = box(b"dinf", full(b"dref", u32(1), full(b"url ", flags=1)))
    media = box(
        b"mdia",
        full(b"mdhd", u32(0, 0, ticks, 100, 0x55C40000)),
        full(b"hdlr", u32(0), b"vide", bytes(12), b"v\0"),
        box(b"minf", full(b"vmhd", bytes(8), flags=1), source, table),
    )
    listed = b""
    if edits:
        listed = box(b"edts", full(b"elst", u32(edits), u32(frames * seconds, 0, 0x10000) * edits))
    header = full(
        b"tkhd", u32(0, 0, 1, 0, 100), bytes(16), _MATRIX, u32(width << 16, height << 16), flags=3
    )
    movie = full(b"mvhd", u32(0, 0, ticks, 100, 0x10000, 0x1000000, 0, 0), _MATRIX, bytes(24),
                 u32(2))  # fmt: skip
    extends = box(b"mvex", full(b"trex", u32(1, 1, 1, size, 0))) if runs else b""
    run = box(
        b"moof",
        full(b"mfhd", u32(1)),
        box(
            b"traf",
            full(b"tfhd", u32(1), struct.pack(">Q", OFFSET), u32(1, 1, 0x2000000), flags=57),
            full(b"trun", u32(run_length, 0), flags=1),
        ),
    )
    start = box(b"ftyp", b"isom", u32(0x200), b"isomiso2mp41")
    return (
        start + box(b"mdat", frame * times)
        + box(b"moov", movie, box(b"trak", header, listed, media), extends) + run * runs
    )  # fmt: skip
