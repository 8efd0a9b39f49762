from collections import OrderedDict

import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models.classification.mnasnet import MNASNet, _stem

WIDTHS = {
    "mnasnet0_5": [16, 8, 16, 24, 40, 48, 96, 160],
    "mnasnet0_75": [24, 16, 24, 32, 64, 72, 144, 240],
    "mnasnet1_0": [32, 16, 24, 40, 80, 96, 192, 320],
    "mnasnet1_3": [40, 24, 32, 56, 104, 128, 248, 416],
}


@pytest.mark.parametrize("name", WIDTHS)
def test_widths(name):
    with torch.device("meta"):
        layers = getattr(models, name)().layers
    widths = [layers[0].out_channels, layers[6].out_channels]
    widths += [layers[i][-1].layers[6].out_channels for i in range(8, 14)]
    assert widths == WIDTHS[name]
    assert layers[14].out_channels == 1280  # not scaled


def test_layers():
    torch.manual_seed(0)
    model = models.mnasnet0_5(num_classes=10, dropout=0.3)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {1 - 0.9997}
    assert isinstance(model.layers[8], nn.Sequential)  # no activation after the stem's pointwise
    assert isinstance(model.layers[8][0].layers[-1], nn.BatchNorm2d)
    assert model.classifier[0].p == 0.3
    bound = (3 / 10) ** 0.5  # fan out, gain of a sigmoid: 1
    assert 0.99 * bound < model.classifier[1].weight.abs().max() <= bound
    assert model(torch.randn(2, 3, 33, 40)).shape == (2, 10)
    with pytest.raises(ZooError, match="alpha is -1; expected a positive factor"):
        MNASNet(-1)


def old_model(alpha=0.5):
    """A network as version 1 built it: the stem is not scaled."""
    torch.manual_seed(1)
    model = MNASNet(alpha, num_classes=5)
    widths = [32, 16, model.layers[8][0].layers[6].out_channels]
    for i, layer in enumerate(_stem(widths)):
        model.layers[i] = layer
    model._version = 1
    return model.eval()


def test_version_1_rebuilds_the_stem_and_stays_version_1():
    old, x = old_model(), torch.randn(2, 3, 40, 40)
    state = old.state_dict()
    assert state._metadata[""]["version"] == 1
    model = MNASNet(0.5, num_classes=5).double().eval()
    model.load_state_dict(state)
    assert model.layers[0].weight.shape == (32, 3, 3, 3)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(m.training for m in model.modules())
    torch.testing.assert_close(model.float()(x), old(x))
    again = MNASNet(0.5, num_classes=5)
    again.load_state_dict(model.state_dict())  # saved as version 1
    assert model.state_dict()._metadata[""]["version"] == 1
    torch.testing.assert_close(again.eval()(x), old(x))


def test_version_2_goes_back_and_inside_another_module():
    model = nn.ModuleDict({"model": MNASNet(0.5, num_classes=5)}).eval()
    model.load_state_dict(nn.ModuleDict({"model": old_model()}).state_dict())
    assert len(model["model"].layers[0].weight) == 32
    new = nn.ModuleDict({"model": MNASNet(0.5, num_classes=5)})
    model.load_state_dict(new.state_dict())
    assert len(model["model"].layers[0].weight) == 16
    assert model.state_dict()._metadata["model"]["version"] == 2


def test_a_plain_dict_tells_its_version_by_the_stem():
    for donor, width in ((old_model(), 32), (MNASNet(0.5, num_classes=5), 16)):
        model = MNASNet(0.5, num_classes=5)
        model.load_state_dict(dict(donor.state_dict()))
        assert len(model.layers[0].weight) == width
    full = MNASNet(1.0, num_classes=5)
    full.load_state_dict(dict(MNASNet(1.0, num_classes=5).state_dict()))
    assert full._version == 2


def test_unknown_version():
    state = MNASNet(0.5, num_classes=5).state_dict()
    state._metadata[""]["version"] = 3
    with pytest.raises(ZooError, match="has version 3; expected 1 or 2"):
        MNASNet(0.5, num_classes=5).load_state_dict(state)


def test_version_1_file_through_the_constructor(tmp_path):
    old = old_model()
    path = tmp_path / "old.pth"
    torch.save(old.state_dict(), path)
    model = models.mnasnet0_5(weights=path, num_classes=5).eval()
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(model(x), old(x))
    assert "layers.0.weight" in model.load_report.reshaped
    plain = tmp_path / "plain.pth"
    torch.save(OrderedDict(old.state_dict().items()), plain)
    torch.testing.assert_close(models.mnasnet0_5(weights=plain, num_classes=5).eval()(x), old(x))
