"""What `finetune` decides before it trains: settings from the data, and a complete recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_zoo.engine.finetune.compose import check_fit, compose
from lightning_zoo.engine.finetune.defaults import SLOW_NORMS, choose, follow_length
from lightning_zoo.engine.finetune.statistics import (
    Statistics,
    anchor_recall,
    anchor_sizes,
    measure,
)
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, Item, MaskCoding, Object
from lightning_zoo.models import hub
from lightning_zoo.models.registry import get_entry, list_models, registry

TRAINABLE = [entry for (task, _), entry in registry().items() if task != "quantization"]


def objects_index(side: float = 40.0, images: int = 40, **more: object) -> DataIndex:
    square = [[10.0, 10.0, 10 + side, 10.0, 10 + side, 10 + side]]
    one = Object(0, (10.0, 10.0, side, side), square, (12.0, 12.0, 2.0) * 17)
    items = [
        Item(f"{i}.jpg", "val" if i % 4 == 0 else "train", 640, 480, objects=(one,))
        for i in range(images)
    ]
    names = {"keypoints": tuple(f"k{i}" for i in range(17))} if more.pop("points", False) else {}
    return DataIndex(Path("cells"), "coco", "detection", ("cell",), tuple(items), **names)


def index_for(task: str, name: str) -> DataIndex:
    if task == "detection":
        return objects_index(points="keypoint" in name)
    items = tuple(
        Item(f"{i}.jpg", "val" if i % 4 == 0 else "train", 300, 200, labels=(i % 2,))
        for i in range(40)
    )
    kind = {"classification": "folders", "segmentation": "masks", "video": "video_folders"}[task]
    masks = MaskCoding() if task == "segmentation" else None
    return DataIndex(Path("own"), kind, task, ("a", "b"), items, masks=masks)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["none", "model"])
@pytest.mark.parametrize("entry", TRAINABLE, ids=lambda entry: entry.name)
def test_every_model_of_the_zoo_gets_a_recipe_without_mistakes(entry, start) -> None:
    index = index_for(entry.task, entry.name)
    check_fit(entry, index)
    for on_gpu in (False, True):
        choices = choose(index, measure(index), entry, start=start, on_gpu=on_gpu)
        recipe = compose(
            index, entry, choices, name="x", start=start, weights="DEFAULT", command="c",
            read={"root": "own", "format": "auto", "val_share": 0.2, "split_seed": 0},
        )  # fmt: skip
        assert recipe.problems() == []
        assert recipe.get("batch.size") * 4 <= 30
        (every,) = [
            c.value
            for c in follow_length(entry, recipe.get("trainer.max_epochs"), 8)
            if "check" in c.key
        ] or [1]
        assert recipe.get("trainer.max_epochs") / every <= 19


def test_found_some_models() -> None:
    assert len(TRAINABLE) >= 54


def test_sizes_of_objects_are_shares_of_the_shorter_side() -> None:
    sizes = measure(objects_index(side=48.0))
    assert (sizes.images, sizes.short) == (30, 480)
    assert sizes.ratio == pytest.approx(640 / 480)
    np.testing.assert_allclose(sizes.boxes, 0.1)


def test_anchors_by_hand() -> None:
    box = np.array([[32.0, 32.0]])
    assert anchor_recall(box, [32], [1.0]) == 1.0
    assert anchor_recall(box, [64], [1.0]) == 0.0  # a quarter of it
    assert anchor_recall(box, [45], [1.0]) == 1.0  # 1024 / 2025, just above half
    assert anchor_recall(box, [46], [1.0]) == 0.0
    # an anchor of twice the height: 32 x 32 within 22.6 x 45.3 shares 22.6 * 32 of 1344
    assert anchor_recall(box, [32], [2.0]) == 1.0
    assert anchor_recall(box, [32], [4.0]) == 0.0


def test_anchor_sizes_span_the_objects_in_equal_ratios() -> None:
    sides = np.geomspace(10, 160, 1001)
    found = anchor_sizes(np.stack([sides, sides], axis=1), 5)
    assert found[0] == round(10 * 16**0.05)
    assert found[-1] == round(10 * 16**0.95)
    steps = np.array(found[1:]) / np.array(found[:-1])
    np.testing.assert_allclose(steps, steps[0], rtol=0.05)


def chosen(index: DataIndex, model: str, **how: object) -> dict[str, object]:
    options = {"start": "none", "on_gpu": False, **how}
    found = choose(index, measure(index), get_entry(model), **options)  # type: ignore[arg-type]
    return {choice.key: choice.value for choice in found}


def test_small_objects_make_the_image_larger() -> None:
    few = chosen(objects_index(side=40), "fasterrcnn_mobilenet_v3_large_320_fpn")
    many = chosen(objects_index(side=14), "fasterrcnn_mobilenet_v3_large_320_fpn")
    assert few["model.model_args.min_size"] == 320
    # 14 of 480 pixels are to become 16: 16 / 14 * 480 = 548.6
    assert many["model.model_args.min_size"] == 576


def test_a_given_side_is_what_the_rest_follows() -> None:
    index = objects_index(side=60)
    key = "model.model_args.rpn_anchor_generator"
    found = chosen(index, "fasterrcnn_resnet50_fpn", side=96)
    # 640 over 480 of 96 pixels; objects of 12 pixels, which the usual anchors from 32 on miss
    assert found["model.model_args.max_size"] == 128
    assert key in found
    assert key not in chosen(index, "fasterrcnn_resnet50_fpn", side=320)


def test_anchors_are_changed_where_they_miss_and_nothing_was_learned_for_them() -> None:
    tiny = objects_index(side=13)
    key = "model.model_args.rpn_anchor_generator"
    assert key not in chosen(objects_index(side=60), "fasterrcnn_resnet50_fpn")
    assert key in chosen(tiny, "fasterrcnn_resnet50_fpn")
    assert key not in chosen(tiny, "fasterrcnn_resnet50_fpn", start="model")
    assert "model.model_args.anchor_sizes" in chosen(tiny, "faster_rcnn")


def test_sides_are_not_mirrored() -> None:
    items = tuple(Item(f"{i}.jpg", "train", 99, 99, labels=(i % 2,)) for i in range(9))
    index = DataIndex(Path("x"), "folders", "classification", ("left hand", "right hand"), items)
    assert chosen(index, "resnet18")["data.flip"] == 0.0
    other = DataIndex(Path("x"), "folders", "classification", ("brightness", "b"), items)
    assert "data.flip" not in chosen(other, "resnet18")


def test_longer_runs_are_measured_ten_times() -> None:
    found = chosen(objects_index(images=40), "fasterrcnn_mobilenet_v3_large_320_fpn")
    assert found["batch.size"] == 4
    # 30 images, 8 steps an epoch, about 600 steps: 75 epochs, of which each seventh is measured
    assert found["trainer.max_epochs"] == 70
    resnet = get_entry("resnet18")
    values = {
        n: {c.key.split(".")[-1]: c.value for c in follow_length(resnet, n, 8)}
        for n in (1, 9, 23, 100)
    }
    assert values == {
        1: {"warmup_epochs": 0.2}, 9: {"warmup_epochs": 1}, 23: {"warmup_epochs": 1},
        100: {"warmup_epochs": 1, "check_val_every_n_epoch": 10},
    }  # fmt: skip


def test_norms_that_are_too_slow_for_the_run_are_made_faster() -> None:
    def keys(model: str, steps: int) -> list[str]:
        return [c.key for c in follow_length(get_entry(model), 1, steps)]

    momentum = "model.finetuning.norm_momentum"
    assert momentum in keys("mobilenet_v3_small", 499)
    assert momentum not in keys("mobilenet_v3_small", 500)
    assert momentum in keys("mnasnet0_5", 10_000)
    assert momentum not in keys("resnet18", 10)


def test_slow_norms_are_those_of_the_registry() -> None:
    """Whatever network has a momentum below torch's own is known to be slow."""
    for entry in TRAINABLE:
        if entry.task == "detection" or entry.num_params > 12_000_000:
            continue
        with torch.device("meta"), hub.structure_only():
            network = entry.load_builder()(num_classes=2)
        found = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
        slow = [value for part, value in SLOW_NORMS.items() if part in entry.name]
        if found and min(found) < 0.1:
            assert slow, entry.name
            assert slow[0] == pytest.approx(min(found), rel=0.01)
        else:
            assert not slow, entry.name


@pytest.mark.parametrize(
    ("model", "index", "text"),
    [
        ("resnet18", objects_index(), "resnet18 is a classification model and 'cells' holds data"),
        (
            "maskrcnn_resnet50_fpn",
            DataIndex(Path("d"), "voc", "detection", ("a",), (
                Item("1.jpg", "train", 9, 9, objects=(Object(0, (1, 1, 5, 5)),)),)),
            "maskrcnn_resnet50_fpn needs masks and the objects of 'd' have boxes; name a model for "
            "boxes, fasterrcnn_mobilenet_v3_large_320_fpn for instance",
        ),
        (
            "resnet18",
            DataIndex(Path("d"), "folders", "classification", ("cat",), (
                Item("cat/1.jpg", "train", labels=(0,)),)),
            "'d' has the class 'cat' alone, and there is nothing to tell it from",
        ),
        (
            "fasterrcnn_resnet50_fpn",
            DataIndex(Path("d"), "voc", "detection", ("a",), (Item("1.jpg", "train", 9, 9),)),
            "no training image of 'd' has an object",
        ),
        (
            "resnet18",
            DataIndex(Path("d"), "folders", "classification", ("a", "b"), (
                Item("1.jpg", "val", labels=(0,)),)),
            "'d' has no training images",
        ),
    ],
)  # fmt: skip
def test_data_that_the_model_cannot_learn_from(model, index, text) -> None:
    with pytest.raises(ZooError) as caught:
        check_fit(get_entry(model), index)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_statistic_without_sizes_leaves_the_size_to_the_network() -> None:
    index = objects_index()
    empty = Statistics(30, 0, 1.0, np.zeros((0, 2)))
    entry = get_entry("fasterrcnn_resnet50_fpn")
    keys = {c.key for c in choose(index, empty, entry, start="none", on_gpu=False)}
    assert not any("min_size" in key or "anchor" in key for key in keys)
    assert len(list_models("detection")) == 12
