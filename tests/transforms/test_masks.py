"""Masks are decoded as pycocotools does, flipped and cut without decoding, and checked before."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lightning_zoo.transforms.masks import (
    MaskError,
    Masks,
    check_rle,
    compress,
    pack,
    rle_runs,
    to_rle,
    without_degenerate,
)

# pycocotools 2.0.11 defines __array__ without the copy keyword of NumPy 2:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def random_mask(rng, height, width, density=0.5):
    coarse = rng.random((height // 3 + 1, width // 3 + 1)) < density
    return np.kron(coarse, np.ones((3, 3)))[:height, :width].astype(np.uint8)


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def runs_of(mask):
    runs, value, count = [], 0, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(count)
            value, count = pixel, 0
        count += 1
    return [*runs, count]


def decode(segmentation, height, width):
    return Masks([pack(segmentation, height, width)], height, width).decode()[0]


def test_an_rle_by_hand():
    # columns of a 3 x 4 mask: 000 011 110 000, so 4 zeros, 4 ones, 4 zeros
    mask = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]], np.uint8)
    assert compress([4, 4, 4]) == b"444"
    assert rle_runs(b"444").tolist() == [4, 4, 4]
    for counts in ("444", [4, 4, 4], b"444"):
        assert decode({"size": [3, 4], "counts": counts}, 3, 4).tolist() == mask.tolist()
    # from the fourth run on the difference to the one two before is written: 2 - 5 = -3 -> 'M'
    assert compress([1, 5, 1, 2, 3]) == b"151M2"
    assert rle_runs(b"151M2").tolist() == [1, 5, 1, 2, 3]


def test_a_polygon_by_hand():
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    expected = np.zeros((5, 6), np.uint8)
    expected[1:3, 1:4] = 1
    assert decode(square, 5, 6).tolist() == expected.tolist()


def test_rles_as_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(n) for n in rng.integers(1, 60, 2))
        mask = random_mask(rng, height, width, rng.random())
        rle = compressed(mask)
        runs = runs_of(mask)
        assert rle_runs(rle["counts"].encode()).tolist() == runs
        assert compress(runs).decode() == rle["counts"]
        assert np.array_equal(decode(rle, height, width), mask)
        assert np.array_equal(decode({**rle, "counts": runs}, height, width), mask)


def test_long_runs():
    for height, width in ((1, 1), (4000, 5000)):
        empty = to_rle(b"", height, width)
        assert rle_runs(empty["counts"]).tolist() == [height * width]
        assert not coco_mask.decode(empty).any()


def test_polygons_as_pycocotools():
    rng = np.random.default_rng(1)
    for case in range(200):
        height, width = (int(n) for n in rng.integers(5, 90, 2))
        # also far outside, where pycocotools clips
        polygons = [
            rng.uniform(-60, 120, 2 * int(rng.integers(3, 9))).round(case % 4).tolist()
            for _ in range(int(rng.integers(1, 4)))
        ]
        packed = pack(polygons, height, width)
        assert len(packed) <= 1 + 4 + sum(4 + (4 if case % 4 < 3 else 8) * len(p) for p in polygons)
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        assert to_rle(packed, height, width) == rle
        assert np.array_equal(Masks([packed], height, width).decode()[0], coco_mask.decode(rle))


RLE = compressed(np.tri(7, 9, dtype=np.uint8))
DAMAGED = [
    ({**RLE, "counts": "0" + RLE["counts"] + "99"}, "oversized|run of"),
    ({**RLE, "counts": [64]}, "oversized: its runs fill 64 of 7 x 9 pixels"),
    ({**RLE, "counts": [0, 10**9]}, "oversized"),
    ({**RLE, "counts": [2**34] * 40}, "oversized"),
    ({**RLE, "counts": [10**30]}, "expected a string or a list of whole numbers"),
    ({**RLE, "counts": [70, -7]}, "run of -7"),
    ({**RLE, "counts": [1, 2]}, "truncated: its runs fill 3"),
    ({**RLE, "counts": RLE["counts"][:3]}, "truncated"),
    ({**RLE, "counts": []}, "truncated"),
    ({**RLE, "counts": ""}, "empty"),
    ({**RLE, "counts": RLE["counts"] + "o"}, "ends within a number"),
    ({**RLE, "counts": "oooooooo0"}, "more than 35 bits"),
    ({**RLE, "counts": "1 2"}, "character"),
    ({**RLE, "counts": "1\u20ac"}, "character"),
    ({**RLE, "counts": "~1"}, "character"),
    ({**RLE, "counts": [1.5, 61.5]}, "whole numbers"),
    ({**RLE, "counts": None}, "None"),
    ({**RLE, "size": [9, 7]}, r"size \[9, 7\]; expected that of the image, \[7, 9\]"),
    ({**RLE, "size": "79"}, "size"),
    ({"counts": RLE["counts"]}, "size None"),
    ({}, "size None"),
    ("abc", "'abc'; expected polygons or an RLE"),
    (None, "None; expected polygons"),
    ([1, 2, 3, 4, 5, 6], "a polygon is 1; expected a list"),
    ([[1, 2, 3, 4, 5]], "5 numbers; expected pairs"),
    ([[1, 2, 3, 4, 5, "6"]], "no number"),
    ([[1, 2, 3, 4, 5, None]], "no number"),
    ([[1, 2, 3, 4, 5, True]], "no number"),
    ([[1, 2, 3, 4, 5, float("nan")]], "coordinate is no number"),
    ([[1, 2, 3, 4, 5, 1e9]], "coordinate is no number from -100000"),
    ([[1, 2, 3, 4, 5, 10**400]], "coordinate"),
]  # fmt: skip


@pytest.mark.parametrize(("segmentation", "text"), DAMAGED)
def test_damaged_masks_never_reach_c(segmentation, text):
    with pytest.raises(MaskError, match=text) as caught:
        pack(segmentation, 7, 9)
    assert not caught.value.degenerate


@pytest.mark.parametrize("segmentation", [[], [[]], [[1, 2, 3, 4]], [[0, 0, 5, 0, 5, 5], [1, 2]]])
def test_too_few_points(segmentation):
    with pytest.raises(MaskError, match="fewer than three points") as caught:
        pack(segmentation, 7, 9)
    assert caught.value.degenerate
    assert without_degenerate(segmentation) == [p for p in segmentation if len(p) > 5]


def test_random_strings_are_refused_or_right():
    rng = np.random.default_rng(2)
    good = 0
    for _ in range(3000):
        counts = bytes(rng.integers(40, 115, int(rng.integers(0, 6))).astype(np.uint8))
        try:
            checked = check_rle({"size": [3, 5], "counts": counts}, 3, 5)
        except MaskError:
            continue
        good += 1
        rle = {"size": [3, 5], "counts": checked}
        assert coco_mask.decode(rle).sum() == rle_runs(counts)[1::2].sum()
    assert good > 5


def moved(masks, left, top, width, height):
    out = np.zeros((len(masks), height, width), np.uint8)
    rows, columns = masks.shape[1:]
    for y in range(height):
        for x in range(width):
            if 0 <= y + top < rows and 0 <= x + left < columns:
                out[:, y, x] = masks[:, y + top, x + left]
    return out


def test_any_order_of_flips_and_windows():
    rng = np.random.default_rng(3)
    for _ in range(150):
        height, width = (int(n) for n in rng.integers(4, 20, 2))
        plain = np.stack([random_mask(rng, height, width) for _ in range(3)])
        masks = Masks([pack(compressed(m), height, width) for m in plain], height, width)
        for _ in range(int(rng.integers(0, 5))):
            kind = rng.integers(3)
            if kind == 0:
                masks, plain = masks.flip(), plain[..., ::-1]
            elif kind == 1 and len(plain):
                rows = rng.permutation(len(plain))[: max(1, len(plain) - 1)]
                masks, plain = masks.keep(rows), plain[rows]
            else:
                left, top = (int(n) for n in rng.integers(-6, 8, 2))
                w, h = (int(n) for n in rng.integers(1, 20, 2))
                masks, plain = masks.window(left, top, w, h), moved(plain, left, top, w, h)
        assert masks.size == plain.shape[1:]
        assert np.array_equal(masks.decode(), plain)
        assert masks.decode().flags.c_contiguous


def test_what_a_crop_drops_is_never_decoded():
    broken = b"Rnothing that could be decoded"
    masks = Masks([broken, pack(RLE, 7, 9), broken], 7, 9).keep(np.array([1])).flip()
    assert np.array_equal(masks.decode()[0], np.tri(7, 9, dtype=np.uint8)[:, ::-1])


def test_no_mask():
    assert Masks([], 7, 9).decode().shape == (0, 7, 9)
    assert Masks([], 7, 9).window(2, 2, 3, 4).flip().decode().shape == (0, 4, 3)


def test_changed():
    masks = Masks([pack(RLE, 7, 9)], 7, 9)
    assert not masks.flip().changed
    assert not masks.window(-3, -3, 20, 20).flip().changed
    assert masks.window(1, 0, 8, 7).changed
    assert masks.window(1, 0, 8, 7).window(-1, 0, 9, 7).keep([0]).changed
