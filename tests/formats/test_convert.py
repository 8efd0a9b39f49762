"""Data written as another format, and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_files import WRITERS, scenes, write_coco, write_image, write_voc

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import CocoDataModule
from lightning_zoo.datamodules.coco_fake import write_fake_coco
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, read_data
from lightning_zoo.formats.convert import convert, one_outline, what_is_lost
from lightning_zoo.transforms.masks import decode_rle, pack, to_rle


def objects(index: DataIndex) -> dict[str, list[Any]]:
    """Return what an index holds, by the stem of the file, without where it stands."""
    return {
        f"{item.split}/{Path(item.file).stem}": [
            (index.classes[o.label], o.box, o.segmentation, o.keypoints, o.crowd)
            for o in item.objects
        ]
        for item in index.items
    }


def test_voc_to_coco_is_exact(tmp_path: Path) -> None:
    before = read_data(write_voc(tmp_path / "voc", scenes()))
    out = convert(before, tmp_path / "coco", "coco")
    assert out == tmp_path / "coco"
    assert sorted(p.name for p in out.iterdir()) == ["annotations", "train", "val"]
    assert objects(read_data(out)) == objects(before)
    assert what_is_lost(before, "coco") == ()
    for item in before.items:
        copied = (out / item.split / Path(item.file).name).read_bytes()
        assert copied == (before.root / item.file).read_bytes()


def test_coco_to_yolo_and_back(tmp_path: Path) -> None:
    before = read_data(write_coco(tmp_path / "coco", scenes()))
    yolo = convert(before, tmp_path / "yolo", "yolo")
    after = read_data(convert(read_data(yolo), tmp_path / "again", "coco"))
    found, expected = objects(after), objects(before)
    assert found.keys() == expected.keys()
    for file, boxes in expected.items():
        assert [o[0] for o in found[file]] == [o[0] for o in boxes]
        for a, b in zip(found[file], boxes, strict=True):
            np.testing.assert_allclose(a[1], b[1], rtol=0, atol=1e-4)
    assert not after.problems
    assert sum(map(len, found.values())) == 15


def test_our_data_module_reads_it(tmp_path: Path) -> None:
    write_fake_coco(tmp_path / "fake", images=4, size=48)
    for kind in ("instances", "person_keypoints"):
        file = f"annotations/{kind}_train2017.json"
        index = read_data(tmp_path / "fake", annotations=file)
        out = convert(index, tmp_path / kind, "coco")
        target = "masks" if kind == "instances" else "keypoints"
        theirs = CocoDataModule(root=str(tmp_path / "fake"), target=target, workers=0)  # type: ignore[arg-type]
        ours = CocoDataModule(root=str(out), train="train", val="val", target=target, workers=0)  # type: ignore[arg-type]
        for module in (theirs, ours):
            module.configure(BatchPlan(2, 2, 1, 1), seed=0)
            module.setup("fit")
        assert ours.class_names == theirs.class_names
        a, b = theirs.datasets["val"], ours.datasets["val"]
        assert len(a) == len(b) == 4
        for i in range(4):
            x, y = (d.load(i, np.random.default_rng(0))["target"] for d in (a, b))
            for name in ("boxes", "labels", "area", target):
                assert np.array_equal(x[name], y[name]), name


def test_masks_become_outlines(tmp_path: Path) -> None:
    write_fake_coco(tmp_path / "fake", images=8, size=96)
    file = "annotations/instances_train2017.json"
    before = read_data(tmp_path / "fake", annotations=file)
    after = read_data(convert(before, tmp_path / "yolo", "yolo"))
    assert after.target == "masks"
    lost = what_is_lost(before, "yolo")
    assert lost[0] == "2 crowds are left out"
    assert "masks become outlines; their holes are filled" in lost[1]
    count = 0
    by_stem = {f"{i.split}/{Path(i.file).stem}": i for i in after.items}
    for item in before.items:
        other = by_stem[f"{item.split}/{Path(item.file).stem}"]
        kept = [o for o in item.objects if not o.crowd]
        assert [o.label for o in other.objects] == [o.label for o in kept]
        for a, b in zip(kept, other.objects, strict=True):
            first, second = (
                decode_rle(to_rle(pack(o.segmentation, item.height, item.width), item.height,
                                  item.width)).astype(bool)
                for o in (a, b)
            )  # fmt: skip
            assert (first & second).sum() / (first | second).sum() > 0.8
            count += 1
    assert count > 20


def test_parts_are_joined_by_a_bridge_without_area() -> None:
    parts = [[0, 0, 10, 0, 10, 10, 0, 10], [14, 0, 20, 0, 20, 6, 14, 6]]
    outline = one_outline(parts, 30, 30)
    x, y = outline.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == 10 * 10 + 6 * 6
    assert {tuple(p) for p in outline.tolist()} == {
        (x, y) for part in parts for x, y in zip(part[::2], part[1::2], strict=True)
    }


def test_a_hole_is_filled_and_the_outline_runs_along_the_pixels() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:14, 5:25] = 1
    mask[7:9, 10:12] = 0
    flat = np.concatenate(([0], mask.T.ravel(), [2]))
    ends = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate(([0], ends))).tolist()
    outline = one_outline({"size": [20, 30], "counts": runs}, 20, 30)
    assert np.abs(outline.min(axis=0) - (5, 4)).max() <= 0.125
    assert np.abs(outline.max(axis=0) - (25, 14)).max() <= 0.125
    assert len(outline) == 4


def test_keypoints_to_yolo_and_back(tmp_path: Path) -> None:
    write_fake_coco(tmp_path / "fake", images=4, size=64)
    file = "annotations/person_keypoints_train2017.json"
    before = read_data(tmp_path / "fake", annotations=file)
    yolo = read_data(convert(before, tmp_path / "yolo", "yolo"))
    after = read_data(convert(yolo, tmp_path / "coco", "coco"))
    assert [p.name for p in sorted((tmp_path / "coco" / "annotations").iterdir())] == [
        "person_keypoints_train.json", "person_keypoints_val.json"]  # fmt: skip
    for index in (yolo, after):
        assert (index.keypoints, index.flip_pairs) == (before.keypoints, before.flip_pairs)
        for file, expected in objects(before).items():
            split, _, stem = file.partition("/")
            for a, b in zip(objects(index)[f"{split}/{stem}"], expected, strict=True):
                np.testing.assert_allclose(a[3], b[3], rtol=0, atol=1e-4)


def test_boxes_are_cut_off_for_yolo(tmp_path: Path) -> None:
    index = read_data(write_coco(tmp_path / "coco", scenes(1, 0)), val_share=0)
    (item,) = index.items
    first = replace(item.objects[0], box=(-4, -4, 10, 20))
    away = replace(item.objects[0], box=(100, 0, 5, 5))
    index = index.with_items([replace(item, objects=(first, away))])
    after = read_data(convert(index, tmp_path / "yolo", "yolo"), val_share=0)
    (found,) = after.items[0].objects
    np.testing.assert_allclose(found.box, (0, 0, 6, 16), rtol=0, atol=1e-6)
    assert after.problems == ()


def test_background_stays_background_and_unlabelled_stays_so(tmp_path: Path) -> None:
    root = WRITERS["yolo"](tmp_path / "yolo", scenes())
    (root / "labels" / "train" / "train_2.txt").unlink()
    before = read_data(root)
    after = read_data(convert(before, tmp_path / "out", "yolo"))
    assert after.unlabelled == before.unlabelled == ("images/train/train_2.png",)
    assert objects(after).keys() == objects(before).keys()


def test_names_that_meet(tmp_path: Path) -> None:
    pixels = scenes(1, 0)[0].pixels
    images = ["x/a.png", "y/a.png", "A.jpg", "x_a.png"]
    for name in images:
        write_image(tmp_path / "images" / name, pixels)
    content = {
        "images": [{"id": i, "file_name": n, "height": 64, "width": 56}
                   for i, n in enumerate(images)],
        "annotations": [{"id": 1 + i, "image_id": i, "category_id": 1, "bbox": [i, 0, 5, 5]}
                        for i in range(4)],
        "categories": [{"id": 1, "name": "a"}],
    }  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps(content))
    before = read_data(tmp_path, format="coco", val_share=0)  # x/ and y/ might be classes
    for to in ("coco", "yolo"):
        after = read_data(convert(before, tmp_path / "out" / to, to), val_share=0)
        stems = {Path(i.file).stem.lower() for i in after.items}
        assert len(stems) == len(after.items) == 4
        boxes = sorted(round(o.box[0], 6) for i in after.items for o in i.objects)
        assert boxes == [0, 1, 2, 3]


def test_masks_of_classes_become_objects(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 3:9] = 1
    mask[10:15, 20:30] = 1
    mask[10:15, 3:5] = 2
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "a.png", np.zeros((20, 30, 3), np.uint8))
        write_image(tmp_path / "masks" / split / "a.png", mask)
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\n")
    before = read_data(tmp_path)
    assert before.format == "masks"
    after = read_data(convert(before, tmp_path / "out" / "coco", "coco"))
    assert after.classes == ("cat", "dog")
    for item in after.items:
        found = [(o.label, o.box, o.area) for o in item.objects]
        assert found == [(0, (3, 2, 6, 4), 24), (0, (20, 10, 10, 5), 50), (1, (3, 10, 2, 5), 10)]
        union = np.zeros((20, 30), np.uint8)
        for o in item.objects:
            rle = to_rle(pack(o.segmentation, 20, 30), 20, 30)
            union += decode_rle(rle).T * np.uint8(o.label + 1)
        assert np.array_equal(union, mask)
    yolo = read_data(convert(before, tmp_path / "out" / "yolo", "yolo"))
    assert [yolo.target, yolo.count("train")] == ["masks", [2, 1]]
    assert "which objects touch" in what_is_lost(before, "coco")[0]
    (tmp_path / "classes.txt").write_text("background\n_void_\nBG\n")
    with pytest.raises(ZooError, match="has no class but background, _void_, BG"):
        convert(read_data(tmp_path, format="masks"), tmp_path / "out" / "none", "coco")


def test_links(tmp_path: Path) -> None:
    index = read_data(write_voc(tmp_path / "voc", scenes()))
    out = convert(index, tmp_path / "out", "yolo", link=True)
    images = sorted((out / "images" / "train").iterdir())
    assert all(path.is_symlink() for path in images)
    assert len(read_data(out).items) == len(index.items)


def test_refused(tmp_path: Path) -> None:
    index = read_data(write_voc(tmp_path / "voc", scenes()))
    with pytest.raises(ZooError, match="voc' is there and not empty; name a folder that is new"):
        convert(index, tmp_path / "voc", "coco")
    with pytest.raises(ZooError, match="unknown format to convert to 'voc'"):
        convert(index, tmp_path / "out", "voc")
    labels = replace(index, task="classification", format="folders")
    with pytest.raises(
        ZooError, match=r"holds data for classification \(folders\), which yolo has"
    ):
        convert(labels, tmp_path / "out", "yolo")
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"cannot write .*file"):
        convert(index, tmp_path / "file" / "out", "coco")


def test_nothing_half_written(tmp_path: Path) -> None:
    index = read_data(write_voc(tmp_path / "voc", scenes()))
    (index.root / index.items[-1].file).unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(ZooError, match=r"cannot write .*: No such file or directory .*val_2.png"):
        convert(index, tmp_path / "out", "coco")
    assert [*(tmp_path / "out").iterdir()] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "voc"]


def test_mirrored_keypoints_are_kept_whatever_their_names(tmp_path: Path) -> None:
    write_fake_coco(tmp_path / "fake", images=4, size=64)
    file = "annotations/person_keypoints_train2017.json"
    before = read_data(tmp_path / "fake", annotations=file)
    names = tuple(f"point {i}" for i in range(len(before.keypoints)))
    odd = replace(before, keypoints=names, flip_pairs=((0, 2),))
    assert read_data(convert(odd, tmp_path / "coco", "coco")).flip_pairs == ((0, 2),)
