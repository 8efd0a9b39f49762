import time

import pytest
import torch

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models.classification.inception import (
    INCEPTION_BLOCKS,
    InceptionC,
    InceptionE,
    InceptionOutputs,
)


def num_params(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return models.inception_v3(num_classes=10)


def test_aux_logits_appear_only_in_training(model):
    x = torch.zeros(2, 3, 75, 75)
    assert model.eval()(x).shape == (2, 10)
    with torch.no_grad():
        out = model.train()(torch.randn(2, 3, 299, 299))
    assert isinstance(out, InceptionOutputs)
    assert out._fields == ("logits", "aux_logits")
    assert [tuple(t.shape) for t in out] == [(2, 10), (2, 10)]


def test_feature_maps(model):
    shapes = {}
    names = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7a", "Mixed_7c")
    hooks = [
        getattr(model, name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
        for name in names
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 299, 299))
    for hook in hooks:
        hook.remove()
    assert list(shapes.values()) == [
        (64, 147, 147), (192, 71, 71), (288, 35, 35), (768, 17, 17), (1280, 8, 8), (2048, 8, 8)
    ]  # fmt: skip


def test_parameters_with_and_without_the_head():
    with torch.device("meta"):
        assert num_params(models.inception_v3()) == 27_161_264
        without = models.inception_v3(aux_logits=False)
    assert num_params(without) == 23_834_568
    assert not any(key.startswith("AuxLogits") for key in without.state_dict())


def test_init_is_fast_and_truncated_at_two_deviations():
    start = time.perf_counter()
    model = models.inception_v3()
    seconds = time.perf_counter() - start
    stds = {"fc": 0.1, "Mixed_7c.branch1x1.conv": 0.1}
    stds |= {"AuxLogits.conv0.conv": 0.1, "AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
    for name, std in stds.items():
        weight = model.get_submodule(name).weight
        assert weight.abs().max() <= 2 * std
        assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.02)
    assert seconds < 8  # 0.6 s on an idle core


def test_pretrained_keeps_the_head_and_transforms_the_input(tmp_path, monkeypatch):
    donor = models.inception_v3(init_weights=False)
    weights = models.get_weights("inception_v3")
    path = tmp_path / "hub" / "checkpoints" / weights.file_name
    path.parent.mkdir(parents=True)
    torch.save(donor.state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)

    model = models.inception_v3(pretrained=True)
    assert model.transform_input
    assert model.AuxLogits is not None
    assert torch.equal(model.AuxLogits.fc.weight, donor.AuxLogits.fc.weight)
    bare = models.inception_v3(pretrained=True, aux_logits=False, transform_input=False)
    assert not bare.transform_input
    assert bare.AuxLogits is None
    assert isinstance(bare.train()(torch.randn(2, 3, 75, 75)), torch.Tensor)
    tuned = models.inception_v3(pretrained=True, num_classes=7)
    assert tuned.fc.out_features == tuned.AuxLogits.fc.out_features == 7
    assert torch.equal(tuned.Mixed_7c.branch1x1.conv.weight, donor.Mixed_7c.branch1x1.conv.weight)
    assert not models.inception_v3(init_weights=False).transform_input


def test_transform_input_happens_first(model):
    x = torch.randn(1, 3, 75, 75)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    model.eval()
    with torch.no_grad():
        want = model(x * (std / 0.5) + (mean - 0.5) / 0.5)
        model.transform_input = True
        got = model(x)
    model.transform_input = False
    scale = want.abs().max()
    torch.testing.assert_close(got / scale, want / scale, rtol=0, atol=1e-4)


def test_blocks_can_be_replaced():
    class Marked(InceptionC):
        pass

    blocks = [*INCEPTION_BLOCKS[:3], Marked, *INCEPTION_BLOCKS[4:]]
    with torch.device("meta"):
        model = models.inception_v3(inception_blocks=blocks)
    assert type(model.Mixed_6b) is Marked
    assert type(model.Mixed_7b) is InceptionE
    with pytest.raises(ZooError, match="inception_blocks has 3 entries; expected 7"):
        models.inception_v3(inception_blocks=blocks[:3])
