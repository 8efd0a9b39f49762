"""Which format a folder has, and what is said where that is not clear."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from object_files import WRITERS, scenes, write_coco, write_image, write_voc, write_yolo

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import FORMATS, read_data
from lightning_zoo.formats.recognise import TASKS, get_format

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_every_format_has_a_module_and_a_task() -> None:
    assert TASKS.keys() == FORMATS.keys()
    assert len(FORMATS) == 8
    for name in FORMATS:
        module = get_format(name)
        assert callable(module.recognise)
        assert callable(module.read)


def test_nothing_heavy_is_imported() -> None:
    code = "import lightning_zoo.formats.{0}, sys; print([m for m in {1} if m in sys.modules])"
    heavy = ("torch", "cv2", "PIL", "av", "pycocotools", "lightning")
    for name in ("coco", "yolo", "voc", "convert"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name, heavy)], capture_output=True, text=True
        )
        assert done.stdout.strip() == "[]", done


@pytest.mark.parametrize("name", WRITERS)
def test_the_reason_is_a_decision(name: str, tmp_path: Path) -> None:
    index = read_data(WRITERS[name](tmp_path / "data", scenes()))
    assert index.format == name
    assert index.decisions[0].startswith(f"format {name}: the folder holds ")
    assert any(d == "splits as found: train 6 images, val 3 images" for d in index.decisions)


def test_one_folder_below(tmp_path: Path) -> None:
    write_voc(tmp_path / "unpacked" / "data", scenes())
    index = read_data(tmp_path / "unpacked")
    assert index.decisions[0] == "the data lies one folder below: data/"
    assert index.root == tmp_path / "unpacked" / "data"


def test_two_formats_are_a_question(tmp_path: Path) -> None:
    write_coco(tmp_path, scenes())
    write_yolo(tmp_path, scenes())
    for task in (None, "detection"):
        with pytest.raises(ZooError) as error:
            read_data(tmp_path, task=task)  # type: ignore[arg-type]
        assert "holds COCO annotations (annotations/instances_train.json, " in str(error.value)
        assert str(error.value).endswith(
            "and YOLO labels (data.yaml); which are meant? --format coco or --format yolo"
        )
    assert read_data(tmp_path, format="coco").format == "coco"
    assert read_data(tmp_path, format="yolo").format == "yolo"


def test_the_task_settles_it(tmp_path: Path) -> None:
    data = scenes()
    write_voc(tmp_path, data)
    for scene in data:
        grey = scene.pixels[..., 0] // 64
        write_image(tmp_path / "SegmentationClass" / f"{scene.stem}.png", grey)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir()
    for split in ("train", "val"):
        names = "".join(f"{s.stem}\n" for s in data if s.split == split)
        (lists / f"{split}.txt").write_text(names)
    with pytest.raises(ZooError, match=r"which are meant\? --format voc or --format masks"):
        read_data(tmp_path)
    boxes = read_data(tmp_path, task="detection")
    assert boxes.format == "voc"
    assert "masks would fit too; the model's task is detection" in boxes.decisions[0]
    assert read_data(tmp_path, task="segmentation").format == "masks"


def test_the_annotation_file_itself(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "yolo", scenes())
    assert read_data(root / "data.yaml").items == read_data(root).items
    root = write_coco(tmp_path / "coco", scenes())
    file = root / "annotations" / "instances_train.json"
    index = read_data(file)
    assert index.root == root
    assert index.splits == ("train", "val")  # one file of a family names the family
    assert read_data(root, annotations="annotations/instances_train.json").items == index.items
    assert index.items == read_data(root).items


def test_photos_without_labels(tmp_path: Path) -> None:
    for i, scene in enumerate(scenes()):
        write_image(tmp_path / f"{i}.png", scene.pixels)
    with pytest.raises(ZooError) as error:
        read_data(tmp_path)
    text = str(error.value)
    assert (
        "holds 9 .png files and no labels that are known; expected one of COCO JSON, YOLO" in text
    )
    assert text.endswith("how each is laid out: python -m lightning_zoo data formats")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "labels.json is no COCO: it holds a list"),
        ('{"a": 1, "b": 2}', "labels.json is no COCO: it has the keys a, b"),
        ('{"shapes": [], "imagePath": "x.jpg"}', "labels.json is no COCO: it is LabelMe's"),
        ('{"a": [1, 2', "labels.json is no COCO: it cannot be read as JSON"),
        ("3", "labels.json is no COCO: it holds a int"),
    ],
)
def test_a_json_that_is_no_coco(content: str, said: str, tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", scenes(1, 0)[0].pixels)
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ZooError, match=re.escape(said)):
        read_data(tmp_path)
    with pytest.raises(ZooError, match=re.escape(said.partition("COCO: ")[2])):
        read_data(tmp_path / "labels.json")


@pytest.mark.parametrize(
    ("root", "options", "said"),
    [
        ("absent", {}, "there is no '.*absent' .* expected the folder of your data"),
        ("empty", {}, "is an empty folder; expected images and their labels"),
        ("a.zip", {}, "is an archive; unpack it first"),
        ("a.jpg", {}, "is a file; expected the folder of your data"),
        (".", {"format": "yollo"}, "unknown format 'yollo'; did you mean yolo?"),
        (".", {"val_share": 1.5}, "val_share is 1.5; expected a share from 0 to below 1"),
        (".", {"annotations": "x.json"}, "there is no annotation file 'x.json'"),
        (".", {"annotations": "a.jpg"}, "is of no known kind; expected .csv, .json"),
        ("b.yaml", {}, "b.yaml' is no annotation file that is known"),
        ("b.yaml", {"format": "yolo"}, "does not describe YOLO data; expected 'names'"),
        ("b.yaml", {"annotations": "c.yaml"}, "is a file already, and annotations names 'c.yaml'"),
        (".", {"format": "coco"}, "holds no COCO file with boxes"),
        (".", {"format": "voc"}, "holds no XML file; expected Annotations/"),
    ],
)
def test_mistakes(root: str, options: dict[str, str], said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.yaml").write_text("a: 1\n")
    with pytest.raises(ZooError, match=said) as error:
        read_data(tmp_path / root, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the small real data sets are not here")
def test_real_data() -> None:
    blood = read_data(SHARED / "bccd")
    assert (blood.format, len(blood.items), len(blood.problems)) == ("voc", 364, 0)
    assert blood.classes == ("Platelets", "RBC", "WBC")
    assert [sum(blood.count(s)) for s in blood.splits] == [2805, 1138, 945]
    coco = read_data(SHARED / "coco100")
    assert (coco.format, len(coco.classes), coco.target) == ("coco", 80, "masks")
    objects = [o for item in coco.items for o in item.objects]
    assert (len(objects), sum(o.crowd for o in objects)) == (746, 6)
    assert sum(not item.objects for item in coco.items) == 2
    names = json.loads((SHARED / "coco100/annotations/instances_val2017.json").read_text())
    assert coco.category_ids == tuple(sorted(c["id"] for c in names["categories"]))
