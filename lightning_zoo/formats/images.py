"""What an image file says of itself, without decoding its pixels."""

from __future__ import annotations

import os
import warnings

from lightning_zoo.transforms.decode import KINDS, UNKNOWN, DecodeError


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return width and height in pixels from a file's header; EXIF rotation is not applied.

    Raises:
        DecodeError: If the file is missing, empty or no image; damage further on is not seen.
    """
    from PIL import Image, UnidentifiedImageError

    file = os.fspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large image: whoever decodes it will say so
            with Image.open(file, formats=KINDS) as image:
                return image.size
    except OSError as error:  # Pillow's "no image" is one too
        if isinstance(error, UnidentifiedImageError):
            empty = os.path.getsize(file) == 0
            reason = "the file is empty" if empty else UNKNOWN
        else:
            reason = error.strerror or str(error)
        raise DecodeError(file, reason) from None
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise DecodeError(file, f"{type(error).__name__}: {error}") from None
