"""Checkpoints as runs leave them, of networks that nobody has trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_zoo.recipe.build import build


def write_checkpoint(
    path: Path,
    config: dict[str, Any],
    class_names: list[str],
    *,
    prepare: Callable[[Any], Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write the checkpoint of a recipe's task.

    Args:
        path: The file.
        config: The recipe, of which ``batch`` and ``trainer`` may be left out.
        class_names: Name of each class.
        prepare: Called with the task before it is saved.
        seed: Seed of the weights.
    """
    config = {"batch": {"size": 2, "per_device": 2}, "trainer": {"max_epochs": 1}, **config}
    torch.manual_seed(seed)
    task = build(copy.deepcopy(config["model"]))
    if prepare is not None:
        prepare(task)
    ours = {"recipe": config, "class_names": class_names}
    torch.save({"state_dict": task.state_dict(), "lightning_zoo": ours}, path)
    return path
