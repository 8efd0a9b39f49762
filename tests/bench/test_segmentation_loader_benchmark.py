"""The benchmark runs, both ways give the same, and its rows can be written as JSON."""

import json

import pytest
import torch

from lightning_zoo.bench.segmentation_loader import segmentation_loader_benchmark
from lightning_zoo.errors import ZooError

# pycocotools 2.0.11 defines __array__ without the copy keyword of NumPy 2:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_rows():
    threads = torch.get_num_threads()
    rows = list(segmentation_loader_benchmark(None, images=3, repeats=1))
    assert [row["pipeline"] for row in rows] == [
        f"{stage}, {kind}" for kind in ("COCO polygons", "PNG masks") for stage in ("train", "eval")
    ]
    for row in rows:
        assert row["max_difference"] <= (1 if "train" in row["pipeline"] else 0)
        assert row["max_mask_difference"] == 0
        assert row["ours_images_per_s"] > 0
        assert json.loads(json.dumps(row)) == row
    assert torch.get_num_threads() == threads


def test_no_photo(tmp_path):
    with pytest.raises(ZooError, match=r"no \.jpg or \.jpeg"):
        next(segmentation_loader_benchmark(tmp_path))
