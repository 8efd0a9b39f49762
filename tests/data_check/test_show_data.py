"""Pictures of labels: who is chosen, where pixels land, and what a training batch looks like."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.data_check import show_data
from lightning_zoo.data_check.show import FEW, MANY, SHEET, WIDTHS, label_tiles, spread_out
from lightning_zoo.datamodules import (
    CocoDataModule,
    ImageFolderDataModule,
    MaskFolderDataModule,
    VideoFolderDataModule,
)
from lightning_zoo.drawing.detection import label_colour
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.index import DataIndex, Item, Object

FAKES = {
    "classification": ImageFolderDataModule,
    "detection": CocoDataModule,
    "segmentation": MaskFolderDataModule,
    "video": VideoFolderDataModule,
}
RECIPES = {
    "classification": "finetune_resnet18",
    "detection": "ssd300_vgg16",
    "segmentation": "finetune_lraspp",
    "video": "finetune_mc3_18",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for task, module in FAKES.items():
        module.write_fake(root / task, classes=3, images=6, size=48)
    people = root / "people"
    CocoDataModule.write_fake(people, classes=3, images=6, size=64)
    for path in (people / "annotations").glob("instances_*.json"):
        path.unlink()
    return root


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def three_classes() -> DataIndex:
    labels = [0] * 20 + [1] * 3 + [2] * 6
    items = [Item(f"{i}.png", "train", labels=(label,)) for i, label in enumerate(labels)]
    return DataIndex(Path("x"), "csv", "classification", ("a", "b", "c"), tuple(items))


def test_classes_take_turns() -> None:
    index = three_classes()
    chosen = list(spread_out(index))
    assert [item.labels[0] for item in chosen[:9]] == [1, 2, 0] * 3
    assert sorted(item.file for item in chosen) == sorted(item.file for item in index.items)
    assert chosen == list(spread_out(index))
    assert chosen != list(spread_out(index, seed=1))
    assert {item.labels[0] for item in spread_out(index, label=2)} == {2}
    empty = [Item(f"no{i}.png", "val") for i in range(9)]
    some = list(itertools.islice(spread_out(index.with_items([*index.items, *empty])), 26))
    # b has three images, so the fourth round is a, c and then one without a label
    assert [item.split for item in some[:12]] == ["train"] * 11 + ["val"]
    assert len(list(spread_out(index.with_items(empty), split="val"))) == 9


def test_a_box_is_drawn_where_it_is(tmp_path: Path) -> None:
    """A tiny image is enlarged, and the box with it."""
    Image.fromarray(np.zeros((12, 24, 3), np.uint8)).save(tmp_path / "a.png")
    thing = Object(1, (6.0, 3.0, 12.0, 6.0))
    items = [Item("a.png", "train", objects=(thing,)) for _ in range(5)]
    index = DataIndex(tmp_path, "coco", "detection", ("cat", "dog"), tuple(items))
    tile = label_tiles(index, 5)[0]
    assert tile.image.shape == (WIDTHS[MANY] // 2, WIDTHS[MANY], 3)
    factor = WIDTHS[MANY] / 24
    ys, xs = np.nonzero((tile.image == label_colour(2)).all(axis=2))
    assert xs.min() == 6 * factor
    assert ys.max() + 1 == 9 * factor
    inside = tile.image[int(4 * factor) : int(8 * factor), int(8 * factor) : int(16 * factor)]
    assert not inside.any()
    assert tile.lines == ["1 object  train: a.png"]


@pytest.mark.parametrize("task", FAKES)
def test_labels_and_the_batch_of_a_recipe(
    task: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for widths in (WIDTHS, SHEET):
        monkeypatch.setitem(widths, FEW, 160)  # drawn in less time
    paths = show_data(data / task, n=2, out=tmp_path / "x_labels.png", recipe=RECIPES[task])
    assert [path.name for path in paths] == ["x_labels.png", "x_augmented.png"]
    for path in paths:
        drawn = pixels(path)
        assert drawn.shape[1] > 2 * 160
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
    again = show_data(data / task, n=2, out=tmp_path / "y.png", recipe=RECIPES[task])
    for path, other in zip(paths, again, strict=True):
        assert np.array_equal(pixels(path), pixels(other))


@pytest.mark.parametrize("folder", ["classification", "detection", "people"])
def test_the_batch_of_finetune(folder: str, data: Path, tmp_path: Path) -> None:
    show_data(data / folder, n=1, out=tmp_path / "a.png", augmented=True)
    assert pixels(tmp_path / "a_augmented.png").shape[1] > 300


def test_a_class_and_a_split(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert show_data(data / "segmentation", n=2, class_name="disc", split="val") == [
        Path("segmentation_labels.png")
    ]
    assert (tmp_path / "segmentation_labels.png").is_file()


def test_broken_images_are_passed_over(tmp_path: Path) -> None:
    ImageFolderDataModule.write_fake(tmp_path / "x", classes=2, images=4, size=32)
    files = sorted((tmp_path / "x/train").rglob("*.*"))
    for path in files[1:]:
        path.write_bytes(b"torn")
    show_data(tmp_path / "x", split="train", out=tmp_path / "a.png")
    files[0].unlink()
    with pytest.raises(ZooError, match="there is nothing in train to draw: cannot read the image"):
        show_data(tmp_path / "x", split="train", out=tmp_path / "a.png")


def test_mistakes(data: Path, tmp_path: Path) -> None:
    root = data / "classification"
    for arguments, text in (
        ({"n": 0}, "n is 0; expected at least 1 image to draw"),
        ({"split": "vall"}, "unknown split 'vall'; did you mean val?"),
        ({"class_name": "clas_1"}, "unknown class 'clas_1'; did you mean class_1?"),
        ({"out": tmp_path / "no/a.png"}, "there is no folder .*no' to write 'a.png' into"),
        ({"out": tmp_path / "a.txt"}, r"out is .*a.txt'; expected a picture's name, ending in .p"),
        ({"recipe": "ssd300_vgg16"}, "the recipe ssd300_vgg16 is for detection and .* holds data"),
        ({"recipe": "ssd30_vgg16"}, "unknown recipe 'ssd30_vgg16'; did you mean ssd300_vgg16?"),
    ):
        with pytest.raises(ZooError, match=text.replace("?", r"\?")):
            show_data(root, **arguments)  # type: ignore[arg-type]
