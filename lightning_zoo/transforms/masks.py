"""Masks of objects, kept as polygons or run lengths until the last moment, and then decoded once.

COCO's run lengths go down the columns and begin with the zeros. Compressed, each is written in
base 32 from its low digit on, as the difference to the one two before. pycocotools decodes them in
C and trusts them blindly, so that a damaged one writes over foreign memory, and a few thousand
polygons can keep it busy for hours: here every one is checked before anybody's C may see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.transforms.decode import MAX_PIXELS

FARTHEST = 1e5  # pixels; C walks along a polygon's edges in fifths of a pixel
MAX_AROUND = 2_000_000  # pixels around all polygons of a mask; C takes 40 bytes for each
MAX_WORK = 500_000_000  # C merges polygons one by one, each with all that went before
_POLYGONS, _POLYGONS_CENTI, _RLE = b"D", b"P", b"R"


class MaskError(ValueError):
    """A polygon or run-length encoding that may not be decoded; the text says what is wrong.

    Attributes:
        degenerate: Whether it is merely empty, such as a polygon of two points.
    """

    def __init__(self, what: str, *, degenerate: bool = False) -> None:
        super().__init__(what)
        self.degenerate = degenerate


def rle_runs(counts: bytes) -> NDArray[np.int64]:
    """Return the lengths of the runs in a compressed RLE, which may be negative if it is damaged.

    Raises:
        MaskError: If the string does not spell numbers.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(codes):
        raise MaskError("the RLE is empty")
    if codes.min() < 0 or codes.max() > 63:
        raise MaskError("the RLE holds a character that is not between '0' and 'o'")
    ends = np.flatnonzero(codes < 32)  # the bit of 32 says that another digit follows
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise MaskError("the RLE is truncated: it ends within a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > 7:
        raise MaskError("the RLE holds a number of more than 35 bits")
    place = np.arange(len(codes)) - np.repeat(starts, digits)
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << (5 * digits), 0)  # two's complement
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def check_rle(rle: Any, height: int, width: int) -> bytes:
    """Return a COCO RLE's compressed counts, proved to fill a mask of ``(height, width)`` exactly.

    Args:
        rle: Dictionary of ``size`` and ``counts``: compressed (str, bytes) or a list of numbers.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        MaskError: If it is damaged or of another size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise MaskError(f"the RLE has the size {size!r}; expected that of the image, "
                        f"[{height}, {width}]")  # fmt: skip
    if isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
        except UnicodeEncodeError:
            raise MaskError("the RLE holds a character that is not between '0' and 'o'") from None
    if isinstance(counts, bytes):
        runs = rle_runs(counts)
    elif isinstance(counts, list) and all(type(n) is int and abs(n) < 2**35 for n in counts):
        runs = np.array(counts, np.int64)
    else:
        raise MaskError(f"the RLE's counts are {_short(counts)}; expected a string or a list of "
                        "whole numbers")  # fmt: skip
    if len(runs) and runs.min() < 0:
        raise MaskError(f"the RLE has a run of {runs.min()} pixels")
    # one run alone may not be too long either: a sum beyond 64 bits could come out right again
    total = int(runs.sum() if not len(runs) or runs.max() <= height * width else runs.max())
    if total != height * width:
        how = "oversized" if total > height * width else "truncated"
        raise MaskError(f"the RLE is {how}: its runs fill {total} of {height} x {width} pixels")
    return counts if isinstance(counts, bytes) else compress(runs.tolist())


def compress(runs: Sequence[int]) -> bytes:
    """Return the compressed counts of run lengths."""
    out = bytearray()
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            digit = value & 31
            value >>= 5
            last = value == (-1 if digit & 16 else 0)
            out.append(48 + digit + (0 if last else 32))
            if last:
                break
    return bytes(out)


def pack(segmentation: Any, height: int, width: int) -> bytes:
    """Return a COCO segmentation in the few bytes that :class:`Masks` takes, after checking it.

    Coordinates of at most two decimals, as COCO's, take four bytes without any loss.

    Args:
        segmentation: Polygons ``[[x, y, ...], ...]`` in pixels, or an RLE of either kind.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        MaskError: If it cannot be decoded safely, or there is nothing in it.
    """
    if height * width > MAX_PIXELS:
        raise MaskError(f"the image has {height} x {width} pixels, more than {MAX_PIXELS}")
    if isinstance(segmentation, dict):
        return _RLE + check_rle(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise MaskError(f"segmentation is {_short(segmentation)}; expected polygons or an RLE")
    lengths, numbers = [], []
    for polygon in segmentation:
        if not isinstance(polygon, list):
            raise MaskError(f"a polygon is {_short(polygon)}; expected a list of numbers")
        if len(polygon) % 2:
            raise MaskError(f"a polygon has {len(polygon)} numbers; expected pairs of x and y")
        lengths.append(len(polygon))
        numbers += polygon
    if not {*map(type, numbers)} <= {float, int}:
        raise MaskError("a polygon holds something that is no number")
    # Python's own functions are faster than NumPy's on so few numbers; the sum tells of NaN
    if numbers and not (
        max(numbers) <= FARTHEST and min(numbers) >= -FARTHEST and math.isfinite(sum(numbers))
    ):
        raise MaskError(f"a polygon's coordinate is no number from -{FARTHEST:g} to {FARTHEST:g}")
    if any(length < 6 for length in lengths) or not lengths:
        raise MaskError("a polygon has fewer than three points", degenerate=True)
    # a bound of what C will do; only where it is large, a better one is worth its time
    work = len(numbers) * (max(numbers) - min(numbers)) + 4 * len(lengths)
    if work * len(lengths) > MAX_AROUND:
        _check_work(segmentation)
    flat = np.array(numbers, np.float64)
    head = np.array([len(lengths), *lengths], np.int32).tobytes()
    centi = np.rint(flat * 100).astype(np.int32)
    if (centi / 100 == flat).all():
        return _POLYGONS_CENTI + head + centi.tobytes()
    return _POLYGONS + head + flat.tobytes()


def _check_work(polygons: list[list[float]]) -> None:
    """Refuse polygons that would take C long, or more memory than there is."""
    around = 0.0
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        around += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    count = len(polygons)
    if around > MAX_AROUND or count * (around + 4 * count) > MAX_WORK:
        raise MaskError(f"{count} polygons of {around:.0f} pixels around are too many to decode")


def without_degenerate(segmentation: Any) -> Any:
    """Return a segmentation without its polygons of fewer than three points."""
    if not isinstance(segmentation, list):
        return segmentation
    return [polygon for polygon in segmentation if len(polygon) >= 6]


def to_rle(packed: bytes, height: int, width: int) -> dict[str, Any]:
    """Return the compressed RLE (``size``, ``counts``) of what :func:`pack` gave; b"" is empty.

    Polygons outside the image are clipped as pycocotools does.
    """
    if not packed:
        return {"size": [height, width], "counts": compress([height * width])}
    kind, rest = packed[:1], packed[1:]
    if kind == _RLE:
        return {"size": [height, width], "counts": rest}
    from pycocotools import mask as coco_mask

    count = int(np.frombuffer(rest, np.int32, 1)[0])
    lengths = np.frombuffer(rest, np.int32, count, offset=4)
    offset = 4 + 4 * count
    if kind == _POLYGONS_CENTI:
        flat = np.frombuffer(rest, np.int32, offset=offset) / 100
    else:
        flat = np.frombuffer(rest, np.float64, offset=offset)
    polygons = [p.tolist() for p in np.split(flat, np.cumsum(lengths)[:-1])]
    rle: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return rle


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the columns, uint8 (W, H), of an RLE that :func:`to_rle` gave.

    Only the ones are written, run by run: faster than pycocotools, and bound by the array.
    """
    height, width = rle["size"]
    columns = np.zeros(height * width, np.uint8)
    ends = np.cumsum(rle_runs(rle["counts"])).tolist()
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        columns[start:end] = 1
    return columns.reshape(width, height)


def rle_area(rle: Mapping[str, Any]) -> int:
    """Return the pixels of an RLE that :func:`to_rle` gave."""
    return int(rle_runs(rle["counts"])[1::2].sum())


def repack(rle: Mapping[str, Any]) -> bytes:
    """Return what :class:`Masks` takes for an RLE that :func:`to_rle` gave."""
    return _RLE + bytes(rle["counts"])


class Masks:
    """The masks of an image's objects, not decoded yet; flipped and cut without decoding.

    Args:
        packed: One :func:`pack` result for each object; b"" is an empty mask.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Attributes:
        changed: Whether a part of a mask may have been cut off.
    """

    def __init__(self, packed: Iterable[bytes], height: int, width: int) -> None:
        self._packed = list(packed)
        self._source = height, width
        # the frame that is seen and the part of it that may hold objects, as x0 y0 x1 y1 in the
        # source's pixels
        self._frame = self._open = (0, 0, width, height)
        self._flipped = False
        self.changed = False

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the decoded masks in pixels."""
        x0, y0, x1, y1 = self._frame
        return y1 - y0, x1 - x0

    def keep(self, rows: Iterable[int]) -> Masks:
        """Return the masks of some objects, in the order of ``rows``."""
        return self._copy(packed=[self._packed[int(row)] for row in rows])

    def flip(self) -> Masks:
        """Return the masks of the mirrored image."""
        return self._copy(flipped=not self._flipped)

    def window(self, left: int, top: int, width: int, height: int) -> Masks:
        """Return the masks of a cut-out, which may stick out of the image; outside is 0.

        Args:
            left: First column, in pixels of the present frame; negative outside of it.
            top: First row.
            width: Width of the cut-out.
            height: Height of the cut-out.
        """
        x0, y0, x1, _ = self._frame
        x = x1 - left - width if self._flipped else x0 + left
        frame = (x, y0 + top, x + width, y0 + top + height)
        x0, y0, x1, y1 = self._open
        seen = max(x0, frame[0]), max(y0, frame[1]), min(x1, frame[2]), min(y1, frame[3])
        return self._copy(frame=frame, seen=seen)

    def decode(self) -> NDArray[np.uint8]:
        """Return the masks, uint8 (M, H, W) of 0 and 1."""
        import cv2

        out = np.zeros((len(self), *self.size), np.uint8)
        x0, y0, x1, y1 = self._open
        if x0 >= x1 or y0 >= y1:
            return out
        left = self._frame[2] - x1 if self._flipped else x0 - self._frame[0]
        top = y0 - self._frame[1]
        whole = self._open == (0, 0, *self._source[::-1]) and self._open == self._frame
        for mask, packed in zip(out, self._packed, strict=True):
            # columns, (W, H) in memory, where mirroring is a change of the rows' order
            columns = decode_rle(to_rle(packed, *self._source))[x0:x1, y0:y1]
            if self._flipped:
                columns = columns[::-1]
            if whole:
                cv2.transpose(np.ascontiguousarray(columns), dst=mask)
            else:
                mask[top : top + y1 - y0, left : left + x1 - x0] = columns.T
        return out

    def _copy(
        self,
        *,
        packed: list[bytes] | None = None,
        frame: tuple[int, int, int, int] | None = None,
        seen: tuple[int, int, int, int] | None = None,
        flipped: bool | None = None,
    ) -> Masks:
        other = Masks(self._packed if packed is None else packed, *self._source)
        other._frame = self._frame if frame is None else frame
        other._open = self._open if seen is None else seen
        other._flipped = self._flipped if flipped is None else flipped
        other.changed = self.changed or other._open != (0, 0, *self._source[::-1])
        return other


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
