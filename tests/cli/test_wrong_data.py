"""Wrong data, and what the command line answers: one sentence that says what is wrong and what now.

Each row makes a folder that is not right. Data that cannot be read at all ends with exit status 2
and one line; data that can, with a finding, its fix and status 1 (0 where it is no error).
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.cli import main

SIDE = 32
XML = (
    "<annotation><filename>{name}.jpg</filename><size><width>32</width><height>32</height>"
    "<depth>3</depth></size>{objects}</annotation>"
)
OBJECT = (
    "<object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax>"
    "</bndbox></object>"
)
_seeds = iter(range(10**9))


def photo(path: Path) -> Path:
    """Write a picture that no other is like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(_seeds)).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def coco(root: Path, **changes: Any) -> dict[str, Any]:
    """Write a sound data set in COCO's format, with some parts of its file replaced."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": SIDE, "height": SIDE} for i in range(4)]
    for image in images:
        photo(root / "train" / image["file_name"])
    objects = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [2, 2, 9, 9], "area": 81,
         "iscrowd": 0} for i in range(4)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": objects, "categories": categories} | changes
    write(root / "annotations/instances_train.json", json.dumps(content))
    return content


def yolo(root: Path, line: str = "0 0.5 0.5 0.2 0.2", names: str = "[cat, dog]") -> None:
    for split in ("train", "val"):
        for i in range(2):
            photo(root / f"images/{split}/{i}.jpg")
            write(root / f"labels/{split}/{i}.txt", line + "\n")
    write(root / "data.yaml", f"train: images/train\nval: images/val\nnames: {names}\n")


def voc(root: Path, objects: str = OBJECT) -> None:
    for name in "abcd":
        photo(root / f"JPEGImages/{name}.jpg")
        write(root / f"Annotations/{name}.xml", XML.format(name=name, objects=objects))


def folders(root: Path, *names: str) -> None:
    for name in names:
        for i in range(2):
            photo(root / name / f"{i}.jpg")


def table(root: Path, text: str) -> None:
    for i in range(4):
        photo(root / f"{i}.jpg")
    write(root / "labels.csv", text)


def masks(
    root: Path, make: Callable[[], NDArray[np.uint8]], classes: str = "ground\ncell\n"
) -> None:
    for i in range(3):
        photo(root / f"images/train/{i}.jpg")
        path = root / f"masks/train/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make()).save(path)
    write(root / "classes.txt", classes)


def truncated_json(root: Path) -> None:
    coco(root)
    path = root / "annotations/instances_train.json"
    path.write_text(path.read_text()[:-30])


def label_me(root: Path) -> None:
    shape = {"label": "cat", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}
    content = {"version": "5.0", "flags": {}, "shapes": [shape], "imagePath": "a.jpg"}
    photo(root / "a.jpg")
    write(root / "a.json", json.dumps(content))


def without(make: Callable[[Path], Any], folder: str) -> Callable[[Path], None]:
    """Return what makes a data set and takes one of its folders (or files) away."""

    def both(root: Path) -> None:
        make(root)
        path = root / folder
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return both


def yaml_says(text: str, line: str = "0 0.5 0.5 0.2 0.2") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        yolo(root, line)
        write(root / "data.yaml", text)

    return make


def xml_says(text: str, names: str = "a") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        voc(root)
        for name in names:
            write(root / f"Annotations/{name}.xml", text)

    return make


def two_formats(root: Path) -> None:
    yolo(root)
    coco(root)


def boxes_and_classes(root: Path) -> None:
    voc(root)
    folders(root, "train/x", "train/y")


def an_archive(root: Path) -> None:
    zipfile.ZipFile(root / "photos.zip", "w").close()


def damaged_photo(root: Path) -> None:
    folders(root, "train/a", "train/b", "val/a", "val/b")
    path = photo(root / "train/a/0.jpg")
    path.write_bytes(path.read_bytes()[:-100])


def texts(folder: str, ending: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for i in range(3):
            write(root / folder / f"{i}.{ending}", "hello")

    return make


def square(value: int, side: int = SIDE) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.eye(side, dtype=np.uint8) * np.uint8(value)


def red() -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE, 3), (200, 10, 0), np.uint8)


@dataclass(frozen=True)
class Wrong:
    """One row.

    Attributes:
        make: Fills the folder ``data``; None: there is none.
        says: Parts of the answer: what is wrong, and what to do.
        status: Exit status.
        args: What follows ``data check data``.
        root: What is named in place of ``data``.
    """

    make: Callable[[Path], Any] | None
    says: tuple[str, ...]
    status: int = 2
    args: str = ""
    root: str = "data"


LISTED = "how each is laid out: python -m lightning_zoo data formats"
PLAIN = lambda root: folders(root, "train/a", "train/b", "val/a", "val/b")  # noqa: E731

WRONG = {
    # what is no data at all
    "missing folder": Wrong(None, ("there is no 'data'", "expected the folder of your data")),
    "empty folder": Wrong(lambda root: None, ("'data' is an empty folder; expected images and",)),
    "a photo": Wrong(lambda root: photo(root / "a.jpg"), (
        "'data/a.jpg' is a file; expected the folder of your data, or an annotation file",),
        root="data/a.jpg"),
    "an archive": Wrong(an_archive, ("'data/photos.zip' is an archive; unpack it first",),
                        root="data/photos.zip"),
    "text files": Wrong(texts(".", "txt"), ("holds 3 .txt files and no labels that are", LISTED)),
    "images without labels": Wrong(lambda root: [photo(root / f"{i}.jpg") for i in range(3)], (
        "holds 3 .jpg files and no labels that are known", "class folders", LISTED)),
    "videos without classes": Wrong(texts(".", "mp4"), ("holds 3 .mp4 files and no", LISTED)),
    # what is not clear
    "two formats": Wrong(two_formats, (
        "holds COCO annotations (annotations/instances_train.json) and YOLO labels (data.yaml); "
        "which are meant? --format coco or --format yolo",)),
    "two tasks": Wrong(boxes_and_classes, ("which are meant? --format voc or --format folders",)),
    # options
    "unknown format": Wrong(PLAIN, ("unknown format 'ycoco'; did you mean coco?",),
                            args="--format ycoco"),
    "unknown task": Wrong(PLAIN, ("unknown --task 'detct'; did you mean detection?",),
                          args="--task detct"),
    "unknown option": Wrong(PLAIN, ("unknown option '--vall_share'; did you mean --val_share?",),
                            args="--vall_share 0.1"),
    "val_share above 1": Wrong(PLAIN, ("val_share is 1.5; expected a share from 0 to below 1",),
                               args="--val_share 1.5"),
    "val_share in words": Wrong(PLAIN, ("invalid float value: 'some'; see: python -m lightning",),
                                args="--val_share some"),
    "annotations that are gone": Wrong(PLAIN, (
        "there is no annotation file 'gone.json', neither in 'data' nor from", "(--annotations)"),
        args="--annotations gone.json"),
    "another format than said": Wrong(PLAIN, (
        "holds no COCO file with boxes; expected annotations/instances_train.json",),
        args="--format coco"),
    # COCO
    "JSON that is no COCO": Wrong(lambda root: [
        photo(root / "train/a.jpg"), write(root / "annotations/instances_train.json", '{"a": 1}')],
        ("annotations/instances_train.json is no COCO: it has the keys a", LISTED)),
    "truncated JSON": Wrong(truncated_json, ("is not JSON (", "download or export it again")),
    "LabelMe": Wrong(label_me, ("a.json is no COCO: it is LabelMe's", "labelme2coco makes COCO")),
    "COCO without images": Wrong(without(coco, "train"), (
        "none of the 4 images that", "the first is '0.jpg'; put the images there")),
    "COCO without categories": Wrong(lambda root: coco(root, categories=[]), (
        "has no list 'categories'; expected [{'id': 1, 'name': ...}]",)),
    "COCO without annotations": Wrong(lambda root: coco(root, annotations=[]), (
        "error: nothing to learn (1)", "no object of any class is in train", "fix: label some"), 1),
    "unknown category": Wrong(lambda root: coco(root, categories=[{"id": 1, "name": "cat"}]), (
        "error: unknown category (2)", "category_id is 2, which no category has",
        "fix: remove it, or list its category"), 1),
    "an inverted box": Wrong(lambda root: coco(root, annotations=[
        {"id": 5, "image_id": 0, "category_id": 1, "bbox": [9, 9, -5, 4]},
        {"id": 6, "image_id": 1, "category_id": 1, "bbox": [9, 9, 5, 4]}]), (
        "error: inverted box (1)", "train/0.jpg, annotation 5: x 9, y 9, width -5", "fix: "), 1),
    # YOLO
    "YOLO without images": Wrong(without(yolo, "images"), (
        "no image is where", "(train: images/train, val: images/val", "correct the paths")),
    "wrong class count": Wrong(yaml_says(
        "train: images/train\nval: images/val\nnc: 3\nnames: [cat, dog]\n"), (
        "error: wrong class count (1)", "nc is 3 and names has 2", "fix: write nc: 2, or"), 1),
    "data.yaml of another machine": Wrong(yaml_says(
        "path: /datasets/gone\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"), (
        "is not at '/datasets/gone/images/train'; images/train beside the file is taken",), 0),
    "data.yaml that is no YAML": Wrong(yaml_says("train: [images\nnames: {"), (
        "error: bad data.yaml (1)", "the classes are numbers", "fix: write names: [NAME"), 1),
    "class number out of range": Wrong(lambda root: yolo(root, "5 0.5 0.5 0.2 0.2"), (
        "error: unknown class (4)", "line 1: the class is 5; expected 0 to 1",
        "fix: correct the number, or add the class's name"), 1),
    "pixels in place of shares": Wrong(lambda root: yolo(root, "0 12 14 8 8"), (
        "error: values are not shares (4)", "as pixels do; expected 0 to 1",
        "fix: divide x by the image's width (32)"), 1),
    "names in place of numbers": Wrong(lambda root: yolo(root, "cat 0.5 0.5 0.2 0.2"), (
        "error: line that is no label (4)", "is not all numbers", "fix: write the class nu"), 1),
    # Pascal VOC
    "VOC without images": Wrong(without(voc, "JPEGImages"), (
        "none of the 4 XML files", "put the images into JPEGImages/")),
    "broken XML": Wrong(xml_says("<annotation><object>"), (
        "error: damaged XML (1)", "Annotations/a.xml: no element found", "fix: export the fi"), 1),
    "broken XML alone": Wrong(xml_says("<annotation><object>", "abcd"), (
        "no XML file in", "is a Pascal VOC annotation that can be read", "Annotations/a.xml")),
    "XML with entities": Wrong(xml_says(
        '<!DOCTYPE x [<!ENTITY e "boom">]><annotation><filename>a.jpg</filename>&e;</annotation>'),
        ("error: damaged XML (1)", "it declares entities", "fix: export the file again"), 1),
    # classes
    "one class": Wrong(lambda root: folders(root, "train/cats", "val/cats"), (
        "error: one class (1)", "every image is of the class cats", "fix: add images"), 1),
    "other classes in val": Wrong(
        lambda root: folders(root, "train/cat", "train/dog", "val/cat", "val/dogs"), (
        "error: class without training (1)", "the class dogs is in val (2 images) and not in",
        "or is dog meant?"), 1),
    "a damaged photo": Wrong(damaged_photo, (
        "error: image that cannot be read (1)", "train/a/0.jpg: OSError: image file is truncated",
        "fix: mend or remove it"), 1),
    # tables
    "CSV without a column of files": Wrong(lambda root: table(root, "x,label\n1,cat\n2,dog\n"), (
        "labels.csv' has no column of files; expected one named", LISTED)),
    "CSV without a column of labels": Wrong(lambda root: table(root, "file\n0.jpg\n1.jpg\n"), (
        "labels.csv' has no column of labels; expected one named label, class", LISTED)),
    "empty CSV": Wrong(lambda root: table(root, ""), (
        "labels.csv' is empty; expected a line of column names and rows below", LISTED)),
    "CSV whose files are gone": Wrong(lambda root: table(root, "file,label\nx.jpg,a\ny.jpg,b\n"), (
        "no row of labels.csv names an image", "there is no image 'x.jpg' in the folder",
        "the files are looked for beside the table and in images/")),
    "CSV with a file that is gone": Wrong(
        lambda root: table(root, "file,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n9.jpg,b\n"), (
        "error: file is missing (1)", "labels.csv line 5: there is no image '9.jpg'",
        "fix: put it there, or remove the row"), 1),
    # masks
    "masks in colour": Wrong(lambda root: masks(root, red), (
        "are in colour ([200, 10, 0]), and nothing says what the colours mean",
        "printf 'name,r,g,b\\nbackground,200,10,0\\n' > ", "data/class_dict.csv")),
    "masks without images": Wrong(without(lambda root: masks(root, square(1)), "images"), (
        "masks/ is there, and no images/ of the same names beside it", LISTED)),
    "masks with strange values": Wrong(lambda root: masks(root, square(9)), (
        "error: value without a class (1)", "fix: name all classes"), 1),
    "masks of another size": Wrong(lambda root: masks(root, square(1, 16)), (
        "no mask in", "it has 16 x 16 pixels and its image 32 x 32", "save the masks in the size")),
    # videos
    "videos that are none": Wrong(lambda root: [texts(c, "mp4")(root) for c in "ab"], (
        "error: video that cannot be read (6)", "a/0.mp4: it is no video", "fix: mend it"), 1),
}  # fmt: skip


def test_the_table_is_long() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = WRONG[name]
    monkeypatch.chdir(tmp_path)
    if row.make is not None:
        (tmp_path / "data").mkdir()
        row.make(tmp_path / "data")
    status = main(["data", "check", row.root, *row.args.split()])
    out, err = capsys.readouterr()
    assert status == row.status, out + err
    assert "Traceback" not in out + err
    if row.status == 2:
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "not foreseen" not in err
        answer = err
    else:
        assert err == ""
        assert re.search(r"; next: .*python -m lightning_zoo \w+ ", out.splitlines()[-1])
        answer = out
    for part in row.says:
        assert part in answer, answer
