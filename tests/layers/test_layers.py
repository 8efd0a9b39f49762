import pytest
import torch
from torch import nn

from lightning_zoo.layers import (
    BasicConv2d,
    ConvNormAct,
    SqueezeExcitation,
    imagenet_to_half_range,
    init_mobile_,
    make_divisible,
    truncated_normal_,
)


def test_conv_norm_act_counts_its_children_as_the_published_files_do():
    block = ConvNormAct(3, 8, 3, 2)
    assert [type(child) for child in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert [*block.state_dict()][:2] == ["0.weight", "1.weight"]  # no bias before a norm
    assert block.out_channels == 8
    assert block(torch.zeros(2, 3, 9, 8)).shape == (2, 8, 5, 4)


def test_conv_norm_act_leaves_steps_out():
    bare = ConvNormAct(3, 8, 1, norm_layer=None, activation_layer=None)
    assert list(bare.state_dict()) == ["0.weight", "0.bias"]
    no_norm = ConvNormAct(3, 8, norm_layer=None)
    assert [type(child) for child in no_norm] == [nn.Conv2d, nn.ReLU]
    projection = ConvNormAct(3, 8, 1, activation_layer=None, bias=True)
    assert list(projection.state_dict())[:3] == ["0.weight", "0.bias", "1.weight"]
    assert isinstance(ConvNormAct(3, 8, activation_layer=nn.Sigmoid, inplace=None)[2], nn.Sigmoid)
    assert ConvNormAct(3, 8)[2].inplace
    assert not ConvNormAct(3, 8, inplace=False)[2].inplace


@pytest.mark.parametrize(
    ("kernel", "dilation", "padding"),
    [(1, 1, (0, 0)), (3, 1, (1, 1)), (5, 2, (4, 4)), ((1, 7), 1, (0, 3)), (3, (2, 12), (2, 12))],
)
def test_conv_norm_act_keeps_the_size_by_default(kernel, dilation, padding):
    block = ConvNormAct(4, 4, kernel, dilation=dilation, groups=4)
    assert block[0].padding == padding
    assert block(torch.zeros(2, 4, 11, 13)).shape == (2, 4, 11, 13)


def test_squeeze_excitation_by_hand():
    block = SqueezeExcitation(2, 1, scale_activation=nn.Hardsigmoid)
    assert sorted(block.state_dict()) == ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]
    with torch.no_grad():
        block.fc1.weight[:] = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
        block.fc1.bias[:] = -1.0
        block.fc2.weight[:] = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        block.fc2.bias[:] = 0.0
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 1.0]]]])  # means 2 and 0.5: 2 + 2 * 0.5 - 1 = 2
    gates = torch.tensor([(2 + 3) / 6, (-2 + 3) / 6]).view(1, 2, 1, 1)
    torch.testing.assert_close(block(x), x * gates)
    assert isinstance(SqueezeExcitation(8, 8).scale_activation, nn.Sigmoid)


def test_basic_conv_has_eps_of_a_thousandth():
    block = BasicConv2d(3, 4, kernel_size=3)
    assert sorted(block.state_dict())[:3] == [
        "bn.bias",
        "bn.num_batches_tracked",
        "bn.running_mean",
    ]
    assert (block.bn.eps, block.bn.momentum, block.conv.bias) == (0.001, 0.1, None)
    assert block(torch.randn(2, 3, 5, 5)).min() == 0


def test_make_divisible():
    assert [make_divisible(w) for w in (1, 8, 11.9, 12, 18, 32, 41.6)] == [8, 8, 16, 16, 24, 32, 40]
    assert make_divisible(10, 4) == 12  # halves go up
    assert make_divisible(3, 8, 16) == 16
    for tenth in range(1, 4000):
        width = make_divisible(tenth / 10)
        assert width % 8 == 0
        assert width >= 0.9 * tenth / 10


def test_imagenet_to_half_range_by_hand():
    pixels = torch.rand(2, 3, 4, 5)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    images = (pixels - mean) / std
    before = images.clone()
    torch.testing.assert_close(imagenet_to_half_range(images), pixels * 2 - 1)
    torch.testing.assert_close(images, before, rtol=0, atol=0)


def test_truncated_normal():
    torch.manual_seed(0)
    values = truncated_normal_(torch.empty(400_000), 0.1)
    assert values.abs().max() <= 0.2
    # deviation of a standard normal that is cut at 2: sqrt(1 - 2 * 2 * pdf(2) / (2 * cdf(2) - 1))
    torch.testing.assert_close(values.std(), torch.tensor(0.08796), rtol=0, atol=3e-4)
    torch.testing.assert_close(values.mean(), torch.tensor(0.0), rtol=0, atol=5e-4)
    reference = nn.init.trunc_normal_(torch.empty(400_000), std=0.1, a=-0.2, b=0.2)
    quantiles = torch.linspace(0.01, 0.99, 25)
    torch.testing.assert_close(
        values.quantile(quantiles), reference.quantile(quantiles), rtol=0, atol=2e-3
    )
    weight = nn.Parameter(torch.empty(3, 3))
    assert truncated_normal_(weight, 0.1) is weight


def test_init_mobile():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(64, 128, 3, groups=2), nn.BatchNorm2d(128, affine=False), nn.Linear(256, 256)
    )
    init_mobile_(model)
    assert model[0].weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert model[2].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not model[0].bias.any()
    assert not model[2].bias.any()
