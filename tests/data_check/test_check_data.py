"""Each kind of mistake is made by hand in a tiny data set, and must be found, named and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from videos import moving, write_video

from lightning_zoo.data_check import CheckReport, check_data
from lightning_zoo.data_check.duplicates import ALIKE, NEAR, near_pairs
from lightning_zoo.data_check.looking import Look, look_at, small_views
from lightning_zoo.data_check.objects import iou, mask_box
from lightning_zoo.data_check.report import MODELS
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.index import DataIndex, Item, MaskCoding, Object, Problem
from lightning_zoo.models.registry import get_entry
from lightning_zoo.transforms.decode import UNKNOWN
from lightning_zoo.transforms.masks import compress

WIDTH, HEIGHT = 64, 48


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return soft blobs of colour, another picture for each seed."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: NDArray[np.uint8], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def detection(root: Path, *items: Item, classes: tuple[str, ...] = ("cat", "dog")) -> DataIndex:
    return DataIndex(root, "coco", "detection", classes, items)


def one_image(root: Path, *objects: Object, **facts: Any) -> DataIndex:
    save(root / "a.png", picture(0))
    return detection(root, Item("a.png", "train", objects=objects, **facts), classes=("cat",))


def found(report: CheckReport, kind: str) -> list[Problem]:
    return [problem for problem in report.problems if problem.kind == kind]


def the(report: CheckReport, kind: str) -> Problem:
    problems = found(report, kind)
    assert len(problems) == 1, [(p.kind, p.where) for p in report.problems]
    return problems[0]


# box of x, y, width, height in 64 x 48: kind, severity and figures
BOXES = {
    (10.0, 10.0, 20.0, 20.0): None,
    (0.0, 0.0, 64.0, 48.0): None,
    (-0.6, 0.0, 65.0, 48.0): None,  # rounding
    (10.0, 10.0, -4.0, 5.0): ("inverted box", "error", "width -4"),
    (10.0, 10.0, 4.0, 0.0): ("box without area", "error", "height 0"),
    (64.0, 0.0, 5.0, 5.0): ("box outside the image", "error", "the image has 64 x 48"),
    (-9.0, 3.0, 8.0, 8.0): ("box outside the image", "error", "x -9"),
    (-3.0, 40.0, 20.0, 20.0): ("box over the edge of the image", "warning",
                               "3 px at the left, 12 px at the bottom of 64 x 48"),
    (float("nan"), 0.0, 5.0, 5.0): ("box that is no number", "error", "x nan"),
}  # fmt: skip


@pytest.mark.parametrize("box", BOXES)
def test_boxes(tmp_path: Path, box: tuple[float, float, float, float]) -> None:
    report = check_data(one_image(tmp_path, Object(0, box, where="line 3")))
    kinds = {expected[0] for expected in BOXES.values() if expected}
    seen = [p for p in report.problems if p.kind in kinds]
    if BOXES[box] is None:
        assert not seen
        return
    kind, severity, figures = BOXES[box]
    (problem,) = seen
    assert (problem.kind, problem.severity, problem.where) == (kind, severity, "a.png, line 3")
    assert figures in problem.what
    assert problem.fix


def test_iou_by_hand() -> None:
    a, b = (0.0, 0.0, 4.0, 2.0), (2.0, 1.0, 4.0, 2.0)
    assert iou(a, b) == iou(b, a) == pytest.approx(2 / 14)
    assert iou(a, a) == 1
    assert iou(a, (4.0, 0.0, 1.0, 1.0)) == iou(a, (0.0, 0.0, 0.0, 0.0)) == 0


def test_mask_box_is_that_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        x, y = rng.integers(0, WIDTH - 9), rng.integers(0, HEIGHT - 9)
        mask[y : y + 9, x : x + 9] = rng.random((9, 9)) < 0.3
        rows, columns = np.nonzero(mask)
        column_wise = mask.T.ravel()
        edges = np.flatnonzero(np.diff(column_wise, prepend=0, append=0))
        runs = np.diff([0, *edges, column_wise.size]).tolist()
        rle = {"size": [HEIGHT, WIDTH], "counts": compress(runs).decode()}
        around, area = mask_box(rle, WIDTH, HEIGHT)
        assert area == mask.sum()
        assert around == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    triangle = [[10.0, 10.0, 20.0, 10.0, 10.0, 30.0]]
    assert mask_box(triangle, WIDTH, HEIGHT) == ((10.0, 10.0, 10.0, 20.0), 100.0)


def test_masks_and_keypoints(tmp_path: Path) -> None:
    box = (10.0, 10.0, 10.0, 10.0)
    square = [[10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0]]
    away = [[40.0, 10.0, 50.0, 10.0, 50.0, 20.0, 40.0, 20.0]]
    index = one_image(
        tmp_path,
        Object(0, box, square, keypoints=(12.0, 12.0, 2.0, 0.0, 0.0, 0.0), where="1"),
        Object(0, (10.0, 10.0, 30.0, 30.0), away, where="2"),
        Object(0, (1.0, 1.0, 5.0, 5.0), [[1.0, 1.0, 3.0, 3.0]], where="3"),
        Object(0, (1.0, 30.0, 5.0, 5.0), {"size": [9, 9], "counts": [81]}, where="4"),
        Object(0, (30.0, 30.0, 9.0, 9.0), keypoints=(70.0, 31.0, 1.0, 99.0, 0.0, 0.0), where="5"),
    )
    report = check_data(replace(index, keypoints=("nose", "tail")))
    missed = the(report, "mask that misses its box")
    assert missed.where == "a.png, 2"
    assert missed.what.endswith("IoU 0.00")
    assert (the(report, "empty mask").where, the(report, "empty mask").severity) == (
        "a.png, 3", "error")  # fmt: skip
    assert "expected that of the image, [48, 64]" in the(report, "damaged mask").what
    outside = the(report, "keypoint outside the image")
    assert (outside.where, outside.what) == ("a.png, 5", "nose at (70, 31) of 64 x 48")


def test_an_object_twice_and_a_tiny_one(tmp_path: Path) -> None:
    report = check_data(
        one_image(
            tmp_path,
            Object(0, (10.0, 10.0, 20.0, 20.0), where="1"),
            Object(0, (10.0, 10.0, 20.0, 20.4), where="2"),
            Object(0, (14.0, 10.0, 20.0, 20.0), where="3"),
            Object(0, (10.0, 10.0, 20.0, 20.0), where="4", crowd=True),
            Object(0, (40.0, 40.0, 5.0, 0.4), where="5"),
        )
    )
    twice = the(report, "object labelled twice")
    assert (twice.where, twice.what) == ("a.png, 1 and 2", "two boxes of 'cat' with IoU 0.98")
    # 64 x 48 becomes 1067 x 800, so 0.4 pixels become 6.7
    tiny = the(report, "tiny object").what
    assert tiny.startswith(
        "1 of 5 objects are below 8 px at the usual size of 1067 x 800, the small"
    )
    assert tiny.endswith("has 5 x 0.4 in the file")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg", picture(1))
    data = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[:-100])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    names = ("good.jpg", "cut.jpg", "empty.jpg", "text.jpg", "gone.jpg")
    items = tuple(Item(name, "train", labels=(i % 2,)) for i, name in enumerate(names))
    report = check_data(DataIndex(tmp_path, "folders", "classification", ("a", "b"), items))
    broken = {p.where: p.what for p in found(report, "image that cannot be read")}
    assert set(broken) == set(names[1:])
    assert "truncated" in broken["cut.jpg"]
    assert broken["empty.jpg"] == "the file is empty"
    assert broken["text.jpg"] == UNKNOWN
    assert broken["gone.jpg"] == "No such file or directory"
    assert (report.worst, report.status()) == ("error", 1)
    assert "mend the errors, then: python -m lightning_zoo data check" in report.text()
    assert not found(check_data(report.index, files=False), "image that cannot be read")


def test_images_that_exif_turns(tmp_path: Path) -> None:
    save(tmp_path / "six.jpg", picture(1), exif=turned(6))
    save(tmp_path / "three.jpg", picture(2), exif=turned(3))
    save(tmp_path / "one.jpg", picture(3), exif=turned(1))
    kind = "image that EXIF turns"
    thing = (Object(0, (1.0, 1.0, 9.0, 9.0)),)

    def judge(file: str, width: int, height: int) -> Problem:
        item = Item(file, "train", width, height, objects=thing)
        return the(check_data(detection(tmp_path, item)), kind)

    fits = judge("six.jpg", 64, 48)
    assert (fits.severity, "so they fit as it is stored" in fits.what) == ("note", True)
    misses = judge("six.jpg", 48, 64)
    assert misses.severity == "error"
    assert "orientation 6, stored as 64 x 48; its labels are for 48 x 64, so they were drawn on" \
        in misses.what  # fmt: skip
    assert "exif_transpose" in misses.fix
    for file, width, height in (("six.jpg", 0, 0), ("three.jpg", 64, 48)):
        unsure = judge(file, width, height)
        assert (unsure.severity, "nothing tells" in unsure.what) == ("warning", True)
    labelled = Item("six.jpg", "train", labels=(0,))
    report = check_data(DataIndex(tmp_path, "csv", "classification", ("a", "b"), (labelled,)))
    assert the(report, kind).severity == "note"
    upright = Item("one.jpg", "train", 64, 48, objects=thing)
    assert not found(check_data(detection(tmp_path, upright)), kind)


def test_sizes_and_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", picture(0))
    save(tmp_path / "long.png", picture(1, 300, 40))
    save(tmp_path / "small.png", picture(2, 20, 31))
    monkeypatch.setattr("lightning_zoo.data_check.files.LARGE_PIXELS", 300 * 40 - 1)
    items = (Item("a.png", "train", 48, 64), Item("long.png", "train"), Item("small.png", "train"))
    report = check_data(replace(detection(tmp_path, *items), unlabelled=("b.png",)))
    other = the(report, "image of another size than its labels say")
    assert other.severity == "error"
    assert other.what.endswith("64 x 48 pixels, its labels are for 48 x 64, the same on its side")
    assert "one side 7.5 times the other" in the(report, "image of an extreme shape").what
    assert the(report, "very large image").where == "long.png"
    assert the(report, "very small image").where == "small.png"
    assert the(report, "image without labels").where == "b.png"
    assert len(found(report, "image without objects")) == 3
    assert report.summary["width"] == {"min": 20, "median": 64, "max": 300}


def classified(root: Path, *items: Item) -> DataIndex:
    return DataIndex(root, "folders", "classification", ("ant", "bee"), items)


def test_the_same_picture_twice(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(0))
    (tmp_path / "same.png").write_bytes((tmp_path / "a.png").read_bytes())
    save(tmp_path / "again.png", picture(0), compress_level=0)  # other bytes, same pixels
    softer = np.clip(picture(0).astype(float) * 0.9 + 10, 0, 255).astype(np.uint8)
    save(tmp_path / "near.jpg", softer, quality=60)
    save(tmp_path / "other.png", picture(5))
    index = classified(
        tmp_path,
        Item("a.png", "train", labels=(0,)),
        Item("same.png", "train", labels=(0,)),
        Item("other.png", "train", labels=(1,)),
        Item("again.png", "val", labels=(0,)),
        Item("near.jpg", "val", labels=(0,)),
    )
    report = check_data(index)
    leak = the(report, "same image in two splits")
    assert (leak.severity, leak.where) == ("warning", "a.png, same.png, again.png")
    assert leak.what == "the same pixels in other bytes in train and val"
    near = the(report, "nearly the same image in two splits")
    assert near.where == "near.jpg, a.png"
    assert "bits (and to 1 more)" in near.what
    clean = check_data(index.with_items(index.items[:3]))
    assert not found(clean, "same image in two splits")
    twice = the(clean, "same image twice in a split")
    assert (twice.severity, twice.what) == ("note", "the same bytes in train")
    torn = [index.items[0], replace(index.items[1], labels=(1,)), index.items[2]]
    both = the(check_data(index.with_items(torn)), "same image with different labels")
    assert (both.severity, both.what) == ("error", "the same bytes, labelled ant and bee")


def test_near_pairs_are_those_of_the_slow_formula() -> None:
    rng = np.random.default_rng(0)
    views = [small_views(picture(seed)) for seed in range(6)]
    looks = []
    for i in range(60):
        thumbnail, gradients = views[i % 6]
        flips = rng.choice(64, i % 6, replace=False)
        bits = gradients.copy()
        bits[flips] ^= True
        noisy = thumbnail + rng.normal(0, 2 + i % 9, thumbnail.shape)
        looks.append(Look(gradients=bits, thumbnail=np.clip(noisy, 0, 255).astype(np.uint8)))
    flat = Look(gradients=np.zeros(64, bool), thumbnail=np.full((16, 16), 9, np.uint8))
    here, there = [*looks[:30], flat], [flat, *looks[30:]]
    expected = []
    for a, one in enumerate(here):
        for b, other in enumerate(there):
            distance = sum(x != y for x, y in zip(one.gradients, other.gradients, strict=True))
            if one is flat or other is flat or distance > NEAR:
                continue
            if np.corrcoef(one.thumbnail.ravel(), other.thumbnail.ravel())[0, 1] >= ALIKE:
                expected.append((a, b, distance))
    assert 10 < len(expected) < 150
    assert sorted(near_pairs(here, there)) == expected
    assert near_pairs([], there) == near_pairs(here, []) == near_pairs([flat], [flat]) == []


def test_other_pictures_are_not_near() -> None:
    looks = []
    for seed in range(60):
        thumbnail, gradients = small_views(picture(seed))
        looks.append(Look(gradients=gradients, thumbnail=thumbnail))
    assert near_pairs(looks[:30], looks[30:]) == []


def test_entries_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", picture(ord(name)))
    index = detection(
        tmp_path,
        Item("a.png", "train", number=7, source="x.json"),
        Item("a.png", "val", number=7, source="y.json"),
        Item("b.png", "train", number=7, source="x.json"),
    )
    report = check_data(index)
    assert (the(report, "image listed twice").where, the(report, "image listed twice").what) == (
        "a.png", "in train and val")  # fmt: skip
    assert the(report, "id of two images").where == "a.png, b.png"
    assert not found(report, "same image in two splits")  # it is said once


def test_classes(tmp_path: Path) -> None:
    names = ("many", "few", "never", "untrained", "unmeasured")
    labels = {"train": [0] * 120 + [1] * 2 + [4] * 10, "val": [0, 1, 3]}
    items = [
        Item(f"{split}{i}.png", split, labels=(label,))
        for split in ("train", "val")
        for i, label in enumerate(labels[split])
    ]
    index = DataIndex(tmp_path, "csv", "classification", names, tuple(items))
    report = check_data(index, files=False)
    assert [(p.kind, p.where, p.what) for p in report.problems] == [
        ("class with few examples", "few", "2 images in train"),
        ("class that is never used", "never", "no image has it"),
        ("class that training lacks", "untrained", "1 in val, none in train"),
        ("class that val lacks", "unmeasured", "10 images in train, none in val"),
        ("unbalanced classes", "train", "120 images of 'many' and 2 of 'few': 60 to 1"),
    ]
    assert [p.severity for p in report.problems] == ["warning"] * 3 + ["note"] * 2
    assert report.summary["splits"]["val"]["classes"] == {
        "many": 1, "few": 1, "never": 0, "untrained": 1, "unmeasured": 0,
    }  # fmt: skip
    assert report.summary["balance"] == 121
    alone = DataIndex(tmp_path, "folders", "classification", ("x",), tuple(items[:1]))
    assert the(check_data(alone, files=False), "one class").severity == "error"


def test_mask_files(tmp_path: Path) -> None:
    masks = {
        "good": np.array([[0] * WIDTH] * 24 + [[1] * WIDTH] * 24, np.uint8),
        "strange": np.full((HEIGHT, WIDTH), 7, np.uint8),
        "void": np.full((HEIGHT, WIDTH), 255, np.uint8),
        "plain": np.zeros((HEIGHT, WIDTH), np.uint8),
        "small": np.zeros((8, 8), np.uint8),
    }
    items = []
    for seed, (name, mask) in enumerate(masks.items()):
        save(tmp_path / f"images/{name}.png", picture(seed))
        save(tmp_path / f"masks/{name}.png", mask)
        items.append(Item(f"images/{name}.png", "train", mask=f"masks/{name}.png"))
    save(tmp_path / "images/alone.png", picture(9))
    items.append(Item("images/alone.png", "train"))
    index = DataIndex(
        tmp_path, "masks", "segmentation", ("ground", "cell", "rest"), tuple(items),
        masks=MaskCoding(ignore=255),
    )  # fmt: skip
    report = check_data(index)
    bad = {p.where: p.what for p in found(report, "mask that cannot be used")}
    assert set(bad) == {"masks/strange.png", "masks/small.png"}
    assert "it holds the value 7 at 3072 of 3072 pixels" in bad["masks/strange.png"]
    assert "it has 8 x 8 pixels" in bad["masks/small.png"]
    assert the(report, "empty mask").where == "masks/void.png"
    assert the(report, "mask of one class").what == "every pixel is 'ground'"
    assert the(report, "image without a mask").where == "images/alone.png"
    assert the(report, "class that is never used").where == "rest"
    assert report.summary["splits"]["train"]["classes"] == {"ground": 2, "cell": 1, "rest": 0}


def test_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(30, seed=1))
    write_video(tmp_path / "short.mp4", moving(8, seed=4))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "copy.mp4").write_bytes(data)
    (tmp_path / "none.mp4").write_bytes(b"no video")
    items = (
        Item("a.mp4", "train", labels=(0,)),
        Item("short.mp4", "train", labels=(1,)),
        Item("none.mp4", "train", labels=(1,)),
        Item("copy.mp4", "val", labels=(0,)),
    )
    report = check_data(DataIndex(tmp_path, "video_csv", "video", ("run", "sit"), items))
    assert the(report, "video that cannot be read").where == "none.mp4"
    assert the(report, "short video").what.startswith("8 frames, 0.27 s")
    assert the(report, "same video in two splits").where == "a.mp4, copy.mp4"
    assert report.summary["frames"] == {"min": 8, "median": 30, "max": 30}
    assert report.summary["seconds"]["max"] == 1.0
    assert report.summary["width"]["max"] == 64


def test_threads_find_the_same(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        save(tmp_path / name, picture(i % 5))
    index = classified(tmp_path, *(Item(name, "train", labels=(0,)) for name in names))
    one, several = (check_data(index, workers=workers).as_json() for workers in (1, 4))
    assert one == several
    assert one["counts"]["note"] == 5  # groups of copies


def test_a_report_for_people_and_programs(tmp_path: Path) -> None:
    boxes = [Object(0, (60.0, 1.0, 20.0 + i, 9.0), where=f"line {i}") for i in range(5)]
    index = replace(one_image(tmp_path, *boxes), decisions=("format coco: it says so",))
    report = check_data(index)
    text = report.text()
    assert "\n  format coco: it says so\n" in text
    assert "train 1 image, 5 objects\n" in text
    head, _, rest = text.partition("warning: box over the edge of the image (5)\n")
    assert head
    lines = rest.splitlines()
    assert lines[0].startswith("  a.png, line 0: x 60, y 1, width 20, height 9: 16 px at the right")
    assert lines[3] == "  and 2 more (--json names them all)"
    assert lines[4].startswith("  fix: ")
    assert text.splitlines()[-1].endswith(
        f"next: python -m lightning_zoo finetune --model {MODELS['boxes']} --data {tmp_path}"
    )
    assert (report.status(), report.status(strict=True), report.worst) == (0, 1, "warning")
    read = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert len(read["problems"]) == len(report.problems)
    assert read["counts"] == {s: report.count(s) for s in ("error", "warning", "note")}
    assert read["problems"][0]["where"] == "a.png, line 0"


def test_many_classes_make_a_short_table(tmp_path: Path) -> None:
    names = tuple(f"c{i}" for i in range(100))
    items = [
        Item(f"{i}-{n}.png", "train", labels=(i,)) for i in range(90) for n in range(1 + 90 - i)
    ]
    index = DataIndex(tmp_path, "csv", "classification", names, tuple(items))
    table = check_data(index, files=False).text().split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in table] == [
        "class", *(f"c{i}" for i in range(6)), "...", *(f"c{i}" for i in range(84, 90)), "never:",
    ]  # fmt: skip
    assert table[7] == "... 78 classes between"
    assert table[-1] == "never: 10 classes"


def test_models_to_begin_with_are_in_the_registry() -> None:
    for kind, name in MODELS.items():
        expected = "detection" if kind in ("boxes", "masks", "keypoints") else kind
        assert get_entry(name).task == expected


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is nothing in .* to check: no image or video"):
        check_data(classified(tmp_path))


def test_look_at_hashes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(0))
    save(tmp_path / "tall.png", picture(0).reshape(WIDTH, HEIGHT, 3))
    a, tall = look_at(tmp_path / "a.png"), look_at(tmp_path / "tall.png")
    assert (a.width, a.height, a.orientation, a.error) == (WIDTH, HEIGHT, 1, "")
    assert a.pixel_hash != tall.pixel_hash  # the same bytes in another shape
