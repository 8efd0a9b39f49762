"""Damaged label files of every format: the data is checked, or refused in a sentence."""

import pytest
from hostile_media import encode, photo
from object_files import scenes, write_coco, write_voc, write_yolo
from sweep import sweep


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    for write in (write_coco, write_yolo, write_voc):
        write(folder / write.__name__, scenes(4, 2))
    table = folder / "table"
    table.mkdir()
    for i in range(6):
        (table / f"{i}.jpg").write_bytes(encode(photo().rotate(i), "JPEG"))
    rows = [f"{i}.jpg,{'ab'[i % 2]}" for i in range(6)]
    (table / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder


def assert_good(outcome, count):
    print(outcome)
    assert not outcome.bad, "\n".join(outcome.bad)
    assert outcome.kinds.total() == count
    assert outcome.kinds["refused"] > count / 20


def test_damaged_labels(roots):
    assert_good(sweep("labels", [str(roots)], 150), 150)


@pytest.mark.slow
def test_many_damaged_labels(roots):
    assert_good(sweep("labels", [str(roots)], 2000, first=1000), 2000)
