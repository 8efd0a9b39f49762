"""The graph of a detector says what the detector says, before anything is traced."""

from __future__ import annotations

import pytest
import torch
from tamed import FEW, SMALL_IMAGES, noise, tamed_detector

from lightning_zoo.export.detection import DetectorGraph
from lightning_zoo.models.registry import get_entry

SIZES = [(96, 128), (131, 70), (40, 300), (33, 33)]
TINY = {
    "backbone": "resnet18", "returned_layers": [2, 3], "fpn_channels": 16, "num_classes": 5,
    "representation_size": 32, "anchor_sizes": [16, 32, 64], **SMALL_IMAGES, **FEW,
}  # fmt: skip
CASES = {
    "faster_rcnn": {},
    "mask_rcnn": {"mask_layers": [16], "mask_dim_reduced": 16},
    "keypoint_rcnn": {"keypoint_layers": [16], "num_keypoints": 4},
    "retinanet": {},
    "ssdlite320_mobilenet_v3_large": {"num_classes": 5},
}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name.startswith("ssd"):
        args = {"pretrained_backbone": False, **CASES[name]}
    elif name == "retinanet":
        keys = ("backbone", "returned_layers", "fpn_channels", "num_classes")
        args = {k: TINY[k] for k in keys} | SMALL_IMAGES | {"anchor_sizes": [16, 32, 64, 128]}
    else:
        args = {**TINY, **CASES[name]}
    return tamed_detector(get_entry(name, "detection").load_builder()(**args))


@pytest.mark.parametrize("name", CASES)
def test_it_finds_what_the_network_finds(name: str) -> None:
    model = build(name)
    graph = DetectorGraph(model)
    images = [noise(3, *size) for size in SIZES]
    with torch.no_grad():
        wanted = [model([image])[0] for image in images]
        found = [graph(image) for image in images]
    assert sum(len(one["scores"]) for one in wanted) >= 8
    for a, b in zip(wanted, found, strict=True):
        assert sorted(a) == sorted(b)
        for key in a:
            torch.testing.assert_close(b[key], a[key])


def test_thresholds_of_classes() -> None:
    model = build("mask_rcnn")
    image = noise(3, 96, 128)
    with torch.no_grad():
        every = model([image])[0]
        label = int(every["labels"][0])
        least = torch.zeros(5)
        least[label] = every["scores"][0]
        found = DetectorGraph(model, least)(image)
    keep = (every["labels"] != label) | (every["scores"] >= every["scores"][0])
    assert 0 < int(keep.sum()) < len(keep)
    for key in every:
        torch.testing.assert_close(found[key], every[key][keep])
    assert found["masks"].shape[1:] == (1, 96, 128)


def test_an_empty_image() -> None:
    model = build("keypoint_rcnn")
    model.roi_heads.score_thresh = 1.0  # type: ignore[union-attr]
    with torch.no_grad():
        found = DetectorGraph(model)(torch.zeros(3, 50, 60, dtype=torch.uint8))
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "boxes": (0, 4), "labels": (0,), "scores": (0,), "keypoints": (0, 4, 3),
        "keypoints_scores": (0, 4),
    }  # fmt: skip
