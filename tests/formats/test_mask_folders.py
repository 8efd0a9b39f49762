"""Folders of masks: layouts, names, what the pixels mean, and what is said about mistakes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import MaskCoding, mask_folders, read_data

RED, GREEN, BLACK = [255, 0, 0], [0, 128, 0], [0, 0, 0]
VALUES = np.array([[0, 1], [2, 1], [0, 0]], np.uint8)  # 3 pixels high, 2 wide
BINARY = np.array([[0, 255], [255, 255], [0, 0]], np.uint8)
COLOURS = np.array([BLACK, RED, GREEN], np.uint8)[VALUES]


def save(path, pixels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette([value for rgb in palette for value in rgb])
    image.save(path)


def write(root, *pairs, mask=VALUES, palette=None):
    """Write images and masks: pairs of names within the root."""
    for image, label in pairs:
        if image:
            save(root / image, np.zeros((3, 2, 3), np.uint8))
        if label:
            save(root / label, mask, palette)
    return root


def read(root, **options):
    return read_data(root, val_share=0, **options)


def problems(index):
    return [(p.severity, p.kind, p.where) for p in index.problems]


LAYOUTS = {
    "images/train masks/train": [("images/train/a.jpg", "masks/train/a.png"),
                                 ("images/valid/b.jpg", "masks/valid/b.png")],
    "train/images train/masks": [("train/imgs/a.jpg", "train/labels/a.png"),
                                 ("val/imgs/b.jpg", "val/labels/b.png")],
    "train train_masks": [("train/a.png", "train_masks/a.png"), ("val/b.png", "val_masks/b.png")],
    "train trainannot": [("train/a.png", "trainannot/a.png"), ("val/b.png", "valannot/b.png")],
    "a suffix": [("Images/train/a.jpg", "Labels/train/a_P.png"),
                 ("Images/val/b.jpg", "Labels/val/b_P.png")],
    "two endings": [("images/train/x/a_leftImg8bit.png", "gt/train/x/a_gtFine_labelIds.png"),
                    ("images/val/x/b_leftImg8bit.png", "gt/val/x/b_gtFine_labelIds.png")],
}  # fmt: skip


@pytest.mark.parametrize("pairs", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, pairs):
    write(tmp_path, *pairs)
    index = read(tmp_path)
    assert (index.format, index.task) == ("masks", "segmentation")
    assert [(i.split, i.file, i.mask) for i in index.items] == [
        (split, *pair) for split, pair in zip(("train", "val"), pairs, strict=True)
    ]
    assert {(i.width, i.height) for i in index.items} == {(2, 3)}
    assert not index.problems


def test_without_splits_one_is_made(tmp_path):
    write(tmp_path, *((f"images/{i}.jpg", f"masks/{i}_mask.png") for i in range(10)))
    index = read_data(tmp_path)
    assert (len(index.of("train")), len(index.of("val"))) == (8, 2)
    assert "the mask of images/NAME.* is masks/NAME_mask.*" in index.decisions
    assert any("2 of 10 training images (20 %, seed 0" in said for said in index.decisions)


def test_voc(tmp_path):
    for name in "abcde":
        write(tmp_path, (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"))
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n\nz\n")
    (lists / "val.txt").write_text("c\na\n")
    (lists / "trainval.txt").write_text("a\nb\nc\n")
    index = read(tmp_path)
    assert [(i.split, i.file) for i in index.items] == [
        ("train", "JPEGImages/a.jpg"), ("train", "JPEGImages/b.jpg"), ("val", "JPEGImages/c.jpg")
    ]  # fmt: skip
    assert problems(index) == [
        ("error", "file is missing", "ImageSets/Segmentation/train.txt line 4"),
        ("error", "file in two splits", "ImageSets/Segmentation/val.txt line 2"),
    ]
    for path in lists.iterdir():
        path.unlink()
    (lists / "default.txt").write_text("a\nb\nc\nd\n")
    assert len(read(tmp_path).of("train")) == 4
    (lists / "default.txt").unlink()
    assert len(read(tmp_path).of("train")) == 5


def test_names_of_voc_itself(tmp_path):
    write(tmp_path, ("JPEGImages/2007_000032.jpg", "SegmentationClass/2007_000032.png"))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    index = read(tmp_path)
    assert index.classes[1:3] == ("aeroplane", "bicycle")
    assert len(index.classes) == 21


@pytest.mark.parametrize(
    "names",
    [["images/1.jpg", "labels/1.txt"], ["ant/1.jpg", "bee/2.jpg"], ["images/1.jpg"],
     ["train/1.jpg", "val/2.jpg"], ["masks/1.png"]],
)  # fmt: skip
def test_others_are_no_masks(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert mask_folders.recognise(tmp_path) is None
    with pytest.raises(ZooError, match=r"no images with masks in .*; expected images/train/\*.jpg"):
        read(tmp_path, format="masks")


ONE = ("images/a.png", "masks/a.png")


def meaning(root, mask, palette=None, **files):
    """Return classes and coding of a data set of one mask; files by name with _ for the dot."""
    write(root, ONE, mask=mask, palette=palette)
    for name, text in files.items():
        stem, _, extension = name.rpartition("_")
        (root / f"{stem}.{extension}").write_text(text, encoding="utf-8")
    index = read(root)
    return list(index.classes), index.masks, index


def with_value(value):
    changed = VALUES.copy()
    changed[0, 0] = value
    return changed


@pytest.mark.parametrize(
    ("mask", "classes", "coding"),
    [
        (VALUES, ["background", "class_1", "class_2"], MaskCoding()),
        (with_value(4), ["background", *(f"class_{i}" for i in (1, 2, 3, 4))], MaskCoding()),
        (with_value(255), ["background", "class_1", "class_2"], MaskCoding(ignore=255)),
        (VALUES // 2 * 2 + VALUES // 2 * 98, ["background", "class_100"],
         MaskCoding({"background": 0, "class_100": 100})),
        (np.array([0, 85, 255], np.uint8)[VALUES], ["background", "class_85", "class_255"],
         MaskCoding({"background": 0, "class_85": 85, "class_255": 255})),
        (np.repeat(with_value(255)[..., None], 3, axis=2), ["background", "class_1", "class_2"],
         MaskCoding(colors={"background": [0] * 3, "class_1": [1] * 3, "class_2": [2] * 3,
                            "void": [255] * 3})),
        (BINARY, ["background", "object"], MaskCoding({"background": 0, "object": 255})),
        (VALUES > 0, ["background", "class_1"], MaskCoding()),
        (np.repeat(VALUES[..., None], 3, axis=2), ["background", "class_1", "class_2"],
         MaskCoding(colors={"background": [0] * 3, "class_1": [1] * 3, "class_2": [2] * 3})),
        (np.repeat(BINARY[..., None], 3, axis=2), ["background", "object"],
         MaskCoding(colors={"background": [0] * 3, "object": [255] * 3})),
    ],
    ids=["values", "a gap", "void", "far values", "shades", "void in RGB", "black and white",
         "1 bit", "grey as RGB", "black and white as RGB"],
)  # fmt: skip
def test_values_without_names(tmp_path, mask, classes, coding):
    found, meant, index = meaning(tmp_path, mask)
    assert (found, meant) == (classes, coding)
    assert not index.problems


def test_how_to_name_them_is_said(tmp_path):
    _, _, index = meaning(tmp_path, with_value(255))
    assert "the value 255 is void, and not learned" in index.decisions
    (said,) = [s for s in index.decisions if "without names" in s]
    assert said.startswith("3 classes without names: the values 0, 1, 2 (seen in 1 mask)")
    assert said.endswith("classes.txt', one name a line in the order of the values")


@pytest.mark.parametrize("palette", [None, [BLACK, RED, GREEN]])
@pytest.mark.parametrize("file", ["classes_txt", "codes_txt", "labels_txt"])
def test_lists_of_names(tmp_path, file, palette):
    text = "\ufeff__ignore__\nsky\nsea\n\n shore \n" if file == "labels_txt" else "sky\nsea\nshore"
    classes, coding, index = meaning(tmp_path, VALUES, palette, **{file: text})
    assert (classes, coding) == (["sky", "sea", "shore"], MaskCoding())
    assert "3 classes: sky, sea, shore" in index.decisions


def test_void_in_a_list(tmp_path):
    classes, coding, _ = meaning(tmp_path, VALUES, codes_txt="sky\nVoid\nsea\n")
    assert classes == ["sky", "sea"]
    assert coding == MaskCoding({"sky": 0, "void": 1, "sea": 2})


def test_two_names_of_black_and_white(tmp_path):
    classes, coding, _ = meaning(tmp_path, BINARY, classes_txt="sky\nsea\n")
    assert (classes, coding) == (["sky", "sea"], MaskCoding({"sky": 0, "sea": 255}))


def test_more_values_than_names(tmp_path):
    _, _, index = meaning(tmp_path, with_value(7), classes_txt="sky\nsea\n")
    (problem,) = index.problems
    assert (problem.severity, problem.kind, problem.where) == (
        "error", "value without a class", "2, 7"
    )  # fmt: skip
    assert problem.what == "masks hold values from 2 to 7, and the 2 classes have 0 to 1"


TABLES = {
    "class_dict_csv": "name,r,g,b\nsky,0,0,0\nsea, 255, 0, 0\nVoid,0,128,0\n",
    "labelmap_txt": "# label:color_rgb:parts:actions\nsky:0,0,0::\nsea:255,0,0::\nvoid:0,128,0::\n",
    "label_colors_txt": "0 0 0\tsky\n255 0 0\t\tsea\n0 128 0 Void\n",
}


@pytest.mark.parametrize("palette", [None, [BLACK, RED, GREEN]], ids=["RGB", "palette"])
@pytest.mark.parametrize("file", TABLES)
def test_colour_tables(tmp_path, file, palette):
    mask = COLOURS if palette is None else VALUES
    classes, coding, index = meaning(tmp_path, mask, palette, **{file: TABLES[file]})
    assert classes == ["sky", "sea"]
    assert coding == MaskCoding(colors={"sky": BLACK, "sea": RED, "void": GREEN})
    assert not index.problems
    assert "2 classes: sky, sea; pixels of void are not learned" in index.decisions


@pytest.mark.parametrize(
    "palette", [None, [GREEN, [1, 2, 3], RED]], ids=["grey", "another palette"]
)
def test_a_colour_table_of_masks_of_values(tmp_path, palette):
    table = "name,r,g,b\nsky,0,0,0\nsea,255,0,0\nshore,0,128,0\n"
    classes, coding, index = meaning(tmp_path, VALUES, palette, class_dict_csv=table)
    assert (classes, coding) == (["sky", "sea", "shore"], MaskCoding())
    assert "class_dict.csv names the values of the masks, in its order" in index.decisions


def test_a_colour_that_the_table_lacks(tmp_path):
    _, _, index = meaning(tmp_path, COLOURS, class_dict_csv="name,r,g,b\nsky,0,0,0\nsea,255,0,0\n")
    assert problems(index) == [("error", "colour without a class", "class_dict.csv")]
    assert index.problems[0].what == "masks hold [0, 128, 0], which is not in it"


def test_colours_without_a_table(tmp_path):
    with pytest.raises(ZooError) as error:
        meaning(tmp_path, COLOURS)
    assert "are in colour ([0, 0, 0], [255, 0, 0], [0, 128, 0])" in str(error.value)
    command = str(error.value).partition("not to be learned): ")[2]
    assert command.startswith("printf 'name,r,g,b\\nbackground,0,0,0\\nclass_1,255,0,0\\n")
    subprocess.run(["sh", "-c", command], check=True)
    assert read(tmp_path).classes == ("background", "class_1", "class_2")


def test_leftovers_and_sizes(tmp_path):
    write(tmp_path, ("images/a.jpg", "masks/a.png"), ("images/b.jpg", ""), ("", "masks/c.png"),
          ("images/d.jpg", "masks/d.png"))  # fmt: skip
    save(tmp_path / "masks/d.png", VALUES.T)
    index = read(tmp_path)
    assert [i.file for i in index.items] == ["images/a.jpg"]
    assert index.unlabelled == ("images/b.jpg",)
    assert problems(index) == [
        ("warning", "image without a mask", "images/b.jpg"),
        ("warning", "mask without an image", "masks/c.png"),
        ("error", "mask of another size", "masks/d.png"),
    ]
    assert index.problems[2].what == ("it has 3 x 2 pixels and its image 2 x 3; both were left out")


def test_a_damaged_file_is_left_to_the_check(tmp_path):
    write(tmp_path, ("images/a.jpg", "masks/a.png"), ("images/b.jpg", "masks/b.png"))
    (tmp_path / "masks/b.png").write_bytes(b"no image")
    index = read(tmp_path)
    assert [(i.file, i.width) for i in index.items] == [("images/a.jpg", 2), ("images/b.jpg", 0)]
    (tmp_path / "masks/a.png").write_bytes(b"")
    with pytest.raises(ZooError, match=r"none of the 2 masks in .* the first is 'masks/a.png'"):
        read(tmp_path)


def test_torch_is_not_imported(tmp_path):
    write(tmp_path, ONE)
    code = (
        f"import sys; from lightning_zoo.formats import read_data; read_data({str(tmp_path)!r}); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def smooth(mask_side=100):
    ramp = np.zeros((mask_side, mask_side), np.uint8)
    ramp[:, mask_side // 2 :] = 255
    ramp[0] = np.arange(mask_side) + 60
    return ramp


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.full((3, 2), 300, np.uint16), "hold values up to 300; expected classes from 0 to 254"),
        (smooth(), r"hold 102 values between black and white, as smoothed edges do"),
        (np.arange(300, dtype=np.uint8).reshape(10, 10, 3), "more than 64 colours"),
    ],
)
def test_refused(tmp_path, mask, text):
    save(tmp_path / "images/a.png", np.zeros((*mask.shape[:2], 3), np.uint8))
    save(tmp_path / "masks/a.png", mask)
    with pytest.raises(ZooError, match=text):
        read(tmp_path)


def test_jpeg_masks(tmp_path):
    write(tmp_path, ("images/a.jpg", "masks/a.jpg"))
    with pytest.raises(ZooError, match=r"are .jpg files, whose compression changes .* as .png"):
        read(tmp_path)


def test_no_mask_of_the_name(tmp_path):
    write(tmp_path, ("images/a.jpg", "masks/b.png"))
    with pytest.raises(
        ZooError, match=r"no image of images/ in .* has a mask of its name in masks"
    ):
        read(tmp_path)


def test_one_class(tmp_path):
    _, _, index = meaning(tmp_path, VALUES * 0)
    assert problems(index) == [("error", "one class", "background")]


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("class_dict.csv", "name,r,g,b\nsky,0,0\n", "line 2: expected a name and its colour"),
        ("class_dict.csv", "sky,0,0,300\nsea,1,1,1", "line 1: expected a name and its colour"),
        ("labelmap.txt", "sky:0,0,0::\nsea:0,0,0::", "line 2: sea or its colour stands above"),
        ("classes.txt", "sky\nsky\n", "has a name twice; expected another for each class"),
    ],
)
def test_bad_tables(tmp_path, file, text, match):
    write(tmp_path, ONE)
    (tmp_path / file).write_text(text)
    with pytest.raises(ZooError, match=match):
        read(tmp_path)
