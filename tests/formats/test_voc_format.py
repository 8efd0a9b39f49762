"""Pascal VOC files of many exporters, sound and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_files import CLASSES, scenes, write_image, write_voc

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, read_data
from lightning_zoo.formats.voc import XmlError, parse_xml

PIXELS = scenes(1, 0)[0].pixels  # 64 x 56
SIZE = "<size><width>56</width><height>64</height></size>"


def thing(name: str = "cat", box: str = "1 2 10 20", more: str = "") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{k}>{v}</{k}>" for k, v in corners)
    return f"<object><name>{name}</name>{more}<bndbox>{inner}</bndbox></object>"


def write(
    root: Path, *objects: str, stem: str = "a", folder: str = "", size: str = SIZE
) -> DataIndex:
    write_image(root / folder / f"{stem}.png", PIXELS)
    (root / folder / f"{stem}.xml").write_text(
        f"<annotation><filename>{stem}.png</filename>{size}{''.join(objects)}</annotation>"
    )
    return read_data(root, val_share=0)


def test_boxes_are_exact(tmp_path: Path) -> None:
    data = scenes()
    index = read_data(write_voc(tmp_path, data))
    assert index.classes == CLASSES
    by_stem = {scene.stem: scene for scene in data}
    for item in index.items:
        scene = by_stem[Path(item.file).stem]
        assert [(o.label, o.box) for o in item.objects] == scene.objects
        assert item.split == scene.split
        assert (item.height, item.width) == scene.pixels.shape[:2]
    assert any("xmin 1, xmax 10 is x 0, width 10" in d for d in index.decisions)


def test_an_exporter_that_counts_from_zero(tmp_path: Path) -> None:
    index = write(tmp_path, thing(box="0 5 10 20"), thing(box="3.5 5 10 20"))
    assert [o.box for o in index.items[0].objects] == [(0, 5, 10, 15), (3.5, 5, 6.5, 15)]
    assert any("boxes are read as they are: 1 begin at 0" in d for d in index.decisions)


def test_difficult_objects(tmp_path: Path) -> None:
    hard = thing(more="<difficult>1</difficult>")
    index = write(tmp_path, hard, thing())
    assert [o.crowd for o in index.items[0].objects] == [True, False]
    assert any("1 object marked difficult are neither trained on" in d for d in index.decisions)
    index = write(tmp_path, hard)
    assert [o.crowd for o in index.items[0].objects] == [False]


def test_roboflow_folders(tmp_path: Path) -> None:
    for folder in ("train", "valid", "test"):
        index = write(tmp_path, thing(folder), stem="same", folder=folder)
    assert [(i.file, i.split) for i in index.items] == [
        ("train/same.png", "train"),
        ("valid/same.png", "val"),
        ("test/same.png", "test"),
    ]
    assert index.classes == ("test", "train", "valid")
    assert [o.label for i in index.items for o in i.objects] == [1, 2, 0]


def test_split_lists(tmp_path: Path) -> None:
    root = write_voc(tmp_path, scenes())
    sets = root / "ImageSets" / "Main"
    (sets / "trainval.txt").write_text("train_0\nval_0\n")
    (sets / "cat_train.txt").write_text("train_1 1\n")
    (sets / "test.txt").write_text("train_0\nnowhere\n")
    index = read_data(root)
    assert [len(index.of(s)) for s in ("train", "val", "test")] == [6, 3, 0]
    assert any("trainval.txt is not read" in d for d in index.decisions)
    kinds = [(p.kind, p.where) for p in index.problems]
    assert kinds == [("image in two splits", "ImageSets/Main/test.txt: line 1"),
                     ("image that is not there", "ImageSets/Main/test.txt: line 2")]  # fmt: skip
    (sets / "train.txt").unlink()
    (sets / "val.txt").unlink()
    index = read_data(root, val_share=0)
    assert [i.file for i in index.of("train")] == ["JPEGImages/train_0.png", "JPEGImages/val_0.png"]
    assert any("7 images with XML are in no list" in d for d in index.decisions)


def test_images_without_xml(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png", PIXELS)
    assert write(tmp_path, thing()).unlabelled == ("b.png",)


def test_no_objects_is_background(tmp_path: Path) -> None:
    write(tmp_path, thing())
    index = write(tmp_path, stem="b")
    assert [len(i.objects) for i in index.items] == [1, 0]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>x</height></size>"])
def test_the_size_from_the_image(size: str, tmp_path: Path) -> None:
    index = write(tmp_path, thing(), size=size)
    assert (index.items[0].width, index.items[0].height) == (56, 64)
    assert [p.kind for p in index.problems] == ["no image size"]


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (thing(name=" "), "object without name"),
        (thing(box="1 2 x 4"), "bad box"),
        (thing(box="1 2 nan 4"), "bad box"),
        ("<object><name>cat</name></object>", "bad box"),
    ],
)
def test_bad_objects(broken: str, kind: str, tmp_path: Path) -> None:
    index = write(tmp_path, thing(), broken)
    (problem,) = index.problems
    assert (problem.severity, problem.kind, problem.where) == ("error", kind, "a.xml: object 2")
    assert len(index.items[0].objects) == 1


def test_damaged_files_and_missing_images(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text("<annotation><object>")
    (tmp_path / "c.xml").write_text(f"<annotation>{SIZE}{thing()}</annotation>")
    (tmp_path / "d.xml").write_text("<other/>")
    index = write(tmp_path, thing())
    assert [(p.kind, p.where) for p in index.problems] == [
        ("damaged XML", "b.xml"), ("labels without image", "c.xml")]  # fmt: skip
    assert len(index.items) == 1


def test_entities_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    with pytest.raises(XmlError, match="it declares entities"):
        parse_xml(bomb.encode())
    (tmp_path / "secret").write_text("secret")
    outside = f'<!DOCTYPE a [<!ENTITY b SYSTEM "{tmp_path}/secret">]><annotation>&b;</annotation>'
    with pytest.raises(XmlError, match="it declares entities"):
        parse_xml(outside.encode())
    for data in (b"", b"<a>", b"<a/><b/>", b"\xff\xfe<", b"<a>&nbsp;</a>"):
        with pytest.raises(XmlError):
            parse_xml(data)
    assert (
        parse_xml('<?xml version="1.0" encoding="latin-1"?><a>é</a>'.encode("latin-1")).text == "é"
    )


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text("<annotation>")
    with pytest.raises(
        ZooError, match=r"no XML file .* that can be read: b.xml: no element|unclosed"
    ):
        read_data(tmp_path)
    (tmp_path / "b.xml").write_text("<annotation></annotation>")
    with pytest.raises(ZooError, match=r"none of the 1 XML file in .* has its image there"):
        read_data(tmp_path)
