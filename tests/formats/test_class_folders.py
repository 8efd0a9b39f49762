"""Class folders of images: what is taken for a class, splits, and what is said about mistakes."""

import os
from pathlib import Path

import pytest

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import class_folders, read_data, video_folders

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LIGHTNING_ZOO_SHARED", ROOT.parent / "shared"))


def touch(root, *names):
    """Make empty files: reading folders never opens one."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(index):
    return [(i.split, i.file, *(index.classes[n] for n in i.labels)) for i in index.items]


def problems(index):
    return [(p.severity, p.kind, p.where) for p in index.problems]


def read(root):
    return class_folders.read(root, None)


def test_splits_as_found(tmp_path):
    touch(tmp_path, "train/bee/1.jpg", "train/ant/2.PNG", "train/ant/deep/er/3.jpeg",
          "valid/ant/4.jpg", "valid/bee/5.jpg", "test/ant/6.webp")  # fmt: skip
    assert class_folders.recognise(tmp_path) == (
        "class folders of images (test/ant/, train/ant/, train/bee/, valid/ant/ and 1 more)"
    )
    index = read_data(tmp_path)
    assert (index.format, index.task, index.classes) == (
        "folders", "classification", ("ant", "bee")
    )  # fmt: skip
    assert found(index) == [
        ("train", "train/ant/2.PNG", "ant"),
        ("train", "train/ant/deep/er/3.jpeg", "ant"),
        ("train", "train/bee/1.jpg", "bee"),
        ("val", "valid/ant/4.jpg", "ant"),
        ("val", "valid/bee/5.jpg", "bee"),
        ("test", "test/ant/6.webp", "ant"),
    ]
    assert not index.problems
    assert not index.multilabel
    assert index.decisions[1:] == (
        "2 classes, the folders' names: ant, bee",
        "splits as found: train (3 images), val (2 images), test (1 image)",
    )


@pytest.mark.parametrize("base", ["", "images/"])
def test_without_splits_one_is_made(tmp_path, base):
    touch(tmp_path, *(f"{base}{name}/{i}.jpg" for name in ("ant", "bee") for i in range(5)))
    index = read_data(tmp_path)
    assert {s: index.count(s) for s in ("train", "val")} == {"train": [4, 4], "val": [1, 1]}
    assert any("2 of 10 training images" in said for said in index.decisions)
    assert read_data(tmp_path) == index
    assert read_data(tmp_path, val_share=0).splits == ("train",)


@pytest.mark.parametrize(
    "names",
    [
        ["images/1.jpg", "labels/1.txt"],
        ["images/train/1.jpg", "labels/train/1.txt"],
        ["train/images/1.jpg", "train/labels/1.txt", "val/images/2.jpg"],
        ["train2017/1.jpg", "val2017/2.jpg", "annotations/instances_train2017.json"],
        ["JPEGImages/1.jpg", "Annotations/1.xml", "SegmentationClass/1.png"],
        ["train/1.jpg", "train_labels/1.png", "val/2.jpg", "val_masks/2.png"],
        ["cells/1.jpg", "cells/1.xml", "more/2.jpg", "more/2.xml"],
        ["pictures/1.jpg", "labels.csv"],
        ["coco/train/1.jpg", "voc/JPEGImages/1.jpg", "voc/Annotations/1.xml"],
        ["ant/1.mp4", "bee/2.mp4"],
        ["notes/1.txt"],
        ["1.jpg", "2.jpg"],
    ],
    ids=" ".join,
)
def test_others_are_no_class_folders(tmp_path, names):
    touch(tmp_path, *names)
    assert class_folders.recognise(tmp_path) is None
    with pytest.raises(ZooError, match=r"no class folder with images .* expected train/NAME/\*"):
        read(tmp_path)


def test_a_folder_around_the_data(tmp_path):
    touch(tmp_path, "insects/ant/1.jpg", "insects/bee/2.jpg")
    assert class_folders.recognise(tmp_path) is None
    assert read_data(tmp_path, val_share=0).classes == ("ant", "bee")
    assert read_data(tmp_path, val_share=0).root == tmp_path / "insects"


def test_a_class_that_training_lacks(tmp_path):
    touch(tmp_path, "train/ant/1.jpg", "train/bee/2.jpg", "val/ant/3.jpg", "val/bees/4.jpg",
          "val/bees/5.jpg")  # fmt: skip
    index = read(tmp_path)
    assert [i.file for i in index.of("val")] == ["val/ant/3.jpg"]
    (problem,) = index.problems
    assert problem.severity == "error"
    assert problem.kind == "class without training"
    assert problem.where == "val/bees/4.jpg, ..."
    assert problem.what == (
        "the class bees is in val (2 images) and not in training; what has it was left out"
    )
    assert problem.fix == (
        "add images of bees to training, or take them out of val; or is bee meant?"
    )


def test_case_differs_between_splits(tmp_path):
    touch(tmp_path, "train/Ant/1.jpg", "train/bee/2.jpg", "val/ant/3.jpg", "val/Bee/4.jpg")
    index = read(tmp_path)
    assert index.classes == ("Ant", "bee")
    assert found(index)[2:] == [("val", "val/Bee/4.jpg", "bee"), ("val", "val/ant/3.jpg", "Ant")]
    assert problems(index) == [
        ("warning", "class folders differ in case", "val/Bee/"),
        ("warning", "class folders differ in case", "val/ant/"),
    ]


def test_case_differs_within_training(tmp_path):
    touch(tmp_path, "train/A/1.jpg", "train/a/2.jpg", "train/b/3.jpg", "val/a/4.jpg")
    index = read(tmp_path)
    assert index.classes == ("A", "a", "b")
    assert found(index)[-1] == ("val", "val/a/4.jpg", "a")
    assert problems(index) == [("warning", "classes with nearly the same name", "A, a")]


def test_empty_and_loose(tmp_path):
    touch(tmp_path, "train/ant/1.jpg", "train/bee/2.jpg", "train/wasp/readme.md", "train/3.jpg",
          "4.jpg", "train/ant/5.HEIC", "val/ant/6.jpg", "test/7.jpg")  # fmt: skip
    index = read(tmp_path)
    assert index.classes == ("ant", "bee")
    assert index.unlabelled == ("4.jpg", "test/7.jpg", "train/3.jpg")
    assert problems(index) == [
        ("warning", "images outside the class folders", "train/3.jpg"),
        ("warning", "images of another kind", "train/ant/5.HEIC"),
        ("warning", "empty class folder", "train/wasp/"),
    ]


def test_one_class(tmp_path):
    touch(tmp_path, "ant/1.jpg", "ant/2.jpg")
    index = read_data(tmp_path)
    assert problems(index) == [("error", "one class", "ant")]
    assert "at least one other class" in index.problems[0].fix


def test_videos(tmp_path):
    touch(tmp_path, "train/run/1.mp4", "train/sit/2.AVI", "val/run/3.mkv", "train/run/1.jpg")
    assert video_folders.recognise(tmp_path).startswith("class folders of videos (train/run/")
    index = read_data(tmp_path, task="video")
    assert (index.format, index.task) == ("video_folders", "video")
    assert [i.file for i in index.items] == ["train/run/1.mp4", "train/sit/2.AVI", "val/run/3.mkv"]
    assert "splits as found: train (2 videos), val (1 video)" in index.decisions


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the shared data sets")
def test_real_data():
    index = read_data(SHARED / "data/ants_bees")
    assert (index.count("train"), index.count("val")) == ([122, 121], [70, 83])
    assert not index.problems
    for other in ("bccd", "coco100"):
        assert class_folders.recognise(SHARED / "data" / other) is None
