"""Damaged run lengths and polygons, which C would follow out of its memory or for hours."""

import time

import numpy as np
import pytest
from sweep import sweep

from lightning_zoo.datamodules.coco_dataset import MAX_MASK_BYTES, CocoDataset
from lightning_zoo.datamodules.coco_index import make_index
from lightning_zoo.transforms.decode import DecodeError
from lightning_zoo.transforms.masks import MAX_AROUND, MaskError, Masks, compress, pack, rle_runs


def test_damaged_masks():
    """A hundred thousand, through an annotation file's index and back to pixels."""
    outcome = sweep("rle", ["1000"], 100)
    print(outcome)
    assert not outcome.bad, "\n".join(outcome.bad)
    assert outcome.kinds == {"read": 100}
    assert outcome.peak[0] < 512


@pytest.mark.slow
def test_many_damaged_masks():
    outcome = sweep("rle", ["1000"], 1000, first=1000)
    assert not outcome.bad, "\n".join(outcome.bad)
    assert outcome.kinds == {"read": 1000}


def test_a_sum_that_comes_out_right_modulo_64_bits():
    height, width = 20, 30
    total = 2**64 + height * width
    count = 48_500  # runs of ones that each grow by less than 2 ** 34, as 7 characters can say
    step = total // (count * (count + 1) // 2)
    ones = [step * (i + 1) for i in range(count)]
    ones[-1] += total - sum(ones)
    runs = [run for one in ones for run in (0, one)]
    counts = compress(runs)
    assert rle_runs(counts).tolist() == runs
    assert int(rle_runs(counts).sum()) == height * width  # which is wrong
    with pytest.raises(MaskError, match="the RLE is oversized"):
        pack({"size": [height, width], "counts": counts}, height, width)


SPIKES = [float(n) for i in range(20_000) for n in (i % 2 * 90_000, i % 640)]
TINY = [[1.0, 1.0, 2.0, 1.0, 2.0, 2.0]] * 20_000


@pytest.mark.parametrize("polygons", [[SPIKES], TINY, [[0.0, 0.0, 9e4, 9e4, 0.0, 9e4]] * 50])
def test_polygons_that_take_hours(polygons):
    start = time.process_time()
    with pytest.raises(MaskError, match="pixels around are too many to decode"):
        pack(polygons, 480, 640)
    assert time.process_time() - start < 2


def test_large_masks_that_are_meant():
    around = np.linspace(0, 2 * np.pi, 20_000)
    circle = np.stack([5000 + 4000 * np.cos(around), 5000 + 4000 * np.sin(around)], axis=1)
    (mask,) = Masks([pack([circle.ravel().tolist()], 10_000, 10_000)], 10_000, 10_000).decode()
    assert mask.mean() == pytest.approx(np.pi * 0.4**2, rel=1e-3)
    crowd = [[10.0 * i, 5.0, 10.0 * i + 8, 5.0, 10.0 * i + 8, 13.0] for i in range(300)]
    assert pack(crowd, 480, 3000)
    assert MAX_AROUND > 20 * 2 * (6000 + 4000)  # twenty times the outline of a large photo


def test_images_that_are_too_large_for_masks():
    rle = {"size": [10**6, 10**6], "counts": compress([10**12])}
    with pytest.raises(MaskError, match="1000000 x 1000000 pixels, more than"):
        pack(rle, 10**6, 10**6)


def test_more_masks_than_fit_into_memory(monkeypatch):
    size, count = 4000, MAX_MASK_BYTES // 4000**2 + 1
    empty = {"size": [size, size], "counts": compress([size * size])}
    image = {"id": 1, "file_name": "a.jpg", "height": size, "width": size}
    annotation = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": empty}
    index = make_index(
        {"images": [image], "annotations": [dict(annotation) for _ in range(count)]},
        "a.json", labels={1: 1}, target="masks",
    )  # fmt: skip
    data = CocoDataset("train", "photos", index, np.zeros(1, np.int64))
    pixels = np.zeros((size, size, 3), np.uint8)
    monkeypatch.setattr("lightning_zoo.datamodules.coco_dataset.read_image", lambda path: pixels)
    with pytest.raises(DecodeError, match=r"a\.jpg': its 269 masks of 4000 x 4000 pixels take"):
        data.load(0, np.random.default_rng(0))
