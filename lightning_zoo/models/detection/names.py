"""What changed since the published detectors were saved: names of tensors, and one constant."""

from __future__ import annotations

import re
from typing import Any

from lightning_zoo.layers import FrozenBatchNorm2d
from lightning_zoo.models.registry import Weights

LAST = r"(weight|bias)$"
OLD_NAMES = (
    (re.compile(rf"(fpn\.(?:inner|layer)_blocks\.\d+)\.{LAST}"), r"\1.0.\2"),
    (re.compile(rf"^(rpn\.head\.conv)\.{LAST}"), r"\1.0.0.\2"),
)
MASK = re.compile(rf"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.{LAST}")
TOWER = re.compile(rf"^(head\.(?:classification|regression)_head\.conv)\.(\d+)\.{LAST}")


def current_name(key: str) -> str:
    """Return today's name of a tensor of a published detector; today's names stay."""
    for pattern, name in OLD_NAMES:
        key = pattern.sub(name, key)
    key = MASK.sub(lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}", key)  # counted from 1
    return TOWER.sub(lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}", key)  # counted with the ReLUs


def without_eps(model: Any, weights: Weights) -> None:
    """Set the eps of the frozen norms to 0: so it was when these weights were trained."""
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
