"""Frozen norms, their folding into convolutions, and the feature pyramid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_zoo.layers import (
    ConvNormAct,
    FeaturePyramidNetwork,
    FrozenBatchNorm2d,
    LastLevelMaxPool,
    LastLevelP6P7,
    MultiScaleRoIAlign,
    conv_norm,
)


def random_norm(channels: int, **kwargs: float) -> FrozenBatchNorm2d:
    norm = FrozenBatchNorm2d(channels, **kwargs)
    torch.manual_seed(0)
    for value in norm.buffers():
        value.copy_(torch.rand(channels) + 0.5)
    return norm


def test_frozen_norm_is_batch_norm_in_evaluation() -> None:
    norm, usual = random_norm(5), nn.BatchNorm2d(5).eval()
    usual.load_state_dict(norm.state_dict(), strict=False)
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(norm(x), usual(x))
    assert [*norm.state_dict()] == ["weight", "bias", "running_mean", "running_var"]
    assert not list(norm.parameters())
    assert repr(norm) == "FrozenBatchNorm2d(5, eps=1e-05)"
    again = FrozenBatchNorm2d(5)
    again.load_state_dict(usual.state_dict())  # with its counter of batches
    assert torch.equal(again(x), norm(x))


def test_eps_goes_with_the_state_dict() -> None:
    holder = nn.Sequential(FrozenBatchNorm2d(3, eps=0.0))
    other = nn.Sequential(FrozenBatchNorm2d(3))
    other.load_state_dict(holder.state_dict())
    assert other[0].eps == 0.0
    other.load_state_dict(dict(nn.Sequential(nn.BatchNorm2d(3)).state_dict()))
    assert other[0].eps == 0.0


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_folding(bias: bool, groups: int) -> None:
    conv, norm = nn.Conv2d(4, 6, 3, 2, 1, groups=groups, bias=bias), random_norm(6)
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    plain, folded = norm(conv(x)), conv_norm(conv, norm, x)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-5)
    want = torch.autograd.grad(plain.square().sum(), [x, *conv.parameters()])
    got = torch.autograd.grad(folded.square().sum(), [x, *conv.parameters()])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_folding_stands_aside() -> None:
    """Hooks see their modules run, and modules of other kinds are called as they are."""
    conv, norm = nn.Conv2d(3, 4, 1), random_norm(4)
    seen = []
    handle = norm.register_forward_hook(lambda *args: seen.append(args))
    conv_norm(conv, norm, torch.zeros(1, 3, 2, 2))
    assert len(seen) == 1
    handle.remove()
    usual = nn.BatchNorm2d(4)
    conv_norm(conv, usual, torch.randn(2, 3, 2, 2))
    assert int(usual.num_batches_tracked) == 1
    assert torch.equal(conv_norm(nn.Identity(), nn.Identity(), torch.ones(1)), torch.ones(1))
    block = ConvNormAct(3, 4, norm_layer=FrozenBatchNorm2d)
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(block(x), block[2](block[1](block[0](x))))


def test_pyramid_by_hand() -> None:
    pyramid = FeaturePyramidNetwork([1, 1], 1, LastLevelMaxPool())
    assert sorted(pyramid.state_dict())[:2] == ["inner_blocks.0.0.bias", "inner_blocks.0.0.weight"]
    with torch.no_grad():
        for block in pyramid.inner_blocks:
            block[0].weight.fill_(2.0)
        for block in pyramid.layer_blocks:
            block[0].weight.zero_()
            block[0].weight[0, 0, 1, 1] = 1.0
        fine, coarse = torch.rand(1, 1, 5, 4), torch.rand(1, 1, 3, 2)
        out = pyramid({"a": fine, "b": coarse})
    up = nn.functional.interpolate(2 * coarse, size=(5, 4), mode="nearest")
    torch.testing.assert_close(out["a"], 2 * fine + up)
    torch.testing.assert_close(out["b"], 2 * coarse)
    assert torch.equal(out["pool"], nn.functional.max_pool2d(out["b"], 1, 2))
    assert list(out) == ["a", "b", "pool"]


@pytest.mark.parametrize("channels", [8, 3])
def test_further_levels(channels: int) -> None:
    pyramid = FeaturePyramidNetwork([3, 3], 8, LastLevelP6P7(channels, 8))
    out = pyramid({"0": torch.rand(1, 3, 16, 12), "1": torch.rand(1, 3, 8, 6)})
    assert {k: tuple(v.shape[1:]) for k, v in out.items()} == {
        "0": (8, 16, 12), "1": (8, 8, 6), "p6": (8, 4, 3), "p7": (8, 2, 2)}  # fmt: skip


def test_cuts_of_a_pyramid() -> None:
    pool = MultiScaleRoIAlign(["0", "1"], 2, sampling_ratio=2)
    maps = {"0": torch.full((1, 1, 64, 64), 1.0), "1": torch.full((1, 1, 32, 32), 2.0),
            "pool": torch.zeros(1, 1, 16, 16)}  # fmt: skip
    boxes = [torch.tensor([[10.0, 10, 40, 40], [0, 0, 250, 250]])]
    out = pool(maps, boxes, [(250, 256)])
    assert out.shape == (2, 1, 2, 2)
    assert out[:, 0, 0, 0].tolist() == [1.0, 2.0]
