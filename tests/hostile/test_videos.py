"""Damaged videos: looked through, sought in and streamed, or refused in a sentence."""

import pytest
from hostile_media import write_videos
from sweep import sweep

MEGABYTES = 1024


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos") / "mp4")


def assert_good(outcome, count):
    print(outcome)
    assert not outcome.bad, "\n".join(outcome.bad)
    assert outcome.kinds.total() == count
    assert outcome.peak[0] < MEGABYTES
    assert min(outcome.kinds["read"], outcome.kinds["refused"]) > count / 10


def test_damaged_videos(videos, tmp_path):
    assert_good(sweep("video", [str(videos), str(tmp_path)], 200), 200)


@pytest.mark.slow
def test_many_damaged_videos(videos, tmp_path):
    assert_good(sweep("video", [str(videos), str(tmp_path)], 2000, first=1000), 2000)
