"""GoogLeNet of 8-bit integers; the network is that of the classifier.

The published file has auxiliary heads, which were never trained: they are dropped.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_zoo.layers import BasicConv2d
from lightning_zoo.models.classification.googlenet import GoogLeNet, Inception, InceptionAux
from lightning_zoo.models.quantization.constructor import register_quantizable
from lightning_zoo.models.quantization.eager import FloatFunctional, Quantizable


class QuantizableBasicConv2d(BasicConv2d):
    """Convolution, norm and ReLU, which become one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_channels, H', W')``."""
        return self.relu(self.bn(self.conv(x)))

    def fusions(self) -> list[list[str]]:
        """Return the names of the children that become one."""
        return [["conv", "bn", "relu"]]


class QuantizableInception(Inception):
    """Four branches; joined they have one range."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cat = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, ch1x1 + ch3x3 + ch5x5 + pool_proj, H, W)``."""
        return self.cat.cat(self.branches(x), 1)


BLOCKS = (
    QuantizableBasicConv2d,
    partial(QuantizableInception, conv_block=QuantizableBasicConv2d),
    partial(InceptionAux, conv_block=QuantizableBasicConv2d),
)


class QuantizableGoogLeNet(Quantizable, GoogLeNet):
    """Image classifier, in float or in integers."""

    heads = ("aux1", "aux2")

    def forward(self, images: Tensor) -> Any:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        return self.quantized(self.of_input, self.to_input(images))


@register_quantizable(pretrained_args={"aux_logits": False})  # the file's heads were never trained
def googlenet(**kwargs: Any) -> QuantizableGoogLeNet:
    """GoogLeNet, float or INT8; with weights it has no auxiliary heads by default."""
    return QuantizableGoogLeNet(**{"blocks": BLOCKS, **kwargs})
