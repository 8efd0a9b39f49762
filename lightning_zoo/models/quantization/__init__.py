"""INT8 classifiers, by the names of the classic torchvision zoo: ``quantization.resnet50()``.

They take ``quantize=True`` for a network of 8-bit integers, which runs on a CPU, and
``backend="fbgemm"`` (or x86, onednn, qnnpack) for the engine that runs it. Without ``quantize`` a
network is the float one that fits the same files. A family's file is imported when one of its names
is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_zoo.models.registry import registry

if TYPE_CHECKING:
    from lightning_zoo.models.quantization.googlenet import googlenet
    from lightning_zoo.models.quantization.inception import inception_v3
    from lightning_zoo.models.quantization.mobilenetv2 import mobilenet_v2
    from lightning_zoo.models.quantization.mobilenetv3 import mobilenet_v3_large
    from lightning_zoo.models.quantization.resnet import resnet18, resnet50, resnext101_32x8d
    from lightning_zoo.models.quantization.shufflenetv2 import (
        shufflenet_v2_x0_5,
        shufflenet_v2_x1_0,
        shufflenet_v2_x1_5,
        shufflenet_v2_x2_0,
    )

__all__ = [
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "resnext101_32x8d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
]


class _Package(ModuleType):
    """Keeps an import of ``googlenet.py`` from putting the file in the constructor's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if ("quantization", name) in registry():
        return registry()["quantization", name].load_builder()
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
