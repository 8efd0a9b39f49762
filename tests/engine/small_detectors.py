"""Recipes of detectors that are small enough to train within a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SMALL = {
    "backbone": "resnet18", "returned_layers": [2, 3], "fpn_channels": 16, "min_size": 64,
    "representation_size": 32, "max_size": 96, "anchor_sizes": [16, 32, 48],
    "aspect_ratios": [1.0], "rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 16,
    "box_batch_size_per_image": 32, "box_score_thresh": 0.0, "box_detections_per_img": 8,
}  # fmt: skip
HEADS: dict[str, dict[str, Any]] = {
    "boxes": {},
    "masks": {"mask_layers": [16], "mask_dim_reduced": 16},
    "keypoints": {"keypoint_layers": [16]},
}
MODELS = {"boxes": "faster_rcnn", "masks": "mask_rcnn", "keypoints": "keypoint_rcnn"}


def write_recipe(folder: Path, target: str, *, root: Path, **changes: Any) -> Path:
    """Write a recipe of a small detector; ``changes`` replace whole sections' keys."""
    task: dict[str, Any] = {
        "model": MODELS[target],
        "model_args": {**SMALL, **HEADS[target]},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}},
    }
    data = {"root": str(root), "target": target, "workers": 0, "aspect_ratio_groups": 3}
    if target == "keypoints":
        task["keypoints"] = str(root / "kite.yaml")
        data |= {"keypoints": str(root / "kite.yaml"), "min_keypoints": 1}
    recipe = {
        "seed_everything": 0,
        "model": {
            "class_path": "KeypointTask" if target == "keypoints" else "DetectionTask",
            "init_args": task,
        },
        "data": {"class_path": "CocoDataModule", "init_args": data},
        "batch": {"size": 4, "per_device": 2},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "run": {"loggers": ["csv"], "checkpoint_steps": 1, "pictures": 2},
    }
    for section, keys in changes.items():
        recipe[section] = {**recipe[section], **keys}  # type: ignore[dict-item]
    path = folder / f"{target}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
