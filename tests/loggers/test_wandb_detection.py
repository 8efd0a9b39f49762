"""Boxes and masks in W&B: the offline file and what it points to are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from wandb_files import Log

from lightning_zoo.drawing import Tile
from lightning_zoo.loggers.wandb_images import (
    log_images,
    log_predictions,
    wandb_detection_image,
)

NAMES = ["__background__", "cat", "N/A", "dog"]
LABELS = {"1": "cat", "3": "dog"}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return Log(tmp_path)


def photo(height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.full((3, height, width), 90, dtype=torch.uint8)


def sample() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two overlapping predictions (and one not worth showing) and two true objects."""
    masks = torch.zeros(3, 1, 24, 32)
    masks[0, 0, 2:12, 2:12], masks[1, 0, 6:20, 6:20] = 0.6, 0.9
    masks[2, 0] = 1
    prediction = {
        "boxes": torch.tensor([[2.0, 2, 12, 12], [6, 6, 20, 20], [0, 0, 32, 24]]),
        "labels": torch.tensor([3, 1, 1]),
        "scores": torch.tensor([0.75, 0.5, 0.05]),
        "masks": masks,
    }
    large, small = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
    large[0:20, 0:30], small[4:8, 4:8] = 1, 1
    truth = {
        "boxes": torch.tensor([[4.0, 4, 8, 8], [0, 0, 30, 20]]),
        "labels": torch.tensor([1, 3]),
        "iscrowd": torch.tensor([0, 1]),
        "masks": [dict(coco_mask.encode(np.asfortranarray(m))) for m in (small, large)],
    }
    return prediction, truth


def overlays(log: Log, entry: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what the overlays of an image hold, by side."""
    found = {}
    for one in entry[kind]:
        for side, content in one.items():
            path = log.files / content["path"]
            assert path.is_file(), "the file that the record names is there"
            found[side] = (
                json.loads(path.read_text())
                if path.suffix == ".json"
                else np.asarray(Image.open(path))
            )
    return found


def test_overlays_are_read_back(log: Log) -> None:
    prediction, truth = sample()
    pixels = photo().permute(1, 2, 0).numpy()
    images = [
        wandb_detection_image(pixels, prediction, truth, NAMES, caption="2 found, 2 true"),
        wandb_detection_image(pixels, {**prediction, "masks": None}, None, NAMES),
    ]
    log_images(log.logger, {"val/objects": images}, step=7)
    logged = log.close()
    assert logged["trainer/global_step"] == 7
    entry = logged["val/objects"]
    assert entry["count"] == 2
    assert entry["captions"][0] == "2 found, 2 true"
    boxes = overlays(log, {"boxes": entry["all_boxes"][:1]}, "boxes")
    assert set(boxes) == {"predictions", "ground_truth"}
    for side in boxes.values():
        assert side["class_labels"] == LABELS
    found = boxes["predictions"]["box_data"]
    assert [box["class_id"] for box in found] == [3, 1], "best first, the third is too weak"
    assert [box["box_caption"] for box in found] == ["dog 75 %", "cat 50 %"]
    assert [box["scores"]["score"] for box in found] == [0.75, 0.5]
    assert found[0]["position"] == {"minX": 2, "minY": 2, "maxX": 12, "maxY": 12}
    assert found[0]["domain"] == "pixel"
    true = boxes["ground_truth"]["box_data"]
    assert [box["box_caption"] for box in true] == ["cat", "dog (crowd)"]
    masks = overlays(log, {"masks": entry["all_masks"][:1]}, "masks")
    expected = np.zeros((24, 32), np.uint8)
    expected[6:20, 6:20] = 1
    expected[2:12, 2:12] = 3  # the better one on top
    np.testing.assert_array_equal(masks["predictions"], expected)
    expected[:] = 0
    expected[0:20, 0:30] = 3
    expected[4:8, 4:8] = 1  # the smaller one on top
    np.testing.assert_array_equal(masks["ground_truth"], expected)
    assert set(entry["all_boxes"][1]) == {"predictions"}
    for kind in ("bounding_box", "mask"):
        assert log.class_labels(kind) == [LABELS, LABELS]


def test_a_batch_of_a_detector(log: Log) -> None:
    prediction, truth = sample()
    empty = {k: v[:0] for k, v in prediction.items()}
    batch = {
        "image": [photo(), photo(40, 20)],
        "target": [truth, {k: v[:0] for k, v in truth.items()}],
    }
    tiles = [Tile(photo().permute(1, 2, 0).numpy(), [f"{n} found"], wide=True) for n in (2, 0)]
    outputs = [{"detections": [prediction]}, {"detections": [empty]}]
    log_predictions(log.logger, batch, outputs, tiles, NAMES, step=3)
    logged = log.close()
    entry = logged["val/predictions"]
    assert entry["captions"] == ["2 found", "0 found"]
    assert len(entry["all_boxes"]) == len(entry["all_masks"]) == 2
    assert (entry["width"], entry["height"]) == (32, 40), "as large as the largest of each"
    masks = overlays(log, {"masks": entry["all_masks"][:1]}, "masks")
    assert masks["predictions"].shape == (40, 32)
    assert not masks["predictions"][24:].any()
    nothing = overlays(log, {"boxes": entry["all_boxes"][1:]}, "boxes")
    assert nothing["predictions"]["box_data"] == nothing["ground_truth"]["box_data"] == []
    assert "val/predictions_drawn" not in logged


def test_skeletons_are_logged_as_drawn(log: Log) -> None:
    prediction, truth = sample()
    del prediction["masks"], truth["masks"]
    prediction["keypoints"] = torch.zeros(3, 17, 3)
    tile = Tile(np.zeros((40, 100, 3), np.uint8), ["2 found"], wide=True)
    outputs = [{"detections": [prediction]}]
    batch = {"image": [photo()], "target": [truth]}
    log_predictions(log.logger, batch, outputs, [tile], NAMES, step=3)
    logged = log.close()
    assert logged["val/predictions"]["count"] == 1
    assert logged["val/predictions_drawn"]["width"] == 100


def test_a_batch_of_a_classifier(log: Log) -> None:
    tile = Tile(np.zeros((40, 40, 3), np.uint8), ["cat 93 %", "truth: cat"], right=True)
    batch = {"image": photo()[None]}
    log_predictions(log.logger, batch, [{"probs": torch.zeros(1, 4)}], [tile], NAMES, step=3)
    entry = log.close()["val/predictions"]
    assert entry["captions"] == ["cat 93 % | truth: cat"]
    assert entry["width"] == 224


def test_labels_without_names_and_above_bytes(tmp_path: Path) -> None:
    """A label of 300 has no place in a mask of bytes; without a name it is its number."""
    prediction, _ = sample()
    prediction["labels"] = torch.tensor([300, 2, 1])
    prediction["boxes"][1, 0] = float("nan")
    image = wandb_detection_image(
        photo().permute(1, 2, 0).numpy(), prediction, None, {1: "cat", 5: ""}
    )
    boxes, masks = image._boxes["predictions"], image._masks["predictions"]
    assert [box["box_caption"] for box in boxes._val] == ["300 75 %"]
    assert boxes._class_labels == {1: "cat", 300: "300"}
    assert set(np.unique(masks._val["mask_data"]).tolist()) == {0, 2}
