"""The benchmark runs, compares like with like, and its rows can be written as JSON."""

import json

import pytest
import torch

from lightning_zoo.bench.loader import loader_benchmark
from lightning_zoo.errors import ZooError


def test_rows():
    threads = torch.get_num_threads()
    rows = list(loader_benchmark(None, images=3, repeats=1))
    assert [row["pipeline"] for row in rows] == ["train", "eval", "eval, torch's resize"]
    assert rows[0]["max_difference"] <= 2
    assert rows[1]["max_difference"] == 0
    for row in rows:
        assert row["images"] == 3
        assert row["ours_images_per_s"] > 0
        assert json.loads(json.dumps(row)) == row
    assert torch.get_num_threads() == threads


def test_no_photo(tmp_path):
    with pytest.raises(ZooError, match=r"no \.jpg or \.jpeg"):
        next(loader_benchmark(tmp_path))
