"""Float classifiers whose random weights behave like trained ones, and programs made of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo import int8, models
from lightning_zoo.models.registry import get_entry, registry

CLASSIFIERS = sorted(name for task, name in registry() if task == "classification")


def side(name: str) -> int:
    """Return a small side of images that a network takes."""
    return max(64, get_entry(name).min_size)


def images(name: str, count: int = 4, seed: int = 0) -> Tensor:
    """Return normalised images, smooth like photos."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(count, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(small, size=side(name), mode="bicubic")


def network(name: str) -> Any:
    """Return a classifier of 10 classes, with norms that fit its weights."""
    heads = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    model: Any = models.get_model(name, num_classes=10, **heads)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model.train()(images(name))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def calibrated(name: str, model: Any) -> Any:
    """Return a network that has observed images."""
    prepared = int8.prepare(model, images(name, 2))
    with torch.no_grad():
        prepared(images(name))
    return prepared


def distance(found: Tensor, expected: Tensor) -> float:
    """Return by how much logits differ, against how much they differ between images."""
    spread = (expected - expected.mean(0)).norm()
    return float((found - expected).norm() / spread)
