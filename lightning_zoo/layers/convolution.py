from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, ...] | str
# Positions of a map from which on the product pays; below, both take the same time.
LARGE = 4096


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = (1, 1),
    padding: Size = (0, 0),
    dilation: Size = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Return the convolution of ``(N, C, H, W)``, on a CPU the 1x1 ones as a matrix product.

    There torch sends 1x1 convolutions of few large images to a path that needs up to twice the
    time of the product, forward and backward.
    """
    n, channels, height, width = x.shape
    if (
        torch.compiler.is_compiling()  # a graph is for any size, and others run it
        or x.device.type != "cpu"
        or weight.shape[2:] != (1, 1)
        or height * width < LARGE
        or groups != 1
        or tuple(stride) != (1, 1)
        or tuple(padding) != (0, 0)
        or not x.is_contiguous()
    ):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    rows = weight.view(1, weight.shape[0], channels).expand(n, -1, -1)
    columns = x.view(n, channels, height * width)
    if bias is None:
        product = torch.bmm(rows, columns)
    else:
        product = torch.baddbmm(bias.view(1, -1, 1), rows, columns)
    return product.view(n, weight.shape[0], height, width)
