"""MobileNet V3 of 8-bit integers; the network is that of the classifier.

The published file is that of the fine-tuned network before its conversion, with the ranges of all
activations and no integers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_zoo.layers import SqueezeExcitation
from lightning_zoo.models.classification.mobilenetv3 import (
    LARGE,
    InvertedResidual,
    MobileNetV3,
    configure,
)
from lightning_zoo.models.quantization.constructor import register_quantizable
from lightning_zoo.models.quantization.eager import FloatFunctional, Quantizable


class QuantizableSqueezeExcitation(SqueezeExcitation):
    """Weight each channel by a gate; the product has a range of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_mul = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with its channels scaled."""
        return self.skip_mul.mul(self.scale(x), x)

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        return [["fc1", "activation"]]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The published file is older than the observers of the gates, whose range is fixed.
        gate = self.scale_activation.state_dict(prefix=f"{prefix}scale_activation.")
        if not gate.keys() & state_dict.keys():
            state_dict.update(gate)
        super()._load_from_state_dict(state_dict, prefix, *args)


class QuantizableInvertedResidual(InvertedResidual):
    """Widen, filter, gate, narrow; the sum with the input has a range of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_add = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H', W')``."""
        return self.skip_add.add(x, self.block(x)) if self.use_res_connect else self.block(x)


BLOCK = partial(
    QuantizableInvertedResidual,
    se_layer=partial(QuantizableSqueezeExcitation, scale_activation=nn.Hardsigmoid),
)


class QuantizableMobileNetV3(Quantizable, MobileNetV3):
    """Image classifier, in float or in integers."""


@register_quantizable
def mobilenet_v3_large(
    *, width_mult: float = 1.0, reduced_tail: bool = False, dilated: bool = False, **kwargs: Any
) -> QuantizableMobileNetV3:
    """MobileNet V3 large, float or INT8."""
    rows, last_channel = configure(LARGE, 1280, width_mult, reduced_tail, dilated)
    return QuantizableMobileNetV3(rows, last_channel, **{"block": BLOCK, **kwargs})
