"""The benchmark of the index runs, reads the same objects on both sides, and gives JSON rows."""

import json
from pathlib import Path

import pytest

from lightning_zoo.bench.coco_index import coco_index_benchmark, write_synthetic
from lightning_zoo.datamodules.coco_index import read_index

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").is_file(), reason="Linux tells a process's own memory"
)


@needs_proc
@pytest.mark.slow
def test_rows():
    ours, naive, both = coco_index_benchmark(images=3000, annotations=24000, workers=2)
    assert (ours["dataset"], naive["dataset"]) == ("ours", "list of dicts")
    assert ours["objects"] == 24000
    assert naive["objects"] == 24000
    assert both["ratio"] <= both["goal"]
    assert both["reached"]
    for row in (ours, naive, both):
        assert json.loads(json.dumps(row)) == row


def test_the_synthetic_file_is_sound(tmp_path):
    write_synthetic(tmp_path / "x.json", 20, 170)
    index = read_index(tmp_path / "x.json", labels={i: i for i in range(1, 81)}, target="masks")
    assert (len(index), len(index.ids)) == (20, 170)
    assert index.problems == []
    assert index.usable.all()
    # 20 points as hundredths of a pixel, one kind, one count and one length
    assert len(index.segments) == 170 * (1 + 4 + 4 + 40 * 4)
