"""The steps of a lowered program, on uint8 activations in channels-last order.

A value is ``(u8 - zero_point) * scale`` of a :class:`Scale`. The oneDNN calls are the ones that
inductor makes; they take plain uint8 and int8 tensors, and are in every CPU build of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last


@dataclass(frozen=True)
class Scale:
    """What a uint8 stands for.

    Attributes:
        scale: Value of one step.
        zero: The uint8 that stands for zero.
        low: Least uint8.
        high: Greatest uint8; 127 keeps sums of two products within 16 bits.
    """

    scale: float
    zero: int
    low: int
    high: int

    def limits(self) -> tuple[float, float]:
        """Return the least and greatest value."""
        return (self.low - self.zero) * self.scale, (self.high - self.zero) * self.scale


@dataclass(frozen=True)
class Activation:
    """What follows a convolution, as oneDNN calls it: ``none``, ``hardtanh`` or ``hardswish``.

    Attributes:
        kind: Its name.
        low: Least value that ``hardtanh`` lets through.
        high: Greatest value that it lets through.
    """

    kind: str = "none"
    low: float = -float("inf")
    high: float = float("inf")

    def within(self, to: Scale) -> tuple[str, list[float]]:
        """Return its name and arguments such that results keep to the range of ``to``."""
        if self.kind == "hardswish":
            return "hardswish", []
        low, high = to.limits()
        return "hardtanh", [max(self.low, low), min(self.high, high)]


class Convolution(nn.Module):
    """A convolution of uint8 with int8 weights, its activation, and a sum before that.

    Args:
        weight: int8 ``(C_out, C_in / groups, kH, kW)``.
        weight_scale: float32 ``(C_out)``.
        bias: float32 ``(C_out)`` or None.
        geometry: Stride, padding, dilation and groups.
        source: Scale of what is convolved.
        to: Scale of the result; None returns float32.
        activation: What follows.
        added: Scale of what is added to the result, None where nothing is.
    """

    def __init__(
        self,
        weight: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None,
        geometry: tuple[list[int], list[int], list[int], int],
        *,
        source: Scale,
        to: Scale | None = None,
        activation: Activation = Activation(),
        added: Scale | None = None,
    ) -> None:
        super().__init__()
        self.in_place = False
        packed = torch.ops.onednn.qconv_prepack(
            weight.contiguous(), weight_scale, source.scale, source.zero, *geometry
        )
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        scale, zero = (1.0, 0) if to is None else (to.scale, to.zero)
        self.before = (source.scale, source.zero, packed, weight_scale, zeros)
        self.after = (*geometry, scale, zero, torch.float32 if to is None else torch.uint8)
        self.bias = bias
        self.high: int | None = None
        if to is None:
            self.unary: tuple[Any, ...] = ("none", [], "")
        elif added is None:
            kind, limits = activation.within(to)
            self.unary = (kind, limits, "")
            self.high = to.high if kind == "hardswish" else None
        else:
            relu = activation.kind == "hardtanh"
            self.unary = (added.scale, added.zero, "sum", 1.0, "relu" if relu else "none", [], "")
            self.high = to.high
        self.run = (
            torch.ops.onednn.qconv2d_pointwise.default
            if added is None
            else torch.ops.onednn.qconv2d_pointwise.binary
        )

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return the convolution of ``x``; ``in_place`` writes it over ``added``."""
        if added is None:
            y = self.run(x, *self.before, self.bias, *self.after, *self.unary)
        else:
            if not self.in_place:
                added = added.clone(memory_format=CHANNELS_LAST)
            y = self.run(x, *self.before, added, self.bias, *self.after, *self.unary)
        return y if self.high is None else y.clamp_(max=self.high)


class Linear(nn.Module):
    """A linear layer of uint8 with int8 weights; arguments as of :class:`Convolution`."""

    def __init__(
        self,
        weight: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None,
        *,
        source: Scale,
        to: Scale | None = None,
        activation: Activation = Activation(),
    ) -> None:
        super().__init__()
        packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        scale, zero, kind, limits = 1.0, 0, "none", list[float]()
        self.high: int | None = None
        if to is not None:
            scale, zero = to.scale, to.zero
            kind, limits = activation.within(to)
            self.high = to.high if kind == "hardswish" else None
        kind_of = torch.float32 if to is None else torch.uint8
        self.args = (source.scale, source.zero, packed, weight_scale, zeros, bias, scale, zero)
        self.unary = (kind_of, kind, limits, "")

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times the weights, plus the bias, through the activation."""
        y = torch.ops.onednn.qlinear_pointwise.default(x, *self.args, *self.unary)
        return y if self.high is None else y.clamp_(max=self.high)


class Gate(nn.Module):
    """uint8 images times one float for each image and channel: squeeze-and-excitation.

    Every image is convolved with the identity, of which the gate is the scale of the weights.

    Args:
        channels: Number of channels.
        source: Scale of the images.
        to: Scale of the result.
    """

    def __init__(self, channels: int, *, source: Scale, to: Scale) -> None:
        super().__init__()
        one = torch.ones(channels, 1, 1, 1, dtype=torch.int8)
        self.identity = Convolution(
            one,
            torch.ones(channels),
            None,
            ([1, 1], [0, 0], [1, 1], channels),
            source=source,
            to=to,
        )

    def forward(self, gate: Tensor, x: Tensor) -> Tensor:
        """Return ``x (N, C, H, W)`` times ``gate (N, C, 1, 1)``."""
        same = self.identity
        scale, zero, packed, _, zeros = same.before
        images = [
            same.run(x[n : n + 1], scale, zero, packed, g, zeros, None, *same.after, *same.unary)
            for n, g in enumerate(gate.flatten(1).unbind())
        ]
        return images[0] if len(images) == 1 else torch.cat(images)


def quantize(x: Tensor, inverse: float, zero: int, low: int, high: int) -> Tensor:
    """Return float32 as uint8, rounded half to even, in channels-last order."""
    y = x.mul(inverse).round_().add_(zero).clamp_(low, high)
    y = y.to(torch.int16).to(torch.uint8)  # straight to uint8 takes longer
    return y.contiguous(memory_format=CHANNELS_LAST) if y.ndim == 4 else y


def dequantize(x: Tensor, scale: float, zero: int) -> Tensor:
    """Return uint8 as float32."""
    return x.to(torch.float32).sub_(zero).mul_(scale)


def mean(x: Tensor, scale: float, zero: int, keepdim: bool) -> Tensor:
    """Return the mean over height and width, float32."""
    return x.mean((2, 3), keepdim=keepdim, dtype=torch.float32).sub_(zero).mul_(scale)


def max_pool(
    x: Tensor, size: list[int], stride: list[int], padding: list[int], ceil_mode: bool
) -> Tensor:
    """Return the greatest uint8 of each window; the kernel of aten takes small images only."""
    return torch.ops.quantized.max_pool2d(x, size, stride, padding, [1, 1], ceil_mode)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Return channels ``(groups, C / groups)`` in the order ``(C / groups, groups)``."""
    rows = x.permute(0, 2, 3, 1)  # (N, H, W, C), contiguous
    if groups == 2:  # a pair of bytes is a number of 16 bits
        first, second = rows.to(torch.int16).chunk(2, dim=3)
        pairs = torch.add(first, second, alpha=256).view(torch.uint8)
    else:
        pairs = rows.reshape(*rows.shape[:3], groups, -1).transpose(3, 4).flatten(3)
    return pairs.permute(0, 3, 1, 2)
