"""The validation split that is made where there is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_zoo.formats import DataIndex, Item
from lightning_zoo.formats.splits import choose, make_splits

SINGLE = st.lists(st.integers(0, 4), min_size=2, max_size=60)
SEVERAL = st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=2, max_size=30)
SHARES = st.sampled_from([0.1, 0.2, 0.5])


def named(labels: list[int]) -> dict[str, tuple[int, ...]]:
    return {f"{i}.jpg": (label,) for i, label in enumerate(labels)}


@settings(deadline=None)
@given(SINGLE, SHARES, st.integers(0, 3))
def test_each_class_gives_its_share(labels: list[int], share: float, seed: int) -> None:
    files = named(labels)
    taken = choose(files, share, seed)
    for label in {*labels}:
        count = labels.count(label)
        chosen = sum(files[file] == (label,) for file in taken)
        if count > 1:
            assert chosen == min(max(round(share * count), 1), count - 1)
    assert 0 < len(taken) < len(labels)


@settings(deadline=None)
@given(SEVERAL, SHARES, st.integers(0, 3))
def test_no_single_move_puts_a_class_on_both_sides(
    labels: list[set[int]], share: float, seed: int
) -> None:
    files = {f"{i}.jpg": tuple(own) for i, own in enumerate(labels)}
    taken = choose(files, share, seed)

    def one_sided(val: set[str]) -> set[int]:
        total = [label for own in files.values() for label in own]
        found = [label for file in val for label in files[file]]
        return {c for c in {*total} if total.count(c) > 1 and found.count(c) in (0, total.count(c))}

    lacking = one_sided(taken)
    every = [label for own in files.values() for label in own]
    only = {file for file, own in files.items() if any(every.count(label) == 1 for label in own)}
    for file in files:
        if file in taken or file not in only:
            assert not one_sided(taken ^ {file}) < lacking


@settings(deadline=None)
@given(SEVERAL, st.integers(0, 3))
def test_the_only_image_of_a_class_is_for_training(labels: list[set[int]], seed: int) -> None:
    files = {f"{i}.jpg": tuple(own) for i, own in enumerate(labels)}
    every = [label for own in files.values() for label in own]
    only = {file for file, own in files.items() if any(every.count(label) == 1 for label in own)}
    taken = choose(files, 0.2, seed)
    if only != {*files}:
        assert not taken & only


@given(SINGLE, st.randoms())
def test_the_order_of_files_does_not_matter(labels: list[int], random: object) -> None:
    files = named(labels)
    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(files, 0.2, 0) == choose({file: files[file] for file in shuffled}, 0.2, 0)


def test_it_is_the_hash_that_decides() -> None:
    files = named([0] * 10)
    digests = sorted(files, key=lambda f: hashlib.sha256(f"7/{f}".encode()).hexdigest())
    assert choose(files, 0.3, 7) == {*digests[:3]}
    assert choose(files, 0.3, 8) != choose(files, 0.3, 7)


def test_more_files_move_few() -> None:
    before = choose(named([0] * 200), 0.2, 0)
    after = choose(named([0] * 210), 0.2, 0)
    assert len(before - after) <= 10


def index_of(splits: str, labels: list[int]) -> DataIndex:
    names = {"t": "train", "v": "val", "e": "test"}
    items = tuple(
        Item(f"{i}.jpg", names[s], labels=(label,))  # type: ignore[arg-type]
        for i, (s, label) in enumerate(zip(splits, labels, strict=True))
    )
    return DataIndex(Path(), "folders", "classification", ("a", "b"), items)


def test_what_is_printed() -> None:
    index = make_splits(index_of("t" * 10, [0] * 5 + [1] * 5), 0.2, 3)
    assert index.count("val") == [1, 1]
    assert index.count("train") == [4, 4]
    assert [item.split for item in index.items] == ["train"] * 8 + ["val"] * 2
    assert index.decisions == (
        "no validation split: 2 of 10 training images (20 %, seed 3, stratified by class) were "
        "taken for it; --val_share, --split_seed",
    )


def test_what_is_left_alone() -> None:
    for splits, share in (("tttv", 0.2), ("tttt", 0.0), ("eeee", 0.2)):
        index = index_of(splits, [0, 1, 0, 1])
        assert make_splits(index, share) is index
    lonely = make_splits(index_of("te", [0, 1]))
    assert lonely.splits == ("train", "test")
    assert "one of the training images only" in lonely.decisions[0]


def test_labels_from_elsewhere() -> None:
    items = tuple(Item(f"{i}.jpg", "train", mask=f"{i}.png") for i in range(10))
    index = DataIndex(Path(), "masks", "segmentation", ("a", "b"), items)
    assert "at random" in make_splits(index).decisions[0]
    labels = {f"{i}.jpg": (i // 5,) for i in range(10)}
    val = make_splits(index, labels=labels).of("val")
    assert sorted(labels[item.file][0] for item in val) == [0, 1]
