"""Detectors against torchvision, where it is installed.

``python tests/models/test_detection_parity.py`` records the golden data of the small detectors.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import torch
from detectors import CASES, answers, make_images, make_targets, set_values, take_every_box
from parity import GOLDEN, no_dropout
from torch import nn

from lightning_zoo import models
from lightning_zoo.models.detection.mask_targets import mask_targets
from lightning_zoo.models.detection.transform import GeneralizedRCNNTransform

PUBLISHED = [n for n in models.list_models("detection") if models.get_entry(n).weights]


def theirs(name: str, **kwargs: Any) -> nn.Module:
    """Return torchvision's network, with random values."""
    detection = pytest.importorskip("torchvision").models.detection
    if hasattr(detection, name) and callable(getattr(detection, name)):
        return getattr(detection, name)(weights=None, weights_backbone=None, **kwargs)
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    network = {
        "faster_rcnn": detection.FasterRCNN,
        "mask_rcnn": detection.MaskRCNN,
        "keypoint_rcnn": detection.KeypointRCNN,
        "retinanet": detection.RetinaNet,
    }[name]
    options: dict[str, Any] = {}
    if name == "retinanet":
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        options = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
        sizes = tuple(
            (x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)
        )
        kwargs["anchor_generator"] = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        **options,
    )
    return network(backbone, **kwargs)


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_same_detections_losses_and_gradients(name: str) -> None:
    """In float64, where a rounding decides nothing."""
    torch.manual_seed(0)
    kwargs: dict[str, Any] = {"num_classes": 2 if "keypoint" in name else 5}
    if "ssd" not in name:
        kwargs |= {"min_size": 96, "max_size": 160}
    if "rcnn" in name:
        kwargs |= {"rpn_post_nms_top_n_train": 60, "box_score_thresh": 0.02}
    their_model = theirs(name, **kwargs)
    set_values(their_model)
    our_model = getattr(models.detection, name)(pretrained_backbone=False, **kwargs).double()
    our_model.load_state_dict(their_model.state_dict())
    with torch.no_grad():
        want, got = their_model.eval()(make_images()), our_model.eval()(make_images())
    for a, b in zip(want, got, strict=True):
        assert a.keys() == b.keys()
        assert len(a["boxes"])
        for key in a:
            torch.testing.assert_close(b[key].to(a[key].dtype), a[key], rtol=1e-4, atol=1e-4)
    sums = []
    for model in (their_model, our_model):
        model.train()
        no_dropout(model)
        take_every_box(model)
        keypoints = 17 if "keypoint" in name else 6
        targets = make_targets(num_classes=kwargs["num_classes"], num_keypoints=keypoints)
        losses = model(make_images(), targets)
        sum(losses.values()).backward()
        sums.append(losses)
    assert sums[0].keys() == sums[1].keys()
    for key, value in sums[0].items():
        torch.testing.assert_close(sums[1][key].double(), value.double(), rtol=1e-5, atol=1e-6)
    for (n, p), q in zip(their_model.named_parameters(), our_model.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            norm = float(p.grad.norm())
            assert float((p.grad - q.grad).norm()) <= 1e-4 * norm + 1e-6, n


@pytest.mark.parity
def test_same_sizes_as_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision")
    options = (800, 1333, [0.0] * 3, [1.0] * 3)
    want = torchvision.models.detection.transform.GeneralizedRCNNTransform(*options).eval()
    ours = GeneralizedRCNNTransform(*options).eval()
    generator = torch.Generator().manual_seed(0)
    for h, w in torch.randint(30, 700, (150, 2), generator=generator).tolist():
        image = torch.zeros(3, h, w)
        assert ours.target_size(h, w) == tuple(want.resize(image, None)[0].shape[-2:]), (h, w)


@pytest.mark.parity
def test_mask_targets_are_those_of_resized_masks() -> None:
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(0)
    for old, new in [((48, 64), (120, 160)), ((300, 200), (160, 107)), ((50, 50), (50, 50))]:
        masks = (torch.rand(4, *old, generator=generator) > 0.5).to(torch.uint8)
        corner = torch.rand(60, 2, generator=generator) * 0.8
        boxes = torch.cat([corner, corner + torch.rand(60, 2, generator=generator) * 0.4], 1)
        boxes = (boxes.clamp(max=1) * torch.tensor([new[1], new[0]] * 2)).float()
        boxes[0] = torch.tensor([3.2, 4.1, 3.2, 4.6])  # RoIAlign takes at least one pixel
        objects = torch.randint(4, (60,), generator=generator)
        resized = nn.functional.interpolate(masks[:, None].float(), size=new)
        rois = torch.cat([objects[:, None].float(), boxes], dim=1)
        want = torchvision.ops.roi_align(resized, rois, 28, 1.0)[:, 0]
        got = mask_targets(masks, boxes, objects, 28, new)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def record() -> None:
    kept = {}
    for name, kwargs in CASES.items():
        torch.manual_seed(0)
        model = theirs(name, **kwargs)
        set_values(model)
        kept[name] = answers(model, kwargs["num_classes"])
    with gzip.open(GOLDEN / "small_detectors.json.gz", "wt") as file:
        json.dump(kept, file)


if __name__ == "__main__":
    record()
