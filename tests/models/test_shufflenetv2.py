import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models.classification.shufflenetv2 import InvertedResidual, channel_shuffle


def test_channel_shuffle_by_hand():
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert channel_shuffle(x, 2)[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 3)[1, :, 2, 3].tolist() == [0, 2, 4, 1, 3, 5]
    torch.testing.assert_close(channel_shuffle(channel_shuffle(x, 2), 3), x)  # its own inverse
    last = torch.randn(2, 6, 3, 4).to(memory_format=torch.channels_last)
    torch.testing.assert_close(channel_shuffle(last, 2), channel_shuffle(last.contiguous(), 2))


def test_unit_of_stride_1_keeps_half_of_its_input():
    unit = InvertedResidual(8, 8, 1).eval()
    assert len(unit.branch1) == 0
    x = torch.randn(2, 8, 5, 5)
    out = unit(x)
    torch.testing.assert_close(out[:, ::2], x[:, :4])
    torch.testing.assert_close(out[:, 1::2], unit.branch2(x[:, 4:]))


def test_no_activation_follows_a_depthwise_convolution():
    unit = InvertedResidual(8, 16, 2)
    for branch in (unit.branch1, unit.branch2):
        kinds = [type(layer) for layer in branch]
        depthwise = next(i for i, m in enumerate(branch) if getattr(m, "groups", 1) > 1)
        assert kinds[depthwise : depthwise + 3] == [nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]
    assert unit(torch.zeros(2, 8, 7, 8)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize(
    ("name", "width", "last"),
    [("x0_5", 48, 1024), ("x1_0", 116, 1024), ("x1_5", 176, 1024), ("x2_0", 244, 2048)],
)
def test_widths(name, width, last):
    with torch.device("meta"):
        model = getattr(models, f"shufflenet_v2_{name}")()
    stages = (model.stage2, model.stage3, model.stage4)
    assert [len(stage) for stage in stages] == [4, 8, 4]
    widths = [2 * stage[0].branch2[5].out_channels for stage in stages]
    assert widths == [width, 2 * width, 4 * width]
    assert model.conv1.out_channels == 24
    assert model.conv5.out_channels == model.fc.in_features == last


def test_options_and_errors():
    class Marked(InvertedResidual):
        pass

    model = models.shufflenet_v2_x0_5(num_classes=3, inverted_residual=Marked)
    assert isinstance(model.stage3[1], Marked)
    assert model.eval()(torch.randn(2, 3, 40, 33)).shape == (2, 3)
    with pytest.raises(ZooError, match="stride is 3; expected 1 or 2"):
        InvertedResidual(8, 8, 3)
    with pytest.raises(ZooError, match="8 channels in, 16 out"):
        InvertedResidual(8, 16, 1)
    with pytest.raises(ZooError, match="oup is 9; expected an even number"):
        InvertedResidual(8, 9, 2)
