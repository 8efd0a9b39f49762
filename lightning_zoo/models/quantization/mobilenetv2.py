"""MobileNet V2 of 8-bit integers; the network is that of the classifier, with ReLU for ReLU6."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_zoo.models.classification.mobilenetv2 import InvertedResidual, MobileNetV2
from lightning_zoo.models.quantization.constructor import register_quantizable
from lightning_zoo.models.quantization.eager import FloatFunctional, Quantizable


class QuantizableInvertedResidual(InvertedResidual):
    """Widen, filter each channel, narrow; the sum with the input has a range of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_add = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, oup, H', W')``."""
        return self.skip_add.add(x, self.conv(x)) if self.use_res_connect else self.conv(x)

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        last = len(self.conv) - 1
        return [[f"conv.{last - 1}", f"conv.{last}"]]


class QuantizableMobileNetV2(Quantizable, MobileNetV2):
    """Image classifier, in float or in integers."""


@register_quantizable
def mobilenet_v2(**kwargs: Any) -> QuantizableMobileNetV2:
    """MobileNet V2, float or INT8."""
    return QuantizableMobileNetV2(**{"block": QuantizableInvertedResidual, **kwargs})
