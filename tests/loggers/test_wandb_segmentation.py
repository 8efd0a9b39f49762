"""Label maps in W&B: the offline file and the pictures that it names are read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from wandb_files import Log

from lightning_zoo.drawing import batch_tiles
from lightning_zoo.loggers.wandb_images import log_predictions, wandb_segmentation_image

NAMES = ["__background__", "cat", "dog"]


def label_map(height: int, width: int) -> torch.Tensor:
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[2:8, 2:10], labels[5:9, 12:] = 1, 2
    return labels


def read(log: Log, entry: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the label maps of one image by their side."""
    found = {}
    for side, content in entry.items():
        path = log.files / content["path"]
        assert path.is_file(), "the file that the record names is there"
        found[side] = np.asarray(Image.open(path))
    return found


def test_a_batch_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Images that differ in size, each with both maps and the names of the classes."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = Log(tmp_path)
    sizes = ((12, 16), (16, 20))
    images = [torch.full((3, h, w), 90, dtype=torch.uint8) for h, w in sizes]
    truths = [label_map(h, w) for h, w in sizes]
    truths[1][0] = 255
    maps = [truths[0].clone(), label_map(16, 20).roll(1, 0)]
    batch = {"image": images, "mask": truths, "id": ["a", "b"]}
    outputs = [{"segmentation": [one]} for one in maps]
    tiles = batch_tiles(batch, outputs, NAMES)
    log_predictions(log.logger, batch, outputs, tiles, NAMES, step=4)
    logged = log.close()
    assert logged["trainer/global_step"] == 4
    entry = logged["val/predictions"]
    assert entry["count"] == 2
    assert entry["captions"][0] == "100.0 % of the pixels right, mean IoU 100.0 %"
    for i in range(2):
        masks = read(log, entry["all_masks"][i])
        assert set(masks) == {"predictions", "ground_truth"}
        for side, truth in (("predictions", maps[i]), ("ground_truth", truths[i])):
            height, width = truth.shape
            assert masks[side].shape == (16, 20), "as large as the largest: W&B shows them so"
            np.testing.assert_array_equal(masks[side][:height, :width], truth)
            assert (masks[side][height:] == 255).all()
            assert (masks[side][:, width:] == 255).all()
    assert "sizes do not match" not in caplog.text
    classes = {"1": "cat", "2": "dog"}
    labels = log.class_labels("mask")
    assert {**classes, "255": "void"} in labels
    assert all(one in (classes, {**classes, "255": "void"}) for one in labels)


def test_labels_without_names() -> None:
    image = wandb_segmentation_image(
        np.zeros((12, 16, 3), np.uint8), label_map(12, 16).numpy(), None, ["road", "car"]
    )
    (side,) = image._masks
    assert side == "predictions"
    assert image._masks[side]._val["class_labels"] == {0: "road", 1: "car", 2: "2"}
