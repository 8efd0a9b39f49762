"""One batch, as the tasks predict it, becomes one tile an image: in one part or in several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lightning_zoo.drawing import batch_tiles

NAMES = ["__background__", "cat", "dog"]


def test_classifier() -> None:
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 6)
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    batch = {"image": images, "label": torch.tensor([0, 0, 0])}
    parts = [{"probs": probs[:2]}, {"probs": probs[2:]}]
    tiles = batch_tiles(batch, parts, ["cat", "dog"])
    assert [tile.lines[0] for tile in tiles] == ["cat 90 %", "dog 80 %", "cat 60 %"]
    assert [tile.lines[1] for tile in tiles] == ["truth: cat"] * 3
    assert [tile.right for tile in tiles] == [True, False, True]
    for i, tile in enumerate(tiles):
        np.testing.assert_array_equal(tile.image, np.full((4, 6, 3), i, np.uint8))


def test_several_labels() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    batch = {"image": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "label": labels}
    probs = torch.tensor([[0.9, 0.6, 0.1], [0.1, 0.1, 0.2]])
    tiles = batch_tiles(batch, [{"probs": probs}], ["a", "b", "c"])
    assert [tile.lines[0] for tile in tiles] == ["a 90 %, b 60 %", "nothing"]
    assert [tile.right for tile in tiles] == [True, True]


def objects(count: int) -> dict[str, Any]:
    boxes = torch.tensor([[5.0, 5.0, 40.0, 30.0], [20.0, 10.0, 50.0, 38.0]])[:count]
    return {"boxes": boxes, "labels": torch.tensor([1, 2])[:count]}


def test_detector() -> None:
    """Images differ in size; the parts come one at a time."""
    batch = {
        "image": [torch.zeros(3, h, w, dtype=torch.uint8) for h, w in ((40, 60), (60, 40))],
        "target": [objects(2), objects(0)],
    }
    found = [{**objects(n), "scores": torch.tensor([0.9, 0.3])[:n]} for n in (2, 1)]
    tiles = batch_tiles(batch, [{"detections": [one]} for one in found], NAMES)
    assert len(tiles) == 2
    assert all(tile.wide for tile in tiles)
    assert all(tile.image.dtype == np.uint8 and tile.image.max() > 0 for tile in tiles)
    at_once = batch_tiles(batch, [{"detections": found}], NAMES)
    for one, other in zip(tiles, at_once, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.lines == other.lines
