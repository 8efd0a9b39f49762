"""Your own masks: however they are coded, the same label maps come out."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import MaskFolderDataModule, OwnMasksDataModule
from lightning_zoo.errors import ZooError

PLAN = BatchPlan(4, 2, 1, 2)
SMALL = {"workers": 0, "train_crop": 48, "train_resize": (40, 90), "eval_resize": None}


@pytest.fixture
def root(tmp_path):
    OwnMasksDataModule.write_fake(tmp_path / "data", classes=4, images=4, size=64)
    return tmp_path / "data"


def module(root, cls=OwnMasksDataModule, stage="fit", **options):
    data = cls(root=str(root), **{**SMALL, **options})
    data.configure(PLAN, seed=1)
    data.setup(stage)
    return data


def rewrite(root, change):
    """Change the pixels of all masks: a function from indices to what is saved."""
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            values = np.array(image)
        Image.fromarray(change(values)).save(path)


def label_maps(data):
    train = [mask for batch in data.train_dataloader() for mask in batch["mask"]]
    return train + [mask for batch in data.val_dataloader() for mask in batch["mask"]]


COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 0], [9, 8, 7]], np.uint8)
TABLE = "name,r,g,b\nbackground,0,0,0\ndisc,255,0,0\nsquare,0,128,0\ntriangle,9,8,7\n"


def as_grey(root):
    rewrite(root, lambda values: values)


def as_rgb(root):
    rewrite(root, lambda values: COLOURS[values])
    (root / "classes.txt").unlink()
    (root / "class_dict.csv").write_text(TABLE)


def as_rgb_of_cvat(root):
    as_rgb(root)
    (root / "class_dict.csv").unlink()
    rows = [line.split(",") for line in TABLE.splitlines()[1:]]
    text = "".join(f"{name}:{r},{g},{b}::\n" for name, r, g, b in rows)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + text)


def as_voc(root):
    (root / "JPEGImages").mkdir()
    (root / "SegmentationClass").mkdir()
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        names = []
        for path in sorted((root / "images" / split).iterdir()):
            names.append(f"{split}_{path.stem}")
            path.rename(root / f"JPEGImages/{names[-1]}.jpg")
            mask = root / f"masks/{split}/{path.stem}.png"
            mask.rename(root / f"SegmentationClass/{names[-1]}.png")
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))


@pytest.mark.parametrize("change", [as_grey, as_rgb, as_rgb_of_cvat, as_voc])
def test_the_same_label_maps(root, change):
    expected = label_maps(module(root, MaskFolderDataModule))
    own = module(root)
    assert own.class_names == ["background", "disc", "square", "triangle"]
    before = label_maps(own)
    change(root)
    changed = module(root)
    assert changed.class_names == own.class_names
    for found in (before, label_maps(changed)):
        assert len(found) == len(expected) == 8
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_black_and_white_and_void(root):
    expected = [(mask > 0).long() for mask in label_maps(module(root))]
    (root / "classes.txt").unlink()
    rewrite(root, lambda values: np.where(values > 0, 255, 0).astype(np.uint8))
    data = module(root)
    assert data.class_names == ["background", "object"]
    found = label_maps(data)
    # what is padded is void in both
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a[a != 255].long(), b[a != 255])
    rewrite(root, lambda values: np.where(values > 0, 1, 0).astype(np.uint8))
    path = next(root.glob("masks/val/*.png"))
    Image.fromarray(np.full_like(np.array(Image.open(path)), 255)).save(path)
    data = module(root)
    assert data.class_names == ["background", "class_1"]
    assert {255} in [set(mask.unique().tolist()) for mask in label_maps(data)]


def test_a_val_split_is_made_and_test_is_val(root):
    for kind in ("images", "masks"):
        for path in (root / kind / "val").iterdir():
            path.unlink()
        (root / kind / "val").rmdir()
    data = module(root, val_share=0.25)
    assert (data.num_train_samples, len(data.datasets["val"])) == (3, 1)
    data.setup("test")
    assert len(list(data.test_dataloader())) == 1


def test_a_value_that_comes_late(root):
    """The names cover what the sample holds; the rest is found when it is read."""
    data = module(root, stage="validate")
    path = sorted(root.glob("masks/val/*.png"))[0]
    with Image.open(path) as image:
        values = np.array(image)
    values[0, 0] = 9
    Image.fromarray(values).save(path)
    with pytest.raises(
        ZooError, match=r"value 9 at 1 of .* name all classes in classes.txt, one a"
    ):
        list(data.val_dataloader())


def test_a_colour_that_comes_late(root):
    as_rgb(root)
    data = module(root, stage="validate")
    path = sorted(root.glob("masks/val/*.png"))[0]
    with Image.open(path) as image:
        values = np.array(image)
    values[0, 0] = 77
    Image.fromarray(values).save(path)
    with pytest.raises(
        ZooError, match=r"not among the 4 of class_dict.csv, such as \[77, 77, 77\]"
    ):
        list(data.val_dataloader())


def test_errors(root):
    path = sorted(root.glob("masks/val/*.png"))[0]
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(path)
    with pytest.raises(
        ZooError,
        match=r"1 error in the data of .* masks/val/0000.png: it has 5 x 5 .*on_error skip",
    ):
        module(root)
    with pytest.warns(UserWarning, match="left out of .*: 1 error, the first is masks/val/0000"):
        assert len(module(root, on_error="skip").datasets["val"]) == 3
