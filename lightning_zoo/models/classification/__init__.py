"""Image classifiers, by the names of the classic torchvision zoo: ``classification.resnet50()``.

A family's file is imported when one of its names is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_zoo.models.registry import registry

if TYPE_CHECKING:
    from lightning_zoo.models.classification.alexnet import alexnet
    from lightning_zoo.models.classification.densenet import (
        densenet121,
        densenet161,
        densenet169,
        densenet201,
    )
    from lightning_zoo.models.classification.googlenet import googlenet
    from lightning_zoo.models.classification.inception import inception_v3
    from lightning_zoo.models.classification.mnasnet import (
        mnasnet0_5,
        mnasnet0_75,
        mnasnet1_0,
        mnasnet1_3,
    )
    from lightning_zoo.models.classification.mobilenetv2 import mobilenet_v2
    from lightning_zoo.models.classification.mobilenetv3 import (
        mobilenet_v3_large,
        mobilenet_v3_small,
    )
    from lightning_zoo.models.classification.resnet import (
        resnet18,
        resnet34,
        resnet50,
        resnet101,
        resnet152,
        resnext50_32x4d,
        resnext101_32x8d,
        wide_resnet50_2,
        wide_resnet101_2,
    )
    from lightning_zoo.models.classification.shufflenetv2 import (
        shufflenet_v2_x0_5,
        shufflenet_v2_x1_0,
        shufflenet_v2_x1_5,
        shufflenet_v2_x2_0,
    )
    from lightning_zoo.models.classification.squeezenet import squeezenet1_0, squeezenet1_1
    from lightning_zoo.models.classification.vgg import (
        vgg11,
        vgg11_bn,
        vgg13,
        vgg13_bn,
        vgg16,
        vgg16_bn,
        vgg19,
        vgg19_bn,
    )

__all__ = [
    "alexnet",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mnasnet0_75",
    "mnasnet1_0",
    "mnasnet1_3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
    "wide_resnet101_2",
]


class _Package(ModuleType):
    """Keeps an import of ``alexnet.py`` from putting the file in the place of the constructor."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if ("classification", name) in registry():
        return registry()["classification", name].load_builder()
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
