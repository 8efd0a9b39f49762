"""Read mask files exactly: the index of a palette, the value of a grey pixel, or its colour."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import KINDS, MAX_PIXELS, UNKNOWN, DecodeError

Pixels = NDArray[np.uint8]
VOID = 255  # a pixel that is no class
STRANGE = 254  # stands for a value that no class has
MOST_CLASSES = 254
VOID_NAME = "void"
Values = Mapping[str, int | Sequence[int]]


class MaskFileError(DecodeError):
    """A mask file that cannot be read, or holds what it should not.

    Attributes:
        reason: What is wrong, with the file's name: ledgers list the image.
    """

    kind = "mask"

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.reason = f"its mask {os.path.basename(file)!r}: {reason}"


def read_label_map(path: str | os.PathLike[str], *, colours: bool = False) -> NDArray[Any]:
    """Return the values of a mask file as they are stored.

    Palette files give the index, grey ones the value (of 1 to 16 bits, not spread to 255); both
    are (H, W) of uint8 or a wider integer. Colour files give uint8 (H, W, 3), RGB.

    Args:
        path: The file: PNG, or another without loss that Pillow knows.
        colours: Return the colours of palette and grey files too.

    Raises:
        MaskFileError: If the file is missing, damaged, no image or of another kind.
    """
    from PIL import Image, UnidentifiedImageError

    file = os.fspath(path)
    try:
        with Image.open(file, formats=KINDS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MaskFileError(
                    file, f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}"
                )
            if image.format == "JPEG":
                raise MaskFileError(file, "JPEG changes values; masks are to be PNG")
            if colours or image.mode in ("RGB", "RGBA"):
                return np.array(image.convert("RGB"))
            if image.mode == "1":
                return np.array(image).astype(np.uint8)
            if image.mode not in ("P", "L", "I", "I;16", "I;16B"):
                raise MaskFileError(file, f"its pixels are of Pillow's mode {image.mode}; expected "
                                    "a palette, grey of up to 16 bits, or RGB")  # fmt: skip
            # Pillow spreads grey of 2 and 4 bits to 255, and names the bits in the raw mode
            spread = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args)) if image.tile else None
            values = np.array(image)
            return values if spread is None else values // spread
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise MaskFileError(file, UNKNOWN) from None
    except OSError as error:
        raise MaskFileError(file, error.strerror or str(error)) from None
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise MaskFileError(file, f"{type(error).__name__}: {error}") from None


class MaskReader:
    """Reads the mask of an image as class ids, and refuses what no class has.

    Args:
        classes: Names of the classes, in the order of the labels.
        values: Value, or values, of each name in the files; None: the values are the labels.
        colors: RGB of each name, for files in colour; None where they hold values.
        ignore_index: Value that becomes void, beside the name ``void``; None for none.
        way_out: What a person can do about a value that no class has, for the error.
        colors_from: Where the colours are given, for the error.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        values: Values | None = None,
        colors: Mapping[str, Sequence[int]] | None = None,
        ignore_index: int | None = None,
        way_out: str = "",
        colors_from: str = "--data.colors",
    ) -> None:
        labels = {VOID_NAME: VOID} | {name: label for label, name in enumerate(classes)}
        self.way_out = way_out
        self.colors_from = colors_from
        self.classes = len(classes)
        self.table = np.full(256, STRANGE, np.uint8)  # the label of each value
        given = {name: i for i, name in enumerate(classes)} if values is None else values
        for name, listed in given.items():
            for value in _as_list(listed):
                self.table[value] = labels[name]
        if ignore_index is not None:
            self.table[ignore_index] = VOID
        self.colors: list[int] = []
        if colors is not None:
            codes = {_code(colour): labels[name] for name, colour in colors.items()}
            self.colors = sorted(codes)
            self.color_labels = np.array([codes[code] for code in self.colors], np.uint8)

    def __call__(self, path: str, size: tuple[int, int]) -> Pixels:
        """Return the mask, uint8 (H, W), 255 for void.

        Args:
            path: The file.
            size: Height and width that it must have in pixels.

        Raises:
            MaskFileError: If it cannot be read, has another size, or holds a strange value.
        """
        found = read_label_map(path, colours=bool(self.colors))
        if found.shape[:2] != size:
            raise MaskFileError(
                path,
                f"it has {found.shape[0]} x {found.shape[1]} pixels (height x width) and its image "
                f"has {size[0]} x {size[1]}",
            )
        if self.colors:
            return self._from_colours(found, path)
        if found.ndim == 3:
            raise MaskFileError(
                path,
                f"it is in colour, such as {_some_colours(found)}, and expected is a class index "
                f"at each pixel: say by {self.colors_from} what the colours mean (NAME: r, g, b), "
                "or save masks with a palette or in grey",
            )
        import cv2

        if found.dtype != np.uint8:
            outside = (found < 0) | (found > 255)
            if outside.any():
                raise self._strange(found, outside, path)
            found = found.astype(np.uint8)
        labels = np.asarray(cv2.LUT(found, self.table), np.uint8)
        strange = labels == STRANGE
        if strange.any():
            raise self._strange(found, strange, path)
        return labels

    def _from_colours(self, found: Pixels, path: str) -> Pixels:
        wide = found.astype(np.int32)
        codes = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        at = np.searchsorted(self.colors[1:], codes, side="right")
        strange = np.asarray(self.colors)[at] != codes
        if strange.any():
            raise MaskFileError(
                path,
                f"{int(strange.sum())} of {strange.size} pixels have a colour that is not among "
                f"the {len(self.colors)} of {self.colors_from}, such as "
                f"{_some_colours(found[strange][None])}; add it (the name {VOID_NAME} is ignored)",
            )
        return self.color_labels[at]

    def _strange(self, found: NDArray[Any], strange: NDArray[np.bool_], path: str) -> MaskFileError:
        first = int(found[strange][0])
        known = np.flatnonzero(self.table != STRANGE).tolist()
        listed = ", ".join(map(str, known[:3])) + (f" ... {known[-1]}" if len(known) > 3 else "")
        return MaskFileError(
            path,
            f"it holds the value {first} at {int((found == first).sum())} of {found.size} pixels, "
            f"and the {self.classes} classes have the values {listed}"
            + (f"; {self.way_out.replace('VALUE', str(first))}" if self.way_out else ""),
        )


def check_values(
    classes: Sequence[str] | None,
    values: Values | None,
    colors: Mapping[str, Sequence[int]] | None,
    ignore_index: int | None,
) -> list[str] | None:
    """Return the names of the classes that the arguments give, None where they give none.

    Raises:
        ZooError: If the arguments make no sense together.
    """
    if values is not None and colors is not None:
        raise ZooError("data.label_values is for masks of values and data.colors for masks in "
                       "colour; set one of the two to null")  # fmt: skip
    seen: set[int] = set()
    for name, listed in (values or {}).items():
        for value in _as_list(listed):
            if type(value) is not int or not 0 <= value <= 255 or value in seen:
                raise ZooError(
                    f"label_values has {value!r} for {name!r}; expected values from 0 to 255, each "
                    "once: {background: 0, object: 255}"
                )
            seen.add(value)
    for name, colour in (colors or {}).items():
        if len(colour) != 3 or not all(type(n) is int and 0 <= n <= 255 for n in colour):
            raise ZooError(f"colors has {colour!r} for {name!r}; expected [r, g, b], 0 to 255 each")
    if colors is not None and len({_code(colour) for colour in colors.values()}) < len(colors):
        raise ZooError("colors has one colour for two names; expected another for each")
    if ignore_index is not None and not 0 <= ignore_index <= 255:
        raise ZooError(f"ignore_index is {ignore_index}; expected a value from 0 to 255, or null")
    given = None
    if values is not None or colors is not None:
        given = list(values if values is not None else colors or ())
    names = list(classes) if classes is not None else given
    if names is None:
        return None
    if classes is None:
        names = [name for name in names if name != VOID_NAME]
    elif unknown := [n for n in given or () if n not in names and n != VOID_NAME]:
        argument = "label_values" if values is not None else "colors"
        raise ZooError(f"{argument} names {unknown[0]!r}, which is not among the classes "
                       f"{', '.join(names)}")  # fmt: skip
    if len(names) != len(set(names)) or not 1 <= len(names) <= MOST_CLASSES:
        raise ZooError(
            f"there are {len(names)} classes, {len(set(names))} of them different; expected 1 to "
            f"{MOST_CLASSES} different names"
        )
    return names


def _as_list(values: int | Sequence[int]) -> Sequence[int]:
    return [values] if isinstance(values, int) else values


def _code(colour: Sequence[int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _some_colours(found: NDArray[Any]) -> str:
    listed = np.unique(found.reshape(-1, 3), axis=0)[:3].tolist()
    return ", ".join(map(str, listed))
