import pytest
import torch
from torch import nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models.classification.googlenet import (
    GoogLeNetOutputs,
    Inception,
    InceptionAux,
)


def num_params(model):
    return sum(p.numel() for p in model.parameters())


def test_parameters_with_and_without_heads():
    with torch.device("meta"):
        assert num_params(models.googlenet()) == 13_004_888
        assert num_params(models.googlenet(aux_logits=False)) == 6_624_904


def test_aux_logits_appear_only_in_training_the_deeper_head_first():
    torch.manual_seed(0)
    model = models.googlenet(num_classes=10)
    x = torch.randn(2, 3, 64, 64)
    assert model.eval()(x).shape == (2, 10)
    seen = {}
    model.aux1.register_forward_hook(lambda _, args, out: seen.update(aux1=(args[0].shape, out)))
    model.aux2.register_forward_hook(lambda _, args, out: seen.update(aux2=(args[0].shape, out)))
    out = model.train()(x)
    assert isinstance(out, GoogLeNetOutputs)
    assert out._fields == ("logits", "aux_logits2", "aux_logits1")
    assert [tuple(t.shape) for t in out] == [(2, 10)] * 3
    assert out.aux_logits1 is seen["aux1"][1]
    assert out.aux_logits2 is seen["aux2"][1]
    assert (seen["aux1"][0][1], seen["aux2"][0][1]) == (512, 528)  # inception4a, inception4d
    plain = models.googlenet(num_classes=10, aux_logits=False, init_weights=False)
    assert plain.train()(x).shape == (2, 10)


def test_aux_head():
    head = InceptionAux(512, 10)
    assert (head.fc1.in_features, head.fc1.out_features, head.dropout.p) == (2048, 1024, 0.7)
    assert head(torch.randn(2, 512, 14, 14)).shape == (2, 10)


def test_pools_round_up_and_the_5x5_branch_is_3x3():
    with torch.device("meta"):
        model = models.googlenet(dropout_aux=0.3)
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    assert len(pools) == 4 + 9
    assert all(pool.ceil_mode for pool in pools)
    assert (model.maxpool3.kernel_size, model.maxpool4.kernel_size) == (3, 2)
    assert model.inception3a.branch3[1].conv.kernel_size == (3, 3)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(0.001, 0.1)}
    assert (model.dropout.p, model.aux1.dropout.p) == (0.2, 0.3)


def test_init():
    torch.manual_seed(0)
    model = models.googlenet()
    for name in ("conv1.conv", "inception5b.branch1.conv", "aux1.fc1", "fc"):
        weight = model.get_submodule(name).weight
        assert weight.abs().max() <= 0.02
        assert weight.std().item() == pytest.approx(0.8796 * 0.01, rel=0.03)


def test_pretrained_drops_the_untrained_heads_unless_asked(tmp_path, monkeypatch):
    donor = models.googlenet(init_weights=False)
    path = tmp_path / "hub" / "checkpoints" / models.get_weights("googlenet").file_name
    path.parent.mkdir(parents=True)
    torch.save(donor.state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)

    model = models.googlenet(pretrained=True)
    assert model.transform_input
    assert not model.aux_logits
    assert model.aux1 is None
    assert model.aux2 is None
    assert num_params(model) == 6_624_904
    kept = models.googlenet(pretrained=True, aux_logits=True, transform_input=False)
    assert not kept.transform_input
    assert torch.equal(kept.aux2.fc2.weight, donor.aux2.fc2.weight)
    tuned = models.googlenet(pretrained=True, num_classes=7, aux_logits=True)
    assert tuned.fc.out_features == tuned.aux1.fc2.out_features == 7
    assert torch.equal(tuned.aux1.fc1.weight, donor.aux1.fc1.weight)


def test_blocks_can_be_replaced():
    class Marked(Inception):
        pass

    from lightning_zoo.layers import BasicConv2d

    with torch.device("meta"):
        model = models.googlenet(blocks=[BasicConv2d, Marked, InceptionAux])
    assert type(model.inception4c) is Marked
    with pytest.raises(ZooError, match="blocks has 1 entries; expected 3"):
        models.googlenet(blocks=[Marked])
