"""Detectors, by the names of the classic torchvision zoo: ``detection.maskrcnn_resnet50_fpn()``.

Beside them ``faster_rcnn``, ``mask_rcnn``, ``keypoint_rcnn`` and ``retinanet`` take any classifier
of the zoo as their backbone, and parts of any width. A family's file is imported when one of its
names is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_zoo.models.registry import registry

if TYPE_CHECKING:
    from lightning_zoo.models.detection.faster_rcnn import (
        FasterRCNN,
        faster_rcnn,
        fasterrcnn_mobilenet_v3_large_320_fpn,
        fasterrcnn_mobilenet_v3_large_fpn,
        fasterrcnn_resnet50_fpn,
    )
    from lightning_zoo.models.detection.keypoint_rcnn import (
        KeypointRCNN,
        keypoint_rcnn,
        keypointrcnn_resnet50_fpn,
    )
    from lightning_zoo.models.detection.mask_rcnn import (
        MaskRCNN,
        mask_rcnn,
        maskrcnn_resnet50_fpn,
    )
    from lightning_zoo.models.detection.retinanet import (
        RetinaNet,
        retinanet,
        retinanet_resnet50_fpn,
    )
    from lightning_zoo.models.detection.ssd import SSD, ssd300_vgg16
    from lightning_zoo.models.detection.ssdlite import ssdlite320_mobilenet_v3_large

__all__ = [
    "SSD",
    "FasterRCNN",
    "KeypointRCNN",
    "MaskRCNN",
    "RetinaNet",
    "faster_rcnn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "keypoint_rcnn",
    "keypointrcnn_resnet50_fpn",
    "mask_rcnn",
    "maskrcnn_resnet50_fpn",
    "retinanet",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]

NETWORKS = {
    "FasterRCNN": "faster_rcnn",
    "KeypointRCNN": "keypoint_rcnn",
    "MaskRCNN": "mask_rcnn",
    "RetinaNet": "retinanet",
    "SSD": "ssd",
}
"""Files of the networks."""


class _Package(ModuleType):
    """Keeps an import of ``retinanet.py`` from putting the file in the place of the constructor."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if ("detection", name) in registry():
        return registry()["detection", name].load_builder()
    if name in NETWORKS:
        return getattr(importlib.import_module(f"{__name__}.{NETWORKS[name]}"), name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
