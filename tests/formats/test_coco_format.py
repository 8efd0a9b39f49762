"""COCO files of many exporters, sound and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from object_files import scenes, write_coco, write_image

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, read_data

PIXELS = scenes(1, 0)[0].pixels  # 64 x 56
SQUARE = [4, 4, 14, 4, 14, 14, 4, 14]


def content(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 56}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], **a}
            for i, a in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        **changes,
    }


def write(root: Path, written: dict[str, Any], file: str = "annotations.json") -> DataIndex:
    if not (root / "images/a.png").exists():
        write_image(root / "images" / "a.png", PIXELS)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(written))
    return read_data(root, val_share=0)


def test_what_a_file_holds(tmp_path: Path) -> None:
    rle = {"size": [64, 56], "counts": [10, 20, 64 * 56 - 30]}
    index = write(tmp_path, content(
        {"area": 12.5}, {"segmentation": [SQUARE]}, {"segmentation": rle, "iscrowd": 1},
        {"category_id": 3, "segmentation": []},
    ))  # fmt: skip
    (item,) = index.items
    assert (item.file, item.width, item.height, item.number) == ("images/a.png", 56, 64, 1)
    assert [o.label for o in item.objects] == [0, 0, 0, 1]
    assert [o.crowd for o in item.objects] == [False, False, True, False]
    assert [o.segmentation for o in item.objects] == [None, [SQUARE], rle, None]
    assert item.objects[0].box == (1, 2, 3, 4)
    assert item.objects[0].area == 12.5
    assert index.classes == ("cat", "dog")
    assert index.category_ids == (1, 3)
    assert index.problems == ()
    assert index.target == "boxes"


LAYOUTS = {
    "annotations/instances_train2017.json": "train2017/a.png",
    "annotations/instances_train.json": "images/train/a.png",
    "train/_annotations.coco.json": "train/a.png",
    "annotations/train.json": "images/a.png",
    "train.json": "train/images/a.png",
    "result.json": "pictures/a.png",
}


@pytest.mark.parametrize("file", LAYOUTS)
def test_images_are_found(file: str, tmp_path: Path) -> None:
    write_image(tmp_path / LAYOUTS[file], PIXELS)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content({})))
    index = read_data(tmp_path)
    assert [(i.file, i.split) for i in index.items] == [(LAYOUTS[file], "train")]


@pytest.mark.parametrize(
    ("name", "elsewhere"),
    [("a.png", 0), ("images/a.png", 0), ("./a.png", 0), ("C:\\mine\\a.png", 1), ("/x/a.png", 1)],
)
def test_file_names_of_exporters(name: str, elsewhere: int, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": name, "height": 64, "width": 56}]
    index = write(tmp_path, content({}, images=images))
    assert index.items[0].file == "images/a.png"
    assert sum("were found by their names" in d for d in index.decisions) == elsewhere


def test_roboflow(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    for folder in ("train", "valid", "test"):
        write_image(tmp_path / folder / f"{folder}_png.rf.0a.png", PIXELS)
        images = [{"id": 0, "file_name": f"{folder}_png.rf.0a.png", "height": 64, "width": 56}]
        annotations = [{"id": 0, "image_id": 0, "category_id": 2, "bbox": [1, 2, 3, 4]}]
        path = tmp_path / folder / "_annotations.coco.json"
        path.write_text(json.dumps(
            {"images": images, "annotations": annotations, "categories": categories}
        ))  # fmt: skip
    index = read_data(tmp_path)
    assert [i.split for i in index.items] == ["train", "val", "test"]
    assert index.classes == ("cat", "dog")
    assert [o.label for i in index.items for o in i.objects] == [1, 1, 1]
    assert any("'pets' is left out: it has no annotation" in d for d in index.decisions)


def test_keypoints(tmp_path: Path) -> None:
    points = [1, 2, 2, 3, 4, 1, 0, 0, 0]
    categories = [{"id": 1, "name": "bird", "keypoints": ["beak", "Left_wing", "Right_wing"],
                   "skeleton": [[1, 2], [1, 3], [1, 9]]}]  # fmt: skip
    written = content({"keypoints": points}, {"keypoints": points[:6]}, categories=categories)
    index = write(tmp_path, written, "annotations/person_keypoints_train.json")
    assert index.keypoints == ("beak", "Left_wing", "Right_wing")
    assert index.flip_pairs == ((1, 2),)
    assert index.bones == ((0, 1), (0, 2))
    assert [o.keypoints for o in index.items[0].objects] == [(*points,), None]
    assert index.target == "keypoints"
    (problem,) = index.problems
    assert problem.kind == "bad keypoints"
    assert "has 6 values; expected 9 finite numbers" in problem.what
    del categories[0]["keypoints"]
    index = write(tmp_path, written, "annotations/person_keypoints_train.json")
    assert index.keypoints == ("keypoint 1", "keypoint 2", "keypoint 3")


def test_instances_before_keypoints(tmp_path: Path) -> None:
    write_coco(tmp_path, scenes())
    text = (tmp_path / "annotations" / "instances_val.json").read_text()
    for name in ("person_keypoints_val", "captions_val", "person_keypoints_train"):
        (tmp_path / "annotations" / f"{name}.json").write_text(text)
    index = read_data(tmp_path)
    assert {i.source for i in index.items} == {
        "annotations/instances_train.json", "annotations/instances_val.json"}  # fmt: skip
    said = " ".join(index.decisions)
    assert "captions_val.json is not read: it has no boxes" in said
    assert "annotations/person_keypoints_val.json is not; --annotations FILE" in said
    keypoints = read_data(tmp_path, annotations="annotations/person_keypoints_val.json")
    assert {i.source for i in keypoints.items if i.split == "val"} == {
        "annotations/person_keypoints_val.json"}  # fmt: skip


def test_two_files_are_a_question(tmp_path: Path) -> None:
    write(tmp_path, content({}), "cats.json")
    with pytest.raises(ZooError, match=r"2 COCO files .*: cats.json, dogs.json; which is meant\? "):
        write(tmp_path, content({}), "dogs.json")
    assert read_data(tmp_path, annotations="dogs.json").items[0].source == "dogs.json"


BAD: dict[str, tuple[dict[str, Any], str, str, int]] = {
    # what is changed: severity, kind, objects that are left of two
    "image_id": ({"image_id": 7}, "error", "unknown image", 1),
    "image_id type": ({"image_id": [1]}, "error", "unknown image", 1),
    "category_id": ({"category_id": 2}, "error", "unknown category", 1),
    "bbox NaN": ({"bbox": [1, 2, float("nan"), 4]}, "error", "bad box", 1),
    "bbox text": ({"bbox": ["1", 2, 3, 4]}, "error", "bad box", 1),
    "bbox short": ({"bbox": [1, 2, 3]}, "error", "bad box", 1),
    "bbox none": ({"bbox": None}, "error", "bad box", 1),
    "same id": ({"id": 1, "bbox": [9, 9, 9, 9]}, "warning", "duplicate annotation id", 2),
    "twice": ({"id": 1}, "warning", "duplicate annotation id", 1),
    "iscrowd": ({"iscrowd": 5}, "warning", "bad iscrowd", 2),
    "area": ({"area": "big"}, "warning", "bad area", 2),
    "odd polygon": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "error", "damaged mask", 1),
    "text mask": ({"segmentation": "abc"}, "error", "damaged mask", 1),
    "short RLE": (
        {"segmentation": {"size": [64, 56], "counts": [9, 9]}}, "error", "damaged mask", 1),
    "other RLE": (
        {"segmentation": {"size": [9, 9], "counts": [81]}}, "error", "damaged mask", 1),
    "line": ({"segmentation": [[1, 2, 3, 4]]}, "warning", "polygon without area", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_annotations(case: str, tmp_path: Path) -> None:
    change, severity, kind, left = BAD[case]
    index = write(tmp_path, content({}, change))
    (problem,) = index.problems
    assert (problem.severity, problem.kind) == (severity, kind)
    assert problem.where.startswith("annotations.json: annotation ")
    assert problem.what
    assert problem.fix
    assert len(index.items[0].objects) == left


def test_geometry_is_for_the_check(tmp_path: Path) -> None:
    boxes = [[-5, 0, 100, 100], [3, 3, 0, 0], [9, 9, -4, -4]]
    index = write(tmp_path, content(*({"bbox": box} for box in boxes)))
    assert [[*o.box] for o in index.items[0].objects] == boxes
    assert index.problems == ()


def test_a_box_from_its_mask(tmp_path: Path) -> None:
    runs = {"size": [64, 56], "counts": [64 * 3 + 5, 4, 60, 4, 64 * 56 - 265]}
    index = write(tmp_path, content(
        {"bbox": [], "segmentation": [SQUARE]}, {"bbox": None, "segmentation": runs}
    ))  # fmt: skip
    # columns 3 and 4, rows 5 to 8, as a slow decoding says
    assert [o.box for o in index.items[0].objects] == [(4, 4, 10, 10), (3, 5, 2, 4)]


BAD_IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"file_name": "a.png"}, "image without id"),
    "same id": ({"id": 1, "file_name": "b.png"}, "duplicate image id"),
    "no name": ({"id": 2}, "bad file name"),
    "absent": ({"id": 2, "file_name": "c.png", "height": 9, "width": 9}, "image that is not there"),
    "twice": ({"id": 2, "file_name": "a.png", "height": 64, "width": 56}, "image listed twice"),
    "size": ({"id": 2, "file_name": "b.png", "height": 0, "width": "x"}, "bad image size"),
    "empty": ({"id": 2, "file_name": "empty.png"}, "unreadable image"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(case: str, tmp_path: Path) -> None:
    image, kind = BAD_IMAGES[case]
    write_image(tmp_path / "images" / "b.png", PIXELS)
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    images = [*content()["images"], image]
    index = write(tmp_path, content({}, {}, images=images))
    (problem,) = index.problems
    assert problem.kind == kind
    assert len(index.items) == 1 + (case == "size")
    assert len(index.items[0].objects) == 2
    if case == "size":
        assert (index.items[1].width, index.items[1].height) == (56, 64)


def test_images_without_an_entry(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "b.png", PIXELS)
    assert write(tmp_path, content({})).unlabelled == ("images/b.png",)


def test_categories_with_one_name(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]
    index = write(tmp_path, content({}, {"category_id": 2}, categories=categories))
    assert index.classes == ("cat",)
    assert [o.label for o in index.items[0].objects] == [0, 0]
    assert [p.kind for p in index.problems] == ["duplicate category name"]


def test_splits_that_number_differently(tmp_path: Path) -> None:
    root = write_coco(tmp_path, scenes())
    before = read_data(root)
    path = root / "annotations" / "instances_val.json"
    text = json.loads(path.read_text())
    for category in text["categories"]:
        category["id"] = 50 - category["id"]
    for annotation in text["annotations"]:
        annotation["category_id"] = 50 - annotation["category_id"]
    path.write_text(json.dumps(text))
    assert read_data(root).items == before.items


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": None}, "is no COCO file: it has the keys images, annotations, categories"),
        ({"categories": []}, "has no list 'categories'"),
        ({"categories": [{"id": 1}]}, "the category 1 has no 'name'"),
        ({"images": [{"id": 1, "file_name": "z.png"}]}, "none of the 1 images .* is 'z.png'"),
    ],
)
def test_files_that_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=said):
        write(tmp_path, content({}, **changes))


def test_a_truncated_file(tmp_path: Path) -> None:
    write(tmp_path, content({}))
    path = tmp_path / "annotations.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ZooError, match=r"is not JSON .*; download or export it again"):
        read_data(tmp_path)
