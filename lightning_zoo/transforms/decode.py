"""Read an image file as RGB: OpenCV's speed where it is proved to give Pillow's bytes, else Pillow.

The published accuracies were measured on what ``Image.open(file).convert("RGB")`` gives, so that is
what every file becomes here, also where it is surprising: alpha is dropped, not blended; EXIF
rotation is not applied; 16-bit grey PNG is cut off at 255, hence mostly white (convert such files
beforehand). JPEG (grey and colour) and PNG of up to 8 bits go through OpenCV and are bit-identical;
CMYK, 16-bit, WebP, BMP, TIFF and whatever looks damaged are Pillow's.
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
        image = _opencv(data)
        if image is not None:
            return image
    return _pillow(data, name, max_pixels)


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
            with Image.open(io.BytesIO(data)) as image:
                _check_size((image.height, image.width), name, max_pixels)
                with warnings.catch_warnings():
                    # transparency is dropped on purpose, as the reference did
                    warnings.simplefilter("ignore", UserWarning)
                    return np.array(image.convert("RGB"))
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(name, "it is no image that Pillow knows") from None
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


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of the files that OpenCV decodes as Pillow does, None for others."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) > 33 and data[24] <= 8:
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
