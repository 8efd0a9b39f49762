"""Pascal VOC's layout: lists, palette masks, void, the augmented set."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import SampleKey, VocDataModule
from lightning_zoo.errors import ZooError

PLAN = BatchPlan(4, 2, 1, 2)
SMALL = {"train_crop": 48, "train_resize": (40, 90), "eval_resize": None}


@pytest.fixture
def root(tmp_path):
    VocDataModule.write_fake(tmp_path / "voc", classes=5, images=6, size=64)
    return tmp_path / "voc"


def module(root, stage="fit", **options):
    data = VocDataModule(root=str(root), **{"workers": 0, **SMALL, **options})
    data.configure(PLAN, seed=1)
    data.setup(stage)
    return data


def test_batches(root):
    data = module(root)
    assert data.num_classes == 21
    assert data.class_names[15] == "person"
    assert data.num_train_samples == 6
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 48, 48)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 48, 48), torch.uint8)
    seen = set()
    for batch in data.val_dataloader():
        (name,), (mask,) = batch["id"], batch["mask"]
        stem = name.removeprefix("JPEGImages/").removesuffix(".jpg")
        with Image.open(root / "SegmentationClass" / f"{stem}.png") as file:
            assert file.mode == "P"
            assert np.array_equal(mask.numpy(), np.array(file))
        seen |= set(mask.unique().tolist())
    assert seen == {0, 1, 2, 3, 4, 255}
    assert module(root, train="trainval").num_train_samples == 12
    assert module(root, "test").datasets.keys() == {"val"}


def test_the_same_bytes_for_a_seed_epoch_and_index(root):
    a, b = (module(root).datasets["train"][SampleKey(1, 2)] for _ in range(2))
    assert torch.equal(a["image"], b["image"])
    assert torch.equal(a["mask"], b["mask"])


def test_the_augmented_set(root):
    folder = root / "SegmentationClassAug"
    folder.mkdir()
    lines = []
    for i, stem in enumerate(["2007_000000", "2008_000002", "2008_000003"]):
        with Image.open(root / "SegmentationClass" / f"{stem}.png") as file:
            grey = np.array(file)
        Image.fromarray(np.where(grey == 1, 20, grey).astype(np.uint8)).save(folder / f"{stem}.png")
        lines.append(stem if i else f"/JPEGImages/{stem}.jpg /SegmentationClassAug/{stem}.png")
    path = root / "ImageSets" / "Segmentation" / "train_aug.txt"
    path.write_text("\n".join(lines) + "\n\n")
    data = module(root, train="train_aug", train_masks="SegmentationClassAug")
    assert data.num_train_samples == 3
    labels = set()
    for i in range(3):
        labels |= set(np.unique(data.datasets["train"].masks(i, size_of(data, i))).tolist())
    assert 20 in labels
    assert 1 not in labels
    assert next(iter(data.val_dataloader()))["mask"][0].max() == 255


def size_of(data, i):
    with Image.open(data.root / data.datasets["train"].name(i)) as image:
        return image.height, image.width


def test_classes_of_ones_own(root):
    names = ["background", "disc", "square", "triangle"]
    data = module(root, classes=[*names, "diamond"])
    assert data.class_names == [*names, "diamond"]
    text = r"the value 4 at .*4 classes have the values 0, 1, 2 ... 255; name .*--data.classes"
    with pytest.raises(ZooError, match=text):
        list(module(root, "validate", classes=names).val_dataloader())


def test_missing_data(root, tmp_path):
    with pytest.raises(ZooError, match=r"no data in .*VOCtrainval_11-May-2012.tar"):
        module(tmp_path / "none")
    with pytest.raises(ZooError, match=r"no list '.*valid.txt' \(data.val; null goes without it\)"):
        module(root, val="valid")
    assert module(root, val=None).datasets.keys() == {"train"}
    (root / "SegmentationClass" / "2007_000003.png").unlink()
    with pytest.raises(ZooError, match=r"1 of 6 masks are not in .*2007_000003.png.*on_error"):
        module(root)
    data = module(root, on_error="skip")
    assert sum(len(batch["id"]) for batch in data.train_dataloader()) == 8  # two steps
    (root / "JPEGImages" / "2008_000003.jpg").unlink()
    with pytest.raises(ZooError, match=r"1 of 6 images are not in .*2008_000003.jpg"):
        module(root, "validate")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a b c\n", r"line 1: 'a b c'; expected a name, or an image and its mask"),
        ("x\n../a\n", r"line 2: '../a'; expected a name"),
        ("x\nx\n", r"line 2: 'JPEGImages/x.jpg' stands in a line before"),
        ("\n", r"train.txt' names no image"),
    ],
)
def test_lists_that_make_no_sense(root, text, error):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text(text)
    with pytest.raises(ZooError, match=error):
        module(root)
