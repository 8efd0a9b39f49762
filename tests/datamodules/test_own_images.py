"""Your own images: folders and tables give the same batches, and train, validate and predict."""

import shutil
import warnings

import pytest
import torch

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import ImageFolderDataModule, OwnImagesDataModule
from lightning_zoo.errors import ZooError

SMALL = {"workers": 0, "train_crop": 24, "eval_resize": 26, "eval_crop": 24}
PLAN = BatchPlan(4, 4, 1, 1)


@pytest.fixture
def root(tmp_path):
    OwnImagesDataModule.write_fake(tmp_path / "data", classes=3, images=9, size=32)
    return tmp_path / "data"


def module(root, stage="fit", cls=OwnImagesDataModule, ledger=None, **options):
    data = cls(root=str(root), **{**SMALL, **options})
    data.configure(PLAN, seed=1, ledger=ledger)
    if stage:
        data.setup(stage)
    return data


def as_table(root, several=None):
    """Put all images into images/, and their labels into labels.csv."""
    rows = ["file;label;split"]
    for split in ("train", "val", "test"):
        for path in sorted((root / split).glob("*/*.jpg")):
            label = path.parent.name
            if several is not None and path.stem.endswith(several):
                label += "|striped"
            (root / "images").mkdir(exist_ok=True)
            path.rename(root / "images" / path.name)
            rows.append(f"{path.name};{label};{split}")
    for split in ("train", "val", "test"):
        shutil.rmtree(root / split)
    (root / "labels.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    return root


def batches(data):
    loaders = (data.train_dataloader(), data.val_dataloader())
    return [(b["image"], b["label"]) for loader in loaders for b in loader]


def test_the_same_as_folders_and_as_a_table(root):
    plain = batches(module(root, cls=ImageFolderDataModule))
    folders = module(root)
    assert folders.class_names == ["class_0", "class_1", "class_2"]
    assert folders.num_train_samples == 9
    as_folders = batches(folders)
    rows = [f"{p.relative_to(root)},{p.parts[-2]},{p.parts[-3]}" for p in root.rglob("*.jpg")]
    (root / "labels.csv").write_text("\n".join(["path,class,set", *rows]))
    table = module(root, format="csv")
    assert table.class_names == folders.class_names
    assert table.index.format == "csv"
    as_rows = batches(table)
    assert len(plain) == len(as_folders) == len(as_rows) == 6
    for a, b, c in zip(plain, as_folders, as_rows, strict=True):
        for x, y, z in zip(a, b, c, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(x, z)


def test_several_labels(root):
    data = module(as_table(root, several="1"))
    assert data.multilabel
    assert data.class_names == ["class_0", "class_1", "class_2", "striped"]
    seen = {n: r for b in data.val_dataloader() for n, r in zip(b["id"], b["label"], strict=True)}
    assert seen["images/val_0001.jpg"].tolist() == [0, 1, 0, 1]
    assert seen["images/val_0002.jpg"].tolist() == [0, 0, 1, 0]
    assert seen["images/val_0002.jpg"].dtype == torch.float32


def test_a_val_split_is_made_and_test_is_val(root):
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "test")
    data = module(root, val_share=0.34)
    assert len(data.datasets["val"]) == 3
    assert data.num_train_samples == 6
    assert module(root, val_share=0.34, split_seed=5).index.of("val") != data.index.of("val")
    data.setup("test")
    assert [b["id"] for b in data.test_dataloader()] == [b["id"] for b in data.val_dataloader()]
    alone = module(root, val_share=0)
    assert "val" not in alone.datasets
    alone.setup("validate")
    with pytest.raises(ZooError, match=r"has no val images, and evaluation needs .*val_share 0.2"):
        alone.test_dataloader()


def test_nothing_is_read_before_it_is_asked(tmp_path):
    data = OwnImagesDataModule(root=str(tmp_path / "gone"), eval_crop=24, eval_resize=24)
    assert data.eval_transform is not None
    with pytest.raises(ZooError, match=r"there is no '.*gone'"):
        data.setup("fit")


def test_errors_of_rows(root, tmp_path):
    as_table(root)
    (root / "images/train_0003.jpg").unlink()
    (root / "images/val_0003.jpg").unlink()
    with pytest.raises(ZooError) as error:
        module(root)
    assert str(error.value) == (
        f"2 errors in the data of {str(root)!r}, the first is labels.csv line 3: there is no "
        "image 'train_0003.jpg' in the folder; put it there, or remove the row, or go on without "
        f"by --data.on_error skip (all: python -m lightning_zoo data check {root})"
    )
    with pytest.warns(UserWarning, match=r"left out of .*: 2 errors, the first is labels.csv line"):
        data = module(root, on_error="skip", ledger=tmp_path / "ledger.jsonl")
    assert data.num_train_samples == 8
    assert [(e["file"], e["split"]) for e in data.read_ledger()] == [
        ("labels.csv line 3", "data"), ("labels.csv line 12", "data")
    ]  # fmt: skip
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error")
        data.setup("validate")


@pytest.mark.parametrize("on_error", ["refuse", "skip"])
def test_one_class(root, on_error):
    for folder in root.glob("*/class_[12]"):
        shutil.rmtree(folder)
    with pytest.raises(ZooError, match=r"has the class class_0 alone; expected two or more: add"):
        module(root, on_error=on_error)


def test_data_for_another_task(root):
    with pytest.raises(ZooError, match=r"no images with masks in"):
        OwnImagesDataModule(root=str(root), format="masks").setup("fit")
    for path in root.glob("*/*/*.jpg"):
        path.rename(path.with_suffix(".mp4"))
    with pytest.raises(
        ZooError, match=r"holds data for video \(video_folders\); expected data for classification"
    ):
        module(root)
