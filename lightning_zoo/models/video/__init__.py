"""Video classifiers, by the names of the classic torchvision zoo: ``video.r3d_18()``.

Beside them ``video_resnet`` takes any depth and width. The family's file is imported when one of
its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightning_zoo.models.registry import registry

if TYPE_CHECKING:
    from lightning_zoo.models.video.resnet import (
        VideoResNet,
        mc3_18,
        r2plus1d_18,
        r3d_18,
        video_resnet,
    )

__all__ = ["VideoResNet", "mc3_18", "r2plus1d_18", "r3d_18", "video_resnet"]


def __getattr__(name: str) -> Any:
    if ("video", name) in registry():
        return registry()["video", name].load_builder()
    if name == "VideoResNet":
        return importlib.import_module(f"{__name__}.resnet").VideoResNet
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
