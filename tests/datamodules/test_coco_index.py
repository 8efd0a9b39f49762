"""Annotation files: what is wrong is named and handled by the policy, and nothing crashes."""

import json

import numpy as np
import pytest

from lightning_zoo.datamodules.coco_index import (
    check_categories,
    read_categories,
    read_index,
    read_json,
    summary,
)
from lightning_zoo.errors import ZooError

NAN, INF = float("nan"), float("inf")
TRIANGLE = [[10, 10, 30, 10, 20, 30]]
POINTS = [10, 10, 2, 20, 20, 1, 0, 0, 0]


def content(*annotations, images=None, **extra):
    """Return a file of one good annotation (id 1) and more, which take its fields."""
    good = {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 200, "iscrowd": 0,
            "segmentation": TRIANGLE, "keypoints": POINTS}  # fmt: skip
    return {
        "images": images or [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 50}],
        "annotations": [{"id": 1, **good}, *({"id": i + 2, **good, **a}
                                             for i, a in enumerate(annotations))],
        "categories": [{"id": 3, "name": "cat"}],
        **extra,
    }  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def run(data, policy="reference", target="masks", **options):
        path = tmp_path / "file.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        options = {"labels": {3: 1}, "num_keypoints": 3, **options}
        return read_index(path, target=target, policy=policy, **options)

    return run


DEGENERATE = [
    ({"bbox": [10, 10, 0, 20]}, "box without area"),
    ({"bbox": [10, 10, 20, -1]}, "box without area"),
    ({"bbox": [50, 10, 20, 20]}, "box without area"),
    ({"bbox": [-30, 10, 20, 20]}, "box without area"),
    ({"bbox": [30, 10, 1e-9, 20]}, "box without area"),  # none in float32
    ({"segmentation": []}, "empty mask"),
    ({"segmentation": [[1, 2, 3, 4]]}, "empty mask"),
]


@pytest.mark.parametrize(("fields", "kind"), DEGENERATE)
def test_objects_without_area(read, fields, kind):
    for policy in ("reference", "skip"):
        index = read(content(fields), policy)
        assert index.ids.tolist() == [1, 2]  # evaluation has it
        assert index.usable.tolist() == [True, False]  # training does not
        assert summary(index.problems) == f"1 x {kind}"
        assert index.problems[0].where == "annotation 2 (image 7)"
    with pytest.raises(
        ZooError, match=r"file.json', annotation 2 \(image 7\): .*on_bad_annotation"
    ):
        read(content(fields), "refuse")


BAD = [
    ({"bbox": [10, 10, NAN, 20]}, "four finite numbers"),
    ({"bbox": [INF, 10, 5, 20]}, "four finite numbers"),
    ({"bbox": [10, 10, 20]}, "four finite numbers"),
    ({"bbox": [10, 10, 20, 10**400]}, "four finite numbers"),
    ({"bbox": [0, 0, 3e38, 3e38]}, "four finite numbers"),
    ({"bbox": [10, 10, 20, "5"]}, "four finite numbers"),
    ({"bbox": [10, 10, 20, True]}, "four finite numbers"),
    ({"bbox": None}, "bbox is None"),
    ({"area": NAN}, "area is nan"),
    ({"area": [1]}, "area is"),
    ({"category_id": 4}, "category_id is 4, which no category has"),
    ({"category_id": "3"}, "category_id is '3'"),
    ({"category_id": [3]}, "category_id is"),
    ({"image_id": 8}, "image_id is 8, which no image has"),
    ({"image_id": None}, "image_id is None"),
    ({"id": 1}, "another annotation has the same id"),
    ({"id": "x"}, "no 'id' that is a whole number"),
    ({"id": 2.5}, "no 'id' that is a whole number"),
    ({"iscrowd": 2}, "iscrowd is 2"),
    ({"iscrowd": [1]}, "iscrowd is"),
    ({"segmentation": [[1, 2, 3, 4, 5]]}, "expected pairs"),
    ({"segmentation": [[NAN, 2, 3, 4, 5, 6]]}, "coordinate"),
    ({"segmentation": {"size": [40, 50], "counts": "zzz"}}, "character|truncated"),
    ({"segmentation": {"size": [40, 50], "counts": [0, 99999]}}, "oversized"),
    ({"segmentation": {"size": [40, 50], "counts": [7]}}, "truncated"),
    ({"segmentation": {"size": [50, 40], "counts": [2000]}}, r"expected that of the image"),
    ({"segmentation": None}, "expected polygons or an RLE"),
]


@pytest.mark.parametrize(("fields", "text"), BAD)
def test_damaged_annotations(read, fields, text):
    for policy in ("reference", "refuse"):
        with pytest.raises(ZooError, match=text) as caught:
            read(content(fields), policy)
        assert "(image " in str(caught.value)
        assert "--data.on_bad_annotation skip" in str(caught.value)
    index = read(content(fields, {"id": 3}), "skip")
    assert index.ids.tolist() == [1, 3]
    assert len(index.problems) == 1
    assert not index.problems[0].degenerate


KEYPOINTS = [
    (POINTS[:-1], "8 values; expected 9 finite numbers"),
    ([*POINTS, 0, 0, 0], "12 values"),
    ([*POINTS[:-1], 3], "a visibility is 3; expected 0, 1 or 2"),
    ([*POINTS[:-1], 0.5], "a visibility is 0.5"),
    ([NAN, *POINTS[1:]], "finite"),
    ("abc", "'abc'"),
]


@pytest.mark.parametrize(("keypoints", "text"), KEYPOINTS)
def test_damaged_keypoints(read, keypoints, text):
    with pytest.raises(ZooError, match=text):
        read(content({"keypoints": keypoints}), target="keypoints")
    index = read(content({"keypoints": keypoints}), "skip", target="keypoints")
    assert index.ids.tolist() == [1]
    assert read(content({"keypoints": keypoints}), target="boxes").problems == []


IMAGE = {"id": 8, "file_name": "b.jpg", "height": 40, "width": 50}
IMAGES = [
    ({"id": 7}, "same id"),
    ({"id": None}, "no 'id'"),
    ({"file_name": 5}, "file_name is 5"),
    ({"file_name": ""}, "file_name is ''"),
    ({"file_name": "../../etc/passwd.jpg"}, "expected a path within the folder"),
    ({"file_name": "/etc/passwd.jpg"}, "expected a path within the folder"),
    ({"file_name": "..\\x.jpg"}, "expected a path within the folder"),
    ({"height": 0}, "height and width are 0 and 50"),
    ({"height": "40"}, "height and width"),
    ({"width": 40.5}, "height and width"),
    ({"width": 10**9, "height": 10**9}, "are more than"),
]


@pytest.mark.parametrize(("fields", "text"), IMAGES)
def test_damaged_images(read, fields, text):
    images = [{**IMAGE, "id": 7, "file_name": "a.jpg"}, {**IMAGE, **fields}]
    with pytest.raises(ZooError, match=text):
        read(content(images=images))
    index = read(content(images=images), "skip")
    assert index.image_ids.tolist() == [7]
    assert index.names[0] == "a.jpg"


FILES = [
    ("", "is not JSON"),
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("\u00ff", "is not JSON"),
    ("[]", "holds a list; expected an object"),
    ("{}", r"no list 'images' \(it has nothing\)"),
    ('{"images": {}, "annotations": []}', "no list 'images'"),
    ('{"images": [], "annots": []}', r"no list 'annotations' \(it has images, annots\)"),
    ('{"images": [], "annotations": [5]}', r"annotations\[0\]: it has no 'id'"),
    ('{"images": [5], "annotations": []}', r"images\[0\]: it has no 'id'"),
    ('{"images": [], "annotations": [], "categories": 5}', "no list 'categories'"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_files_that_are_something_else(read, text, message):
    with pytest.raises(ZooError, match=message):
        read(text, categories={3: "cat"})


def test_not_there(tmp_path):
    with pytest.raises(ZooError, match="cannot read"):
        read_json(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ZooError, match="is not JSON"):
        read_json(tmp_path / "latin.json")


def test_several_problems_are_counted(read):
    data = content({"bbox": [0, 0, 0, 0]}, {"category_id": 9}, {"category_id": 8}, {"id": 1})
    with pytest.raises(ZooError, match=r"category_id is 9.*2 x unknown category, 1 x duplicate"):
        read(data)
    index = read(data, "skip")
    assert summary(index.problems) == (
        "2 x unknown category, 1 x box without area, 1 x duplicate annotation id"
    )


def test_a_polygon_of_two_points_beside_a_good_one(read):
    index = read(content({"segmentation": [[1, 1, 5, 5], *TRIANGLE]}))
    assert summary(index.problems) == "1 x polygon without area"
    assert index.usable.all()
    assert index.segment(0) == index.segment(1)
    with pytest.raises(ZooError, match="fewer than three points"):
        read(content({"segmentation": [[1, 1, 5, 5], *TRIANGLE]}), "refuse")


def test_the_id_0_is_moved(read):
    assert read(content({"id": 0})).ids.tolist() == [2, 1]
    data = content({})
    for annotation in data["annotations"]:
        del annotation["id"]
    assert read(data).ids.tolist() == [1, 2]


def test_order_and_exact_numbers(read):
    images = [{**IMAGE, "id": n, "file_name": f"{n}.jpg"} for n in (9, 7, 8)]
    boxes = [[0.1, 0.2, 10.3, 5.7], [1 / 3, 2, 3, 4], [5, 6, 7, 8]]
    data = content(*({"bbox": b, "image_id": n, "area": 0.1 * n}
                     for b, n in zip(boxes, (9, 8, 9), strict=True)), images=images)  # fmt: skip
    index = read(data)
    assert index.image_ids.tolist() == [7, 8, 9]
    assert [index.names[i] for i in range(3)] == ["7.jpg", "8.jpg", "9.jpg"]
    assert [index.ids[index.rows(i)].tolist() for i in range(3)] == [[1], [3], [2, 4]]
    assert index.boxes[index.rows(2)].tolist() == [boxes[0], boxes[2]]  # to the last bit
    assert index.areas.tolist() == [200, 0.1 * 8, 0.1 * 9, 0.1 * 9]
    assert index.labels.tolist() == [1] * 4


def test_missing_fields_have_defaults(read):
    data = content({})
    for name in ("area", "iscrowd", "keypoints"):
        del data["annotations"][1][name]
    index = read(data, target="keypoints")
    assert np.isnan(index.areas[1])
    assert not index.crowds.any()
    assert not index.keypoints[1].any()
    assert index.num_keypoints.tolist() == [2, 0]
    assert index.visible_keypoints().tolist() == [2]
    assert index.keypoints.dtype == np.float32  # whole numbers need no more
    half = content({"keypoints": [0.1, *POINTS[1:]], "num_keypoints": 1})
    index = read(half, target="keypoints")
    assert index.keypoints[1, 0, 0] == 0.1
    assert index.num_keypoints.tolist() == [2, 1]


def test_no_annotations(read):
    for target in ("boxes", "masks", "keypoints"):
        index = read({"images": [IMAGE], "annotations": []}, target=target)
        assert index.rows(0) == slice(0, 0)
        assert index.has_objects().tolist() == [False]
        assert index.keypoints.shape == (0, 3 if target == "keypoints" else 0, 3)
    assert len(read({"images": [IMAGE]}, needs_annotations=False)) == 1


def test_the_reference_filter(read):
    images = [{**IMAGE, "id": n} for n in range(5)]
    boxes = {1: [1, 1, 1, 30], 2: [1, 1, 1.5, 2], 3: [1, 1, 30, 30]}
    data = {
        "images": images,
        "annotations": [
            {"id": n, "image_id": n, "category_id": 3, "bbox": b, "iscrowd": int(n == 3)}
            for n, b in boxes.items()
        ],
    }
    # as the reference did, a crowd alone keeps its image
    assert read(data, target="boxes").has_objects().tolist() == [False, False, True, True, False]


def test_categories(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content()))
    assert read_categories(path) == {3: "cat"}
    path.write_text(
        '{"categories" : [{"id": 5, "name": "b\u00e4r"}, {"id": 2, "name": "x"}], "z": 1}'
    )
    assert read_categories(path) == {2: "x", 5: "b\u00e4r"}
    # where the word stands twice, the whole file is read
    path.write_text('{"categories": [{"id": 1, "name": "x"}], "info": {"categories": [{"id": 9}]}}')
    assert read_categories(path) == {1: "x"}
    for bad, text in (
        ([], "no list 'categories'"),
        ([{"name": "x"}], r"categories\[0\] has no 'id'"),
        ([{"id": 1, "name": "x"}, {"id": 1, "name": "y"}], "two categories of the id 1"),
        ([{"id": 1}], "the category 1 has no 'name'"),
    ):
        with pytest.raises(ZooError, match=text):
            check_categories(bad, path)


def test_other_categories_than_in_training(read):
    with pytest.raises(ZooError, match="category 3 'cat' and the training file calls it 'dog'"):
        read(content(), categories={3: "dog"})
    with pytest.raises(ZooError, match="the training file has no such id"):
        read(content(), categories={1: "cat"})
    named = [{"id": 3, "name": "cat", "keypoints": ["a", "b"]}]
    with pytest.raises(ZooError, match=r"2 keypoints \(a, b, ...\) for 'cat' and .* has 3"):
        read(content(categories=named), target="keypoints")


def test_damage_at_random_never_crashes(read):
    rng = np.random.default_rng(0)
    rle = {"size": [40, 50], "counts": "PY"}
    text = json.dumps(content({"segmentation": rle}, {}))
    outcomes = set()
    for _ in range(400):
        letters = list(text)
        for at in rng.integers(0, len(text), int(rng.integers(1, 4))):
            letters[at] = str(rng.choice(list('0123456789-[]{}",:.eNo ')))
        for policy in ("reference", "skip"):
            try:
                index = read("".join(letters), policy, categories={3: "cat"})
            except ZooError:
                outcomes.add("refused")
            else:
                outcomes.add(len(index.ids))
    assert {"refused", 1, 2} <= outcomes
