"""Read an image file as RGB: OpenCV's speed where it is proved to give Pillow's bytes, else Pillow.

The published accuracies were measured on what ``Image.open(file).convert("RGB")`` gives, so that is
what every file becomes here, also where it is surprising: alpha is dropped, not blended; EXIF
rotation is not applied; 16-bit grey PNG is cut off at 255, hence mostly white (convert such files
beforehand). JPEG (grey and colour) and PNG of up to 8 bits go through OpenCV and are bit-identical;
CMYK, 16-bit, WebP, BMP, TIFF and whatever looks damaged are Pillow's.

A file may mean harm. What it says of its size is checked before anything is decoded, and files of
other kinds than these are never opened: one that is called .jpg and holds PostScript would have
Pillow start Ghostscript.
"""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.errors import ZooError

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"})
MAX_PIXELS = 178_956_970  # Pillow refuses from here on; 512 MiB as RGB
MAX_SLOW_PIXELS = 100_000_000  # of files that OpenCV does not read: up to 21 bytes a pixel
# what Pillow may take a file for, whatever its name says
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
UNKNOWN = "it is no image of a known kind (JPEG, PNG, WebP, BMP, TIFF, GIF, PPM)"
# pixels that a byte can hold: of JPEG 8 blocks of 64, one bit each; Deflate makes 1032 bytes of one
_JPEG_PIXELS, _DEFLATE_BYTES = 520, 1040
_MAX_PASSES = 16 * MAX_PIXELS  # pixels times scans of a progressive JPEG; real ones have about 10
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

# markers that may stand between the scans of a JPEG (B.1.1.3 of ITU-T T.81)
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_PNG = b"\x89PNG\r\n\x1a\n"


class DecodeError(ZooError):
    """A file that cannot be read as an image.

    Attributes:
        reason: What is wrong with it, without the file's name.
    """

    kind = "image"

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"cannot read the {self.kind} {file!r}: {reason}")
        self.reason = reason


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return an image file as RGB, uint8 (H, W, 3).

    Args:
        path: The file.
        max_pixels: Larger images (height x width) are refused before they are decoded.

    Raises:
        DecodeError: If the file is missing, empty, truncated, corrupt, no image or too large.
    """
    file = os.fspath(path)
    try:
        with open(file, "rb", buffering=0) as stream:
            data = stream.read()
    except OSError as error:
        raise DecodeError(file, error.strerror or str(error)) from None
    return decode_image(data, name=file, max_pixels=max_pixels)


def decode_image(
    data: bytes, *, name: str = "<bytes>", max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return an encoded image as RGB, uint8 (H, W, 3).

    Args:
        data: The file's content.
        name: The file's name, for errors.
        max_pixels: Larger images (height x width) are refused before they are decoded.

    Raises:
        DecodeError: If the data is empty, truncated, corrupt, no image or too large.
    """
    if not data:
        raise DecodeError(name, "the file is empty")
    size = _plain_size(data)
    if size is not None:
        _check_size(size, name, max_pixels)
        _check_content(data, size, name)
        image = _opencv(data)
        if image is not None:
            return image
        if size[0] * size[1] > MAX_SLOW_PIXELS:
            raise DecodeError(name, "it is damaged")
    return _pillow(data, name, min(max_pixels, MAX_SLOW_PIXELS))


def _opencv(data: bytes) -> NDArray[np.uint8] | None:
    """Decode with OpenCV; None where it will not."""
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return image


def _pillow(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit decides
            with Image.open(io.BytesIO(data), formats=KINDS) as image:
                size = image.height, image.width
                _check_size(size, name, max_pixels)
                _check_content(data, size, name)
                with warnings.catch_warnings():
                    # transparency is dropped on purpose, as the reference did
                    warnings.simplefilter("ignore", UserWarning)
                    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(name, UNKNOWN) from None
    except Image.DecompressionBombError as error:
        raise DecodeError(name, str(error)) from None
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise DecodeError(name, f"{type(error).__name__}: {error}") from None


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise DecodeError(
            name,
            f"{width} x {height} pixels are more than the limit of {max_pixels}; scale it down",
        )


def _check_content(data: bytes, size: tuple[int, int], name: str) -> None:
    """Refuse a JPEG or PNG that claims more pixels, or more work, than its bytes can hold."""
    height, width = size
    if data.startswith(b"\xff\xd8\xff"):
        room = _JPEG_PIXELS * len(data)
        scans = data.count(b"\xff\xda")  # and those of small pictures in its header
        if scans * height * width > _MAX_PASSES:
            raise DecodeError(name, f"its {width} x {height} pixels are stored in {scans} passes")
    elif data.startswith(_PNG) and len(data) > 26:
        bits = data[24] * _PNG_CHANNELS.get(data[25], 1)
        room = 8 * _DEFLATE_BYTES * len(data) // max(bits, 1)
    else:
        return
    if height * width > room:
        raise DecodeError(
            name, f"its {len(data)} bytes cannot hold {width} x {height} pixels; it is damaged"
        )


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of the files that OpenCV decodes as Pillow does, None for others."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(_PNG):
        return _png_size(data)
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a still PNG of at most 8 bits whose chunks all lie in the file.

    OpenCV makes room for what a chunk claims, up to 4 GiB, before it reads any of it.
    """
    if data[12:16] != b"IHDR" or len(data) < 33 or data[24] > 8:
        return None
    position = 8
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        if kind == b"acTL":  # animated
            return None
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if kind == b"IEND" and position <= len(data):
            return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a sound 8-bit JPEG of one or three components."""
    size = None
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = data[position + 4 : position + 10]
            if marker > 0xC2 or len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3):
                return None
            size = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
        position += 2 + length
        if marker == 0xDA:
            return size if size is not None and _ends_well(data, position) else None
    return None


def _ends_well(data: bytes, position: int) -> bool:
    """Tell whether only known markers stand between the first scan and the end of the image.

    Others mean damage, which OpenCV fills with grey in silence and Pillow refuses.
    """
    scan = np.frombuffer(data, np.uint8)[position:]
    places = np.flatnonzero(scan[:-1] == 0xFF)
    after = scan[places + 1]
    inside = (after == 0) | (after == 0xFF) | ((after >= 0xD0) & (after <= 0xD7))
    skip = 0
    for place, marker in zip(places[~inside].tolist(), after[~inside].tolist(), strict=True):
        if place < skip:  # within the segment of the marker before
            continue
        if marker == 0xD9:
            return True
        if marker not in _BETWEEN_SCANS:
            return False
        skip = place + 2 + int.from_bytes(scan[place + 2 : place + 4].tobytes(), "big")
    return False
