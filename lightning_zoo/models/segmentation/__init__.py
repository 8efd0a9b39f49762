"""Semantic segmentation, by the names of the classic torchvision zoo: ``fcn_resnet50()``.

Beside them ``fcn``, ``deeplabv3`` and ``lraspp`` take any ResNet or MobileNet V3 of the zoo as
their backbone. A family's file is imported when one of its names is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_zoo.models.registry import registry

if TYPE_CHECKING:
    from lightning_zoo.models.segmentation.deeplabv3 import (
        DeepLabV3,
        deeplabv3,
        deeplabv3_mobilenet_v3_large,
        deeplabv3_resnet50,
        deeplabv3_resnet101,
    )
    from lightning_zoo.models.segmentation.fcn import FCN, fcn, fcn_resnet50, fcn_resnet101
    from lightning_zoo.models.segmentation.lraspp import LRASPP, lraspp, lraspp_mobilenet_v3_large

__all__ = [
    "FCN",
    "LRASPP",
    "DeepLabV3",
    "deeplabv3",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp",
    "lraspp_mobilenet_v3_large",
]

NETWORKS = {"DeepLabV3": "deeplabv3", "FCN": "fcn", "LRASPP": "lraspp"}
"""Files of the networks."""


class _Package(ModuleType):
    """Keeps an import of ``fcn.py`` from putting the file in the place of the constructor."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if ("segmentation", name) in registry():
        return registry()["segmentation", name].load_builder()
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
