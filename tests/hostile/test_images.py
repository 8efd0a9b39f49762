"""Damaged images: each is read or refused in a sentence, whatever happened to its bytes."""

import numpy as np
import pytest
from hostile_media import write_images, write_others
from mutations import PNG, mutate, with_checksums
from sweep import sweep

MEGABYTES = 1024


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "plain")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return write_others(tmp_path_factory.mktemp("images") / "others")


def assert_good(outcome, count):
    print(outcome)
    assert not outcome.bad, "\n".join(outcome.bad)
    assert outcome.kinds.total() == count
    assert outcome.peak[0] < MEGABYTES
    assert outcome.kinds["read"] > count / 50  # damage that is seen in the pixels alone
    assert outcome.kinds["refused"] > count / 5


def test_a_sweep_sees_crashes_hangs_and_strange_errors():
    outcome = sweep("crash", [], 7, wait=3)
    assert [text.partition(":")[0] for text in outcome.bad] == [
        "number 1 ends the process with -11", "number 2 hangs for 3 s", "number 3",
    ]  # fmt: skip
    assert outcome.kinds == {"read": 3, "refused": 1, "other error": 1}
    assert outcome.peak[0] > 128
    assert outcome.peak[1] == 4


def test_mutations_are_repeatable_and_reach_the_decoder(images):
    data = (images / "RGB.png").read_bytes()
    assert with_checksums(data) == data
    damaged = [mutate(data, np.random.default_rng(i)) for i in range(200)]
    assert damaged == [mutate(data, np.random.default_rng(i)) for i in range(200)]
    assert len(set(damaged)) > 190
    sound = [d for d in damaged if d.startswith(PNG) and with_checksums(d) == d]
    assert len(sound) > 100


def test_damaged_images(images):
    assert_good(sweep("image", [str(images)], 2000), 2000)


def test_all_that_reads_images(images, others, tmp_path):
    for folder in (images, others):
        outcome = sweep("image_everywhere", [str(folder), str(tmp_path)], 300)
        assert_good(outcome, 300)


@pytest.mark.slow
def test_many_damaged_images(images):
    assert_good(sweep("image", [str(images)], 50_000, first=10_000), 50_000)


@pytest.mark.slow
def test_many_other_images(others, tmp_path):
    outcome = sweep("image_everywhere", [str(others), str(tmp_path)], 20_000, first=10_000)
    assert_good(outcome, 20_000)
