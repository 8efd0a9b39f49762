"""Convolutions as matrix products: torch's results, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_zoo.layers.convolution import LARGE, conv2d

CASES = {  # channels in and out, kernel, height, width, further arguments
    "a product": (3, 5, 1, 64, 64, {}),
    "too small for it": (3, 5, 1, 8, 9, {}),
    "stride": (3, 5, 1, 64, 64, {"stride": (2, 2)}),
    "padding": (3, 5, 1, 64, 64, {"padding": (1, 1)}),
    "padding by name": (3, 5, 1, 64, 64, {"padding": "same"}),
    "groups": (4, 8, 1, 64, 64, {"groups": 2}),
    "3x3": (3, 5, 3, 64, 65, {"padding": (1, 1)}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_convolution(case: str, layout: torch.memory_format, bias: bool) -> None:
    channels, out, kernel, height, width, more = CASES[case]
    assert (height * width >= LARGE) == (case != "too small for it")
    torch.manual_seed(0)
    x = torch.randn(2, channels, height, width, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(
        out, channels // more.get("groups", 1), kernel, kernel, dtype=torch.float64
    )
    given = [x, weight, torch.randn(out, dtype=torch.float64) if bias else None]
    results = []
    for function in (conv2d, F.conv2d):
        leaves = [None if t is None else t.clone().requires_grad_() for t in given]
        y = function(*leaves, **more)
        y.sin().sum().backward()
        results.append([y, *(t.grad for t in leaves if t is not None)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_of_no_image() -> None:
    assert conv2d(torch.zeros(0, 3, 64, 64), torch.zeros(5, 3, 1, 1)).shape == (0, 5, 64, 64)
