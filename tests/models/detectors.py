"""Small detectors in float64, what they are fed and what is kept of their answers.

The same functions record torchvision's answers, see ``test_detection_parity.py``.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from parity import calibrate, fill
from torch import Tensor, nn

SIZES = [(96, 128), (110, 70)]
COMMON = {"min_size": 96, "max_size": 160}
FEW = {
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_test": 40,
    "rpn_pre_nms_top_n_train": 100,
    "rpn_post_nms_top_n_train": 60,
    "box_score_thresh": 0.02,
}
CASES: dict[str, dict[str, Any]] = {
    "faster_rcnn": {**COMMON, **FEW, "num_classes": 5},
    "mask_rcnn": {**COMMON, **FEW, "num_classes": 5},
    "keypoint_rcnn": {**COMMON, **FEW, "num_classes": 2, "num_keypoints": 6},
    "retinanet": {**COMMON, "num_classes": 5, "topk_candidates": 60},
    "ssd300_vgg16": {"num_classes": 5},
    "ssdlite320_mobilenet_v3_large": {"num_classes": 5},
}
CLASS_HEADS = ("cls_score.weight", "cls_logits.weight", "classification_head.module_list")
BOX_HEADS = ("bbox_pred.weight", "bbox_reg.weight", "regression_head.module_list")


def random(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def make_images(sizes: list[tuple[int, int]] = SIZES) -> list[Tensor]:
    rng = random("images")
    return [torch.tensor(rng.uniform(0, 1, (3, h, w))) for h, w in sizes]


def make_targets(
    sizes: list[tuple[int, int]] = SIZES, *, num_classes: int = 5, num_keypoints: int = 6
) -> list[dict[str, Any]]:
    rng = random("targets")
    found = []
    for number, (h, w) in enumerate(sizes):
        corner = rng.uniform(0, 0.5, (3, 2)) * (w, h)
        side = rng.uniform(0.2, 0.45, (3, 2)) * (w, h)
        boxes = np.concatenate([corner, corner + side], axis=1)
        masks = np.zeros((3, h, w), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = rng.uniform(size=(y2 - y1, x2 - x1)) > 0.3
        points = corner[:, None] + rng.uniform(0, 1, (3, num_keypoints, 2)) * side[:, None]
        seen = rng.integers(0, 3, (3, num_keypoints, 1))
        found.append(
            {
                "boxes": torch.tensor(boxes),
                "labels": torch.tensor(rng.integers(1, num_classes, 3)),
                "masks": torch.tensor(masks),
                "keypoints": torch.tensor(np.concatenate([points, seen], axis=2)).float(),
                "area": torch.tensor(side.prod(axis=1)),
                "iscrowd": torch.zeros(3, dtype=torch.int64),
                "id": 40 + number,
            }
        )
    return found


def tame(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Shrink the predictors in place, so that random weights give many different detections."""
    for key, value in state.items():
        if value.is_floating_point() and value.ndim >= 2:
            value *= scale if any(h in key for h in CLASS_HEADS) else 1.0
            value *= 0.05 if any(h in key for h in BOX_HEADS) else 1.0
    return state


def set_values(model: nn.Module, scale: float = 0.3) -> None:
    """Give a detector values that depend on their names alone and make detections of many kinds."""
    model.load_state_dict(tame(fill(model.state_dict()), scale))
    model.double()
    batch = torch.tensor(random("batch").standard_normal((2, 3, 128, 160)))
    calibrate(model, lambda: model.backbone(batch))


def take_every_box(model: nn.Module) -> None:
    """Leave nothing to chance in the losses."""
    for module in model.modules():
        if hasattr(module, "fg_bg_sampler"):
            module.fg_bg_sampler.batch_size_per_image = 10**6


def answers(model: nn.Module, num_classes: int) -> dict[str, Any]:
    """Return detections, losses and norms of gradients, as plain numbers."""
    with torch.no_grad():
        detections = model.eval()(make_images())
    kept = []
    for found in detections:
        plain = {k: v[:20].tolist() for k, v in found.items() if k != "masks"}
        if "masks" in found:
            plain["mask_sums"] = found["masks"].sum(dim=(1, 2, 3))[:20].tolist()
        kept.append({**plain, "count": len(found["scores"])})
    model.train()
    take_every_box(model)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    targets = [
        {k: t[k] for k in ("boxes", "labels", "masks", "keypoints")}
        for t in make_targets(num_classes=num_classes)
    ]
    losses = model(make_images(), targets)
    sum(losses.values()).backward()
    norms = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    names = sorted(norms)[:: max(len(norms) // 12, 1)]
    return {
        "detections": kept,
        "losses": {k: float(v.detach()) for k, v in losses.items()},
        "gradients": {n: norms[n] for n in names},
    }
