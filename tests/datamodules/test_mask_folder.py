"""Your own masks: layouts, names of classes, values, colours, and what is said about mistakes."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import MaskFolderDataModule, SampleKey
from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.errors import ZooError

PLAN = BatchPlan(4, 2, 1, 2)
SMALL = {"train_crop": 48, "train_resize": (40, 90), "eval_resize": None}


@pytest.fixture
def root(tmp_path):
    MaskFolderDataModule.write_fake(tmp_path / "data", classes=4, images=4, size=64)
    return tmp_path / "data"


def module(root, stage="fit", **options):
    data = MaskFolderDataModule(root=str(root), **{"workers": 0, **SMALL, **options})
    data.configure(PLAN, seed=1)
    if stage:
        data.setup(stage)
    return data


def rewrite(root, change):
    """Change the pixels of all masks: a function from indices to what is saved."""
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            values = np.array(image)
        Image.fromarray(change(values)).save(path)


def labels(data):
    return {n for batch in data.val_dataloader() for n in batch["mask"][0].unique().tolist()}


def test_batches(root):
    data = module(root)
    assert data.class_names == ["background", "disc", "square", "triangle"]
    assert data.num_classes == 4
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 48, 48)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 48, 48), torch.uint8)
    assert labels(data) == {0, 1, 2, 3}
    for batch in data.val_dataloader():
        (name,), (image,), (mask,) = batch["id"], batch["image"], batch["mask"]
        assert name.startswith("images/val/")
        for label in (1, 2, 3):  # a class has its colour
            pixels = image[:, mask == label].float()
            if pixels.shape[1] > 100:
                assert pixels.median(dim=1).values.sub(pixels.mean(dim=1)).abs().max() < 40


def test_the_same_bytes_for_a_seed_epoch_and_index(root):
    a, b = (module(root).datasets["train"][SampleKey(1, 2)] for _ in range(2))
    assert torch.equal(a["image"], b["image"])
    assert torch.equal(a["mask"], b["mask"])


def test_layouts(root):
    expected = labels(module(root))
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (root / split).mkdir(exist_ok=True)
            shutil.move(root / kind / split, root / split / kind)
        (root / kind).rmdir()
    assert labels(module(root)) == expected
    for path in root.rglob("*.png"):
        path.rename(path.parent.parent / "images" / f"{path.stem}_mask.png")
    options = {"images": "{split}/images", "masks": "{split}/images", "mask_suffix": "_mask.png"}
    data = module(root, **options)
    assert data.num_train_samples == 4
    assert labels(data) == expected
    with pytest.raises(ZooError, match="set both"):
        module(root, images="{split}")
    with pytest.raises(ZooError, match=r"images is 'a'; expected \{split\} in it"):
        module(root, images="a", masks="{split}")


def test_names_of_classes(root):
    names = ["ground", "a", "b", "c"]
    assert module(root, classes=names).class_names == names
    (root / "classes.txt").unlink()
    with pytest.raises(
        ZooError,
        match=r"the classes have no names: write '.*classes.txt', .*--data.classes.*hold the "
        r"values 0, 1, 2, 3",
    ):
        module(root)


def test_binary_masks(root):
    rewrite(root, lambda values: np.where(values > 0, 255, 0).astype(np.uint8))
    with pytest.raises(ZooError, match=r"masks/.*png': it holds the value 255 at .*the 2 classes "
                       r"have the values 0, 1; name all classes .*--data.ignore_index 255.*"
                       r"--data.label_values '\{background: 0, NAME: 255\}'"):  # fmt: skip
        list(module(root, classes=["background", "object"]).train_dataloader())
    data = module(root, label_values={"background": 0, "object": 255})
    assert data.class_names == ["background", "object"]
    assert labels(data) == {0, 1}
    assert labels(module(root, ignore_index=255)) == {0, 255}


def test_classes_that_are_joined_and_ignored(root):
    values = {"void": 0, "shape": [1, 2], "rest": 3}
    data = module(root, label_values=values)
    assert data.class_names == ["shape", "rest"]
    assert labels(data) == {0, 1, 255}


def test_colours(root):
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 9, 9]], np.uint8)
    expected = labels(module(root))
    rewrite(root, lambda values: table[values])
    with pytest.raises(ZooError, match=r"it is in colour, such as .*--data.colors"):
        labels(module(root, "validate"))
    (root / "classes.txt").unlink()
    with pytest.raises(ZooError, match=r"have no names: .*masks/train' are in colour"):
        module(root)
    colors = {"none": [0, 0, 0], "red": [255, 0, 0], "green": [0, 255, 0], "grey": [9, 9, 9]}
    data = module(root, colors=colors)
    assert data.class_names == list(colors)
    assert labels(data) == expected
    del colors["green"]
    with pytest.raises(ZooError, match=r"a colour that is not among the 3 of --data.colors, such "
                       r"as \[0, 255, 0\]"):  # fmt: skip
        labels(module(root, "validate", colors=colors))


def test_missing_data(root, tmp_path):
    with pytest.raises(ZooError, match=r"no data in .*put your own images there"):
        module(tmp_path / "none")
    with pytest.raises(ZooError, match=r"no folder '.*images/test' \(data.test; null goes"):
        module(root, "test", test="test")
    shutil.rmtree(root / "images" / "val")
    with pytest.raises(ZooError, match=r"no folder '.*images/val' \(data.val; null goes without"):
        module(root)
    assert module(root, val=None).datasets.keys() == {"train"}
    (root / "masks" / "train" / "0002.png").unlink()
    with pytest.raises(ZooError, match=r"1 of 4 masks are not in '.*masks/train' .*'0002.png'"):
        module(root, val=None)
    data = module(root, val=None, on_error="skip")
    ledger = tmp_path / "ledger.jsonl"
    data.configure(PLAN, seed=1, ledger=ledger)
    assert len([n for batch in data.train_dataloader() for n in batch["id"]]) == 4
    (entry,) = ledgers.read(ledger)
    assert entry["file"] == "images/train/0002.jpg"
    assert entry["error"] == "its mask '0002.png': No such file or directory"
    for path in (root / "images" / "train").iterdir():
        path.unlink()
    with pytest.raises(ZooError, match=r"no image in '.*images/train'"):
        module(root, val=None)


def test_an_image_and_a_mask_of_two_sizes(root):
    path = root / "masks" / "val" / "0001.png"
    with Image.open(path) as image:
        smaller = image.resize((20, 10), Image.Resampling.NEAREST)
    smaller.save(path)
    with pytest.raises(ZooError, match=r"0001.png': it has 10 x 20 pixels \(height x width\) and "
                       r"its image has \d+ x \d+; mend or remove the file"):  # fmt: skip
        labels(module(root, "validate"))


def test_damaged_files(root, tmp_path):
    path = root / "masks" / "val" / "0001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ZooError, match=r"cannot read the mask '.*0001.png'"):
        labels(module(root, "validate"))
    data = module(root, "validate", on_error="skip")
    data.configure(PLAN, seed=1, ledger=tmp_path / "ledger.jsonl")
    assert len(list(data.val_dataloader())) == 3


def test_albumentations(root):
    library = pytest.importorskip("albumentations")
    turn = library.Rotate(limit=(45, 45), p=1.0)
    data = module(root, albumentations=[turn])
    masks = torch.cat([batch["mask"] for batch in data.train_dataloader()])
    assert masks.shape == (4, 48, 48)
    assert 255 in masks.unique().tolist()
