"""YOLO label files of many exporters, sound and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from object_files import CLASSES, scenes, write_image, write_yolo

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, read_data

PIXELS = scenes(1, 0)[0].pixels  # 64 x 56: shares of 1/8 are whole pixels
BOX = "0 0.5 0.5 0.25 0.125"


def write(root: Path, text: str | None, **content: Any) -> DataIndex:
    """Write one image with labels, and data.yaml unless it is empty."""
    write_image(root / "images" / "train" / "a.png", PIXELS)
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    if text is not None:
        (root / "labels" / "train" / "a.txt").write_text(text)
    described = {"train": "images/train", "names": ["cat", "dog"], **content}
    (root / "data.yaml").write_text(yaml.safe_dump(described))
    return read_data(root, val_share=0)


def test_boxes_polygons_and_both(tmp_path: Path) -> None:
    polygon = "1 0.25 0.25 0.75 0.25 0.75 0.5"
    index = write(tmp_path, f"{BOX}\n\n{polygon}\n")
    (item,) = index.items
    box, drawn = item.objects
    assert (item.width, item.height, item.source) == (56, 64, "labels/train/a.txt")
    assert (box.label, box.box, box.where) == (0, (21, 28, 14, 8), "line 1")
    assert (drawn.label, drawn.box, drawn.where) == (1, (14, 16, 28, 16), "line 3")
    assert drawn.segmentation == [[14, 16, 42, 16, 42, 32]]
    assert index.decisions[-1] == "the labels hold 1 boxes, 1 polygons"
    assert index.target == "boxes"
    assert write(tmp_path, polygon).target == "masks"


def test_poses(tmp_path: Path) -> None:
    line = f"{BOX} 0.25 0.5 2 0.75 0.5 1 0.9 0.9 0"
    flips = {"kpt_shape": [3, 3], "flip_idx": [1, 0, 2]}
    index = write(tmp_path, f"{line}\n{BOX}", **flips)
    first, second = index.items[0].objects
    assert first.keypoints == (14, 32, 2, 42, 32, 1, 0, 0, 0)
    assert second.keypoints is None
    assert index.keypoints == ("keypoint 1", "keypoint 2", "keypoint 3")
    assert index.flip_pairs == ((0, 1),)
    assert index.target == "keypoints"
    index = write(tmp_path, f"{BOX} 0.25 0.5 0 0", kpt_shape=[2, 2])
    assert index.items[0].objects[0].keypoints == (14, 32, 2, 0, 0, 0)
    assert any("has no flip_idx" in d for d in index.decisions)
    index = write(tmp_path, f"{BOX} 0.25 0.5 0.9 0 0 0", kpt_shape=[2, 3], flip_idx=[1, 1])
    assert [p.kind for p in index.problems] == ["bad flip_idx", "bad visibility"]
    assert index.items[0].objects[0].keypoints == (14, 32, 2, 0, 0, 0)
    seventeen = f"{BOX} " + "0.5 0.5 2 " * 17
    index = write(tmp_path, seventeen, kpt_shape=[17, 3])
    assert index.keypoints[1:3] == ("left_eye", "right_eye")
    assert index.flip_pairs[0] == (1, 2)
    names = {0: ["left_ear", "right_ear"]}
    index = write(tmp_path, f"{BOX} 0.25 0.5 0.5 0.5", kpt_shape=[2, 2], kpt_names=names)
    assert (index.keypoints, index.flip_pairs) == (("left_ear", "right_ear"), ((0, 1),))


LINES = {
    "number of class": ("2 0.5 0.5 0.1 0.1", "error", "unknown class", "expected 0 to 1"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", "error", "unknown class", "expected 0 to 1"),
    "broken class": ("0.5 0.5 0.5 0.1 0.1", "error", "unknown class", "expected 0 to 1"),
    "pixels": ("1 20 30 10 10", "error", "values are not shares", "as pixels do; expected 0 to 1"),
    "just outside": ("1 1.1 0.5 0.1 0.1", "warning", "value outside 0..1", "run from 0.1 to 1.1"),
    "four": ("1 0.5 0.5 0.1", "error", "wrong count of numbers", "the line has 4 numbers"),
    "score": ("1 0.5 0.5 0.1 0.1 0.9", "error", "wrong count of numbers", "a model's score"),
    "even": ("1 .1 .1 .2 .2 .3 .3 .4", "error", "wrong count of numbers", "an odd number"),
    "words": ("cat 0.5 0.5 0.1 0.1", "error", "line that is no label", "is not all numbers"),
    "nan": ("1 nan 0.5 0.1 0.1", "error", "line that is no label", "is not all numbers"),
    "twice": (BOX, "warning", "duplicate label", "the line is there twice"),
}


@pytest.mark.parametrize("case", LINES)
def test_bad_lines(case: str, tmp_path: Path) -> None:
    line, severity, kind, said = LINES[case]
    index = write(tmp_path, f"{BOX}\n{line}\n")
    (problem,) = index.problems
    assert (problem.severity, problem.kind) == (severity, kind)
    assert problem.where == "labels/train/a.txt: line 2"
    assert said in problem.what
    assert problem.fix
    assert len(index.items[0].objects) == 1 + (case == "just outside")


def test_polygons_where_poses_are_expected(tmp_path: Path) -> None:
    index = write(tmp_path, f"{BOX}\n0 .1 .1 .2 .2 .3 .4", kpt_shape=[2, 2])
    assert "expected 5, or 9 with 2 keypoints" in index.problems[0].what


def test_wrong_class_count(tmp_path: Path) -> None:
    index = write(tmp_path, BOX, nc=5)
    (problem,) = index.problems
    assert (problem.severity, problem.kind) == ("error", "wrong class count")
    assert problem.what == "nc is 5 and names has 2: cat, dog; the names are taken"
    assert problem.fix == "write nc: 2, or complete the names"


def test_names(tmp_path: Path) -> None:
    index = write(tmp_path, BOX, names=["cat", "cat"])
    assert [p.kind for p in index.problems] == ["duplicate class name"]
    assert write(tmp_path, BOX, names={0: "a", 1: "b"}).classes == ("a", "b")
    assert write(tmp_path, BOX, names=None, nc=2).classes == ("class 0", "class 1")
    assert write(tmp_path, BOX, names=[1, True]).classes == ("1", "True")
    for names, said in (
        ({0: "a", 2: "b"}, r"has the numbers 0, 2; expected every number from 0"),
        ({"x": "a"}, r"has the keys x; expected the classes' numbers"),
        ([], r"names of .* is empty"),
        ("cat", r"is 'cat'; expected a list of names"),
    ):
        with pytest.raises(ZooError, match=said):
            write(tmp_path, BOX, names=names)
    with pytest.raises(ZooError, match=r"kpt_shape of .* is \[17\]; expected \[K, 2\]"):
        write(tmp_path, BOX, kpt_shape=[17])


def test_background_and_unlabelled(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "b.png", PIXELS)
    write_image(tmp_path / "images" / "train" / "c.png", PIXELS)
    (tmp_path / "images" / "train" / "d.png").write_bytes(b"no image")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "b.txt").write_text("")
    (tmp_path / "labels" / "train" / "lost.txt").write_text(BOX)
    index = write(tmp_path, BOX)
    assert [len(item.objects) for item in index.items] == [1, 0, 0]
    assert index.unlabelled == ("images/train/c.png",)
    assert "1 image without a label file count as background: images/train/c.png" in index.decisions
    assert [(p.severity, p.kind, p.where) for p in index.problems] == [
        ("error", "unreadable image", "images/train/d.png"),
        ("warning", "labels without image", "labels/train/lost.txt"),
    ]


def layouts(name: str, root: Path) -> None:
    """Write two images a split in a layout without data.yaml."""
    for split in ("train", "val"):
        for stem in ("a", "b"):
            images, labels = {
                "images/train": (f"images/{split}", f"labels/{split}"),
                "train/images": (f"{split}/images", f"{split}/labels"),
                "images": ("images", "labels"),
                "beside": ("", ""),
                "beside in splits": (split, split),
            }[name]
            write_image(root / images / f"{split}_{stem}.png", PIXELS)
            (root / labels).mkdir(parents=True, exist_ok=True)
            (root / labels / f"{split}_{stem}.txt").write_text(BOX)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "layout", ["images/train", "train/images", "images", "beside", "beside in splits"]
)
def test_without_data_yaml(layout: str, named: bool, tmp_path: Path) -> None:
    layouts(layout, tmp_path)
    if named:
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    index = read_data(tmp_path, val_share=0)
    assert index.format == "yolo"
    assert index.classes == (("cat", "dog") if named else ("class 0",))
    assert [len(i.objects) for i in index.items] == [1] * 4
    split = len(index.of("val"))
    assert split == (0 if layout in ("images", "beside") else 2)


PATHS: list[tuple[dict[str, Any], str]] = [
    ({"train": "images/train"}, ""),
    ({"path": ".", "train": ["images/train"]}, ""),
    ({"path": "../data", "train": "images/train"}, ""),
    ({"path": "/content/elsewhere", "train": "images/train"}, "images/train beside the file"),
    ({"train": "../train/images"}, "images/train beside the file"),
    ({"train": "../images/train"}, "images/train beside the file"),
    ({"train": "/content/sets/images/train"}, "images/train beside the file"),
    ({"train": "C:\\sets\\images\\train"}, "images/train beside the file"),
    ({"train": "train.txt"}, ""),
    ({"train": "somewhere"}, "images/train beside the file"),
]


@pytest.mark.parametrize(("paths", "said"), PATHS)
def test_paths_of_data_yaml(paths: dict[str, Any], said: str, tmp_path: Path) -> None:
    data = scenes(4, 0)
    root = write_yolo(tmp_path / "data", data)
    expected = read_data(root, val_share=0).items
    (root / "train.txt").write_text("".join(f"./images/train/{s.stem}.png\n" for s in data))
    (root / "data.yaml").write_text(yaml.safe_dump({**paths, "names": [*CLASSES]}))
    index = read_data(root, val_share=0)
    assert index.items == expected
    assert any(f"{said} is taken" in d for d in index.decisions) == bool(said)


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", scenes())
    names = {"names": [*CLASSES]}
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "test": "x", **names}))
    (problem,) = read_data(root).problems
    assert problem.kind == "path that is not there"
    assert problem.what.startswith("test is 'x', which is neither below")
    (root / "list.txt").write_text("images/train/train_0.png\ngone.png\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "list.txt", **names}))
    index = read_data(root)
    assert [(p.kind, p.where) for p in index.problems] == [
        ("image that is not there", "list.txt: line 2")]  # fmt: skip
    assert len(index.items) == 1
    (root / "data.yaml").write_text(yaml.safe_dump({"test": "x", **names}))
    with pytest.raises(ZooError, match=r"no image is where .* says \(test: x; path: not set\)"):
        read_data(root)


def test_images_outside_of_the_folder(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", scenes())
    expected = [(i.file, i.objects) for i in read_data(root).items]
    (tmp_path / "config").mkdir()
    (root / "data.yaml").rename(tmp_path / "config" / "pets.yaml")
    path = tmp_path / "config" / "pets.yaml"
    path.write_text(f"path: ../data\n{path.read_text()}")
    for place in (path, tmp_path / "config"):
        index = read_data(place)
        assert index.root == tmp_path
        assert [(i.file.removeprefix("data/"), i.objects) for i in index.items] == expected
        assert any("files are named from" in d for d in index.decisions)


def test_no_label_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"none of the 1 image has a label file; expected .*a.txt'"):
        write(tmp_path, None)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "images" / "train" / "a.png").unlink()
    (tmp_path / "labels" / "train" / "a.txt").write_text(BOX)
    with pytest.raises(ZooError, match="holds label files and no images; expected the images in"):
        read_data(tmp_path)
