from __future__ import annotations

from torch import Tensor, nn

from lightning_zoo.layers.convolution import conv2d
from lightning_zoo.layers.frozen_batch_norm import FrozenBatchNorm2d


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Return ``norm(conv(x))``, with a frozen norm folded into the convolution's weight and bias.

    The folding saves a pass over the output and its memory, and gradients reach the convolution's
    own parameters through it. It stands aside where a hook on either module would be missed.
    """
    if (
        type(norm) is not FrozenBatchNorm2d
        or type(conv) is not nn.Conv2d
        or conv.padding_mode != "zeros"
        or has_hooks(conv, norm)
    ):
        return norm(conv(x))
    scale, shift = norm.scale_and_shift()
    bias = shift if conv.bias is None else shift + conv.bias * scale
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    return conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def has_hooks(*modules: nn.Module) -> bool:
    """Whether somebody listens to one of the modules, who would miss a call that goes round it."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )
