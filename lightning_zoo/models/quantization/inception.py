"""Inception v3 of 8-bit integers; the network is that of the classifier.

The published file has no auxiliary head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_zoo.models.classification.inception import (
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)
from lightning_zoo.models.quantization.constructor import register_quantizable
from lightning_zoo.models.quantization.eager import FloatFunctional, Quantizable
from lightning_zoo.models.quantization.googlenet import QuantizableBasicConv2d


class _Joined(nn.Module):
    """Branches of a block; joined they have one range."""

    branches: Callable[[Tensor], list[Tensor]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.myop = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side, see the float block."""
        return self.myop.cat(self.branches(x), 1)


class QuantizableInceptionA(_Joined, InceptionA):
    """Branches 1x1, 5x5, double 3x3 and pooling."""


class QuantizableInceptionB(_Joined, InceptionB):
    """Halve 35x35 pixels to 17x17."""


class QuantizableInceptionC(_Joined, InceptionC):
    """7x7 convolutions, factorised."""


class QuantizableInceptionD(_Joined, InceptionD):
    """Halve 17x17 pixels to 8x8."""


class QuantizableInceptionE(InceptionE):
    """Branches that fork; each pair that is joined has a range of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.myop1 = FloatFunctional()
        self.myop2 = FloatFunctional()
        self.myop3 = FloatFunctional()

    def join(self, i: int, tensors: list[Tensor]) -> Tensor:
        """Concatenate the channels of two forks (1 and 2) or of all branches (3)."""
        return getattr(self, f"myop{i}").cat(tensors, 1)


BLOCKS = (
    QuantizableBasicConv2d,
    *(
        partial(block, conv_block=QuantizableBasicConv2d)
        for block in (
            QuantizableInceptionA,
            QuantizableInceptionB,
            QuantizableInceptionC,
            QuantizableInceptionD,
            QuantizableInceptionE,
            InceptionAux,
        )
    ),
)


class QuantizableInception3(Quantizable, Inception3):
    """Image classifier, in float or in integers."""

    heads = ("AuxLogits",)

    def forward(self, images: Tensor) -> Any:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        return self.quantized(self.of_input, self.to_input(images))


@register_quantizable(pretrained_args={"aux_logits": False})
def inception_v3(**kwargs: Any) -> QuantizableInception3:
    """Inception v3, float or INT8; with weights it has no auxiliary head by default."""
    return QuantizableInception3(**{"inception_blocks": BLOCKS, **kwargs})
