import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models.classification.mobilenetv2 import InvertedResidual


def test_blocks():
    with torch.device("meta"):
        model = models.mobilenet_v2()
    blocks = [m for m in model.features if isinstance(m, InvertedResidual)]
    assert len(blocks) == 17
    assert len(blocks[0].conv) == 3  # expansion ratio 1: no 1x1 convolution first
    assert all(len(block.conv) == 4 for block in blocks[1:])
    assert [i for i, b in enumerate(model.features) if getattr(b, "is_strided", False)] == [
        2, 4, 7, 14
    ]  # fmt: skip
    assert sum(block.use_res_connect for block in blocks) == 10
    assert [m.out_channels for m in model.features][-2:] == [320, 1280]
    assert isinstance(model.features[0][2], nn.ReLU6)
    assert isinstance(blocks[0].conv[-1], nn.BatchNorm2d)  # the projection is linear
    assert (model.classifier[0].p, model.classifier[0].inplace) == (0.2, False)


@pytest.mark.parametrize(
    ("width_mult", "first", "last", "num_params"),
    [(0.35, 16, 1280, 1_677_128), (0.75, 24, 1280, 2_636_424), (1.4, 48, 1792, 6_108_776)],
)
def test_width_mult(width_mult, first, last, num_params):
    """Torchvision's widths and parameters."""
    with torch.device("meta"):
        model = models.mobilenet_v2(width_mult=width_mult)
    assert (model.features[0].out_channels, model.last_channel) == (first, last)
    assert sum(p.numel() for p in model.parameters()) == num_params


def test_options_and_errors():
    model = models.mobilenet_v2(
        num_classes=3,
        inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]],
        norm_layer=lambda channels: nn.GroupNorm(2, channels),
        dropout=0.5,
    )
    assert len(model.features) == 5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert model.classifier[0].p == 0.5
    assert model(torch.randn(1, 3, 17, 20)).shape == (1, 3)
    with pytest.raises(ZooError, match="expected rows of four numbers"):
        models.mobilenet_v2(inverted_residual_setting=[[1, 16, 1]])
    with pytest.raises(ZooError, match="stride is 3; expected 1 or 2"):
        InvertedResidual(8, 8, 3, 6)


def test_init():
    torch.manual_seed(0)
    model = models.mobilenet_v2()
    assert model.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not model.classifier[1].bias.any()
    assert model.features[18][0].weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.01)
