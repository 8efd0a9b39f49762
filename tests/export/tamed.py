"""Networks with random weights that nonetheless say something: sure of classes, finding objects."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.export.subject import Subject, published_subject
from lightning_zoo.models.registry import ModelEntry, registry

SMALL_IMAGES = {"min_size": 96, "max_size": 160}
FEW = {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 50}
ENTRIES = [entry for (task, _), entry in registry().items() if task != "quantization"]


def noise(*shape: int) -> Tensor:
    """Return blocks of random colours, which are more like photos than single pixels are."""
    height, width = shape[-2:]
    small = torch.randint(0, 256, (*shape[:-2], height // 8 + 1, width // 8 + 1), dtype=torch.uint8)
    large = small.repeat_interleave(8, dim=-2).repeat_interleave(8, dim=-1)
    return large[..., :height, :width].contiguous()


def tamed_detector(model: nn.Module) -> nn.Module:
    """Settle the norms on noise and scale the class heads until a handful of objects is found."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()
        if norms:
            model.backbone(torch.randn(2, 3, 128, 160))  # type: ignore[operator]
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        heads = [
            value for name, value in model.named_parameters()
            if ("cls_" in name or "classification_head.module_list" in name)
            and name.endswith("weight") and value.ndim >= 2 and not name.startswith("rpn.")
        ]  # fmt: skip
        assert heads
        images = [noise(3, 120, 150), noise(3, 96, 131)]
        for _ in range(30):
            if min(len(found["scores"]) for found in model(images)) >= 4:
                return model
            for head in heads:
                head *= 1.5
    raise AssertionError("nothing is found whatever the class heads say")


def sure(model: nn.Module, pixels: Tensor) -> nn.Module:
    """Scale the last layer, so that logits differ by more than rounding."""
    model.eval()
    with torch.no_grad():
        logits = model(pixels)
        logits = logits["out"] if isinstance(logits, dict) else logits
        last = [
            m for m in model.modules()
            if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)
        ][-1]  # fmt: skip
        factor = 2 / float(logits.std())
        last.weight *= factor
        if last.bias is not None:
            last.bias *= factor
    return model


def tamed(entry: ModelEntry, **args: Any) -> Subject:
    """Return a model of the zoo to export, with random weights and small images."""
    torch.manual_seed(0)
    if entry.task == "detection":
        if not entry.name.startswith("ssd"):
            args = {**SMALL_IMAGES, **args}
            args |= {} if entry.name.startswith("retinanet") else FEW
        model = tamed_detector(
            entry.load_builder()(weights=None, pretrained_backbone=False, **args)
        )
        subject = published_subject(entry, model, None, weights="none")
        subject.size = (96, 128)
        return subject
    if entry.task == "segmentation":
        args["pretrained_backbone"] = False
    model = entry.load_builder()(weights=None, **args)
    side = max(64, entry.min_size + entry.min_size % 2)
    shape = (2, 3, 8, side, side) if entry.task == "video" else (2, 3, side, side)
    subject = published_subject(entry, sure(model, torch.randn(shape)), None, weights="none")
    subject.size = (side, side)
    if subject.frames is not None:
        subject.frames = 8
    return subject
