import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.layers import SqueezeExcitation
from lightning_zoo.models.classification.mobilenetv3 import (
    InvertedResidual,
    InvertedResidualConfig,
    MobileNetV3,
)


def build(name="mobilenet_v3_large", **kwargs):
    with torch.device("meta"):
        return getattr(models, name)(**kwargs)


def num_params(model):
    return sum(p.numel() for p in model.parameters())


def depthwise(block):
    return next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)


def strided(model):
    return [i for i, block in enumerate(model.features) if getattr(block, "is_strided", False)]


def test_squeeze_widths():
    squeezes = [m for m in build().modules() if isinstance(m, SqueezeExcitation)]
    assert {(m.fc1.in_channels, m.fc1.out_channels) for m in squeezes} == {
        (72, 24), (120, 32), (480, 120), (672, 168), (960, 240)
    }  # fmt: skip
    assert len(squeezes) == 8
    assert isinstance(squeezes[0].activation, nn.ReLU)
    assert isinstance(squeezes[0].scale_activation, nn.Hardsigmoid)
    block = build().features[4].block
    assert [type(m).__name__ for m in block] == [
        "ConvNormAct", "ConvNormAct", "SqueezeExcitation", "ConvNormAct"
    ]  # fmt: skip


def test_large():
    model = build()
    assert len(model.features) == 17
    assert [model.features[i].out_channels for i in (4, 13, 15, 16)] == [40, 160, 160, 960]
    for i, block in enumerate(model.features[1:16], 1):
        assert isinstance(block.block[0][2], nn.ReLU if i <= 6 else nn.Hardswish)
        assert len(block.block[-1]) == 2  # the projection is linear
    linear = [m for m in model.classifier if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [1280, 1000]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(0.001, 0.01)}
    assert strided(model) == [2, 4, 7, 13]


def test_small():
    model = build("mobilenet_v3_small")
    assert len(model.features) == 13
    assert model.features[-1].out_channels == 576
    assert model.classifier[0].out_features == 1024
    assert strided(model) == [1, 2, 4, 9]


@pytest.mark.parametrize(
    ("name", "option", "want"),
    [
        ("mobilenet_v3_large", "reduced_tail", 2_569_352),
        ("mobilenet_v3_small", "reduced_tail", 1_099_672),
        ("mobilenet_v3_large", "dilated", 5_483_032),
        ("mobilenet_v3_small", "dilated", 2_542_856),
    ],
)
def test_parameters_of_backbones(name, option, want):
    """Torchvision's counts."""
    assert num_params(build(name, **{option: True})) == want


def test_reduced_tail():
    model = build(reduced_tail=True)
    assert [model.features[i].out_channels for i in (12, 13, 14, 15, 16)] == [112, 80, 80, 80, 480]
    assert [depthwise(model.features[i]).groups for i in (13, 14, 15)] == [672, 480, 480]
    assert model.classifier[0].out_features == 640


def test_dilated_keeps_the_resolution_of_the_last_stage():
    model = models.mobilenet_v3_large(dilated=True).eval()
    for i in (13, 14, 15):
        conv = depthwise(model.features[i])
        assert (conv.stride, conv.dilation, conv.padding) == ((1, 1), (2, 2), (4, 4))
    assert not model.features[13].use_res_connect  # by its configured stride, as before
    assert strided(model) == [2, 4, 7, 13]  # the marks stay, so that backbones find their maps
    x, shapes = torch.zeros(1, 3, 64, 96), {}
    with torch.no_grad():
        for i, layer in enumerate(model.features):
            x = layer(x)
            shapes[i] = tuple(x.shape[1:])
    assert shapes[4] == (40, 8, 12)
    assert shapes[16] == (960, 4, 6)


def test_detection_takes_the_expansion_of_block_13():
    model = build(reduced_tail=True)
    assert model.features[13].block[0].out_channels == 672


def test_width_mult():
    assert num_params(build(width_mult=0.75)) == 3_377_576
    assert num_params(build(width_mult=0.35)) == 997_064


def test_options_and_errors():
    class Marked(InvertedResidual):
        pass

    rows = [InvertedResidualConfig(16, 3, 16, 16, True, "RE", 1)]
    model = MobileNetV3(rows, 32, num_classes=3, block=Marked, norm_layer=nn.BatchNorm2d, dropout=0)
    assert type(model.features[1]) is Marked
    assert model.features[1].block[0][1].eps == 1e-5
    assert model.eval()(torch.randn(1, 3, 9, 8)).shape == (1, 3)
    with pytest.raises(ZooError, match="inverted_residual_setting is empty"):
        MobileNetV3([], 32)
    with pytest.raises(ZooError, match="activation is 'GELU'; expected 'RE' or 'HS'"):
        InvertedResidualConfig(16, 3, 16, 16, True, "GELU", 1)
    with pytest.raises(ZooError, match="stride is 4; expected 1 or 2"):
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 4)
