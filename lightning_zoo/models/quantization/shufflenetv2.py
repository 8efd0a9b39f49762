"""ShuffleNet V2 of 8-bit integers; the network is that of the classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_zoo.models.classification.shufflenetv2 import (
    InvertedResidual,
    ShuffleNetV2,
    channel_shuffle,
)
from lightning_zoo.models.quantization.constructor import register_quantizable
from lightning_zoo.models.quantization.eager import FloatFunctional, Quantizable


class QuantizableInvertedResidual(InvertedResidual):
    """Unit of two branches; joined they have one range."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cat = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, oup, H', W')``."""
        return channel_shuffle(self.cat.cat(self.branches(x), dim=1), 2)

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        second = [["branch2.0", "branch2.1", "branch2.2"], ["branch2.3", "branch2.4"],
                  ["branch2.5", "branch2.6", "branch2.7"]]  # fmt: skip
        first = [["branch1.0", "branch1.1"], ["branch1.2", "branch1.3", "branch1.4"]]
        return first + second if len(self.branch1) else second


class QuantizableShuffleNetV2(Quantizable, ShuffleNetV2):
    """Image classifier, in float or in integers."""


def _build(widths: list[int], **kwargs: Any) -> QuantizableShuffleNetV2:
    unit = {"inverted_residual": QuantizableInvertedResidual}
    return QuantizableShuffleNetV2([4, 8, 4], widths, **{**unit, **kwargs})


@register_quantizable
def shufflenet_v2_x0_5(**kwargs: Any) -> QuantizableShuffleNetV2:
    """ShuffleNet V2 of half the width, float or INT8."""
    return _build([24, 48, 96, 192, 1024], **kwargs)


@register_quantizable
def shufflenet_v2_x1_0(**kwargs: Any) -> QuantizableShuffleNetV2:
    """ShuffleNet V2, float or INT8."""
    return _build([24, 116, 232, 464, 1024], **kwargs)


@register_quantizable
def shufflenet_v2_x1_5(**kwargs: Any) -> QuantizableShuffleNetV2:
    """ShuffleNet V2 of 1.5 times the width, float or INT8."""
    return _build([24, 176, 352, 704, 1024], **kwargs)


@register_quantizable
def shufflenet_v2_x2_0(**kwargs: Any) -> QuantizableShuffleNetV2:
    """ShuffleNet V2 of twice the width, float or INT8."""
    return _build([24, 244, 488, 976, 2048], **kwargs)
