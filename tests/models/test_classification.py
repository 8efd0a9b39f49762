"""Every classifier against data recorded from torchvision, and through the loading of weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    assert_close,
    assert_digest,
    assert_gradients,
    calibrate,
    constant,
    fill,
    inputs,
    load_golden,
    no_dropout,
    write_stand_in,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models.classification.densenet import DenseNet
from lightning_zoo.models.classification.resnet import Bottleneck

NAMES = models.list_models("classification")
GOLDEN = load_golden("classification.json")
KEYS = load_golden("classification.keys.json.gz")
PRETRAINED = load_golden("pretrained.json")


def mark_slow(names: list[str]) -> list[Any]:
    """Mark networks of more than 30 million parameters, but for the smallest of a family."""
    entries = [models.get_entry(name) for name in names]
    families: dict[str, list[int]] = {}
    for entry in entries:
        families.setdefault(entry.builder.split(":")[0], []).append(entry.num_params)
    smallest = {min(sizes) for sizes in families.values()}
    return [
        pytest.param(
            e.name,
            marks=[pytest.mark.slow] if e.num_params > 3e7 and e.num_params not in smallest else [],
        )
        for e in entries
    ]


def build(name: str, **kwargs: Any) -> nn.Module:
    """Build a network whose weights are set afterwards, without drawing them where that is slow."""
    if "init_weights" in models.get_entry(name).load_builder().__annotations__:
        kwargs["init_weights"] = False
    return models.get_model(name, **kwargs)


def build_meta(name: str, **kwargs: Any) -> nn.Module:
    with torch.device("meta"):
        return models.get_model(name, **kwargs)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights."""
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_golden_data_is_complete() -> None:
    assert len(NAMES) == 37
    assert set(GOLDEN) == set(KEYS) == set(PRETRAINED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict(name: str) -> None:
    state = build_meta(name, **GOLDEN[name]["kwargs"]).state_dict()
    got = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    assert got == {key: (shape, dtype) for key, shape, dtype in KEYS[name]}


@pytest.mark.parametrize("name", mark_slow(NAMES))
def test_outputs_losses_and_gradients(name: str) -> None:
    golden = GOLDEN[name]
    model = build(name, **golden["kwargs"])
    model.load_state_dict(fill(model.state_dict()))
    images = inputs(name, golden["input"])
    calibrate(model, lambda: model(images))
    with torch.no_grad():
        logits = model(images)
    assert_digest(logits, golden["logits"], "logits")

    model.train()
    no_dropout(model)
    outputs = model(images)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    assert len(outputs) == golden["train"].get("outputs", 1)
    loss = sum(cross_entropy(out, torch.arange(2)) for out in outputs)
    assert_close([loss.item()], [golden["train"]["loss"]], "training loss", rtol=5e-3)
    loss.backward()
    assert_gradients(model, golden["train"]["grad_norm"])


@pytest.mark.parametrize("name", mark_slow(NAMES))
def test_pretrained_outputs(name: str, cache: Path) -> None:
    golden = PRETRAINED[name]
    donor = build(name)
    donor.load_state_dict(fill(donor.state_dict()))
    images = inputs(f"{name}:pretrained", golden["input"])
    calibrate(donor, lambda: donor(images))
    cache.mkdir(parents=True)
    torch.save(donor.state_dict(), cache / golden["file"])
    model = models.get_model(name, pretrained=True).eval()
    assert sum(p.requires_grad for p in model.parameters()) == golden["trainable_count"]
    with torch.no_grad():
        logits = model(images)
    assert_digest(logits, golden["out"]["logits"], "logits")


def published_name(name: str) -> Any:
    """Return how a tensor was called in the file, where that was otherwise than today."""

    def rename(key: str) -> str:
        return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key)

    return rename if name.startswith("densenet") else str


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning(name: str, cache: Path) -> None:
    """Published weights under another ``num_classes``, from a file with the published layout."""
    entry = models.get_entry(name)
    weights = entry.weights[entry.pretrained]
    notes = " ".join(weights.notes)
    has_counters = "before BatchNorm had num_batches_tracked" not in notes
    write_stand_in(
        cache / weights.file_name,
        build_meta(name, **weights.build_args),
        rename=published_name(name),
        keep=lambda key: has_counters or not key.endswith("num_batches_tracked"),
        dtype=torch.float16 if "float16" in notes else torch.float32,
        metadata=has_counters,
    )
    model = models.get_model(name, pretrained=True, num_classes=7)
    report = model.load_report
    state = model.state_dict()

    # the head is what has as many rows as classes; everything else holds the file's values
    head = [key for key, value in state.items() if value.ndim and len(value) == 7]
    assert list(report.new) == head
    assert len(head) == (4 if name == "inception_v3" else 2)
    assert not report.reshaped
    filled = {key for key in state if key.endswith("num_batches_tracked") and not has_counters}
    assert set(report.filled) == filled
    assert set(report.copied) == set(state) - set(head) - filled
    assert all(key.startswith("aux") for key in report.dropped)
    assert bool(report.dropped) == (name == "googlenet")
    for key, value in state.items():
        if value.is_floating_point():
            assert value.dtype is torch.float32
            is_files = bool((value == constant(key)).all())
            assert is_files == (key not in head), key
    line = str(report)
    assert line.startswith(f"{name}: {len(report.copied)} tensors copied from {weights.file_name}")
    assert f"{len(head)} new: {', '.join(head)}" in line
    assert all(key in report.table() for key in state)

    # the smallest inputs pass, and no smaller ones
    images = torch.randn(2, 3, entry.min_train_size, entry.min_train_size)
    outputs = model.train()(images)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    sum(out.sum() for out in outputs).backward()
    assert all(model.get_parameter(key).grad is not None for key in head)
    images = torch.randn(1, 3, entry.min_size, entry.min_size)
    with torch.no_grad():
        assert model.eval()(images).shape == (1, 7)
        if entry.min_size > 1:
            with pytest.raises((RuntimeError, ValueError)):
                model(images[:, :, 1:, 1:])


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("densenet")])
def test_old_names(name: str, cache: Path) -> None:
    weights = models.get_weights(name)
    keys = [key for key, _, _ in KEYS[name]]
    old = [published_name(name)(key) for key in keys]
    assert old != keys
    write_stand_in(cache / weights.file_name, build_meta(name), rename=published_name(name))
    report = models.get_model(name, pretrained=True).load_report
    assert set(report.copied) == set(keys)
    assert (report.new, report.dropped, report.filled) == ((), (), ())


def test_default_is_the_best(cache: Path) -> None:
    write_stand_in(cache / "resnet50-11ad3fa6.pth", build_meta("resnet50"))
    model = models.resnet50(weights="DEFAULT")
    assert model.load_report.source == cache / "resnet50-11ad3fa6.pth"


@pytest.mark.parametrize(
    ("kwargs", "aux1"), [({}, False), ({"aux_logits": True}, True), ({"aux_logits": False}, False)]
)
def test_googlenet_heads(kwargs: dict[str, bool], aux1: bool, cache: Path) -> None:
    write_stand_in(cache / "googlenet-1378be20.pth", build_meta("googlenet"))
    model = models.googlenet(pretrained=True, **kwargs)
    assert any(key.startswith("aux1") for key in model.state_dict()) == aux1
    assert model.transform_input
    assert not models.googlenet(pretrained=True, transform_input=False).transform_input


@pytest.mark.parametrize(
    ("kwargs", "aux"), [({}, True), ({"aux_logits": True}, True), ({"aux_logits": False}, False)]
)
def test_inception_head(kwargs: dict[str, bool], aux: bool, cache: Path) -> None:
    write_stand_in(cache / "inception_v3_google-0cc3c7bd.pth", build_meta("inception_v3"))
    model = models.inception_v3(pretrained=True, **kwargs)
    assert any(key.startswith("AuxLogits") for key in model.state_dict()) == aux
    assert bool(model.load_report.dropped) != aux
    assert model.transform_input


def test_another_network_does_not_fit(cache: Path) -> None:
    write_stand_in(cache / "resnet50-0676ba61.pth", build_meta("resnet50"))
    with pytest.raises(
        ZooError,
        match=r"resnet50-0676ba61.pth does not fit resnet50: layer1.0.conv1.weight is "
        r"\(64, 64, 1, 1\), expected \(128, 64, 1, 1\)",
    ):
        models.resnet50(pretrained=True, width_per_group=128, num_classes=5)


# ---------------------------------------------------------------------------------------------
# Options of the families


def test_resnet_dilation() -> None:
    """A dilated stage begins with the dilation of the stage before it."""
    model = build_meta("resnet50", replace_stride_with_dilation=[False, True, True])
    dilations = {
        name: [b.conv2.dilation[0] for b in stage]
        for name, stage in model.named_children()
        if name.startswith("layer")
    }
    assert dilations["layer1"] == [1] * 3
    assert dilations["layer2"] == [1] * 4
    assert dilations["layer3"] == [1] + [2] * 5
    assert dilations["layer4"] == [2, 4, 4]
    assert model.layer4[0].conv2.stride == (1, 1)
    features = nn.Sequential(*list(model.children())[:-2])
    images = torch.zeros(1, 3, 64, 64, device="meta")
    assert features(images).shape == (1, 2048, 8, 8)


def test_resnet_options() -> None:
    with pytest.raises(ZooError, match="groups=32 needs bottleneck blocks"):
        models.resnet18(groups=32)
    with pytest.raises(ZooError, match="dilation=2 needs bottleneck blocks"):
        models.resnet18(replace_stride_with_dilation=[False, True, False])
    with pytest.raises(ZooError, match=r"takes three values, .* not \[True\]"):
        models.resnet18(replace_stride_with_dilation=[True])
    model = models.resnet18(zero_init_residual=True)
    assert float(model.layer4[1].bn2.weight.detach().abs().sum()) == 0
    assert float(model.layer4[1].bn1.weight.detach().sum()) == 512
    model = build_meta("resnet50", norm_layer=lambda channels: nn.GroupNorm(32, channels))
    assert isinstance(model.layer1[0].downsample[1], nn.GroupNorm)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("resnet50", (64, 256)),
        ("resnext50_32x4d", (128, 256)),
        ("resnext101_32x8d", (256, 256)),
        ("wide_resnet50_2", (128, 256)),
    ],
)
def test_bottleneck_widths(name: str, widths: tuple[int, int]) -> None:
    block = build_meta(name).layer1[0]
    assert isinstance(block, Bottleneck)
    assert (block.conv2.out_channels, block.conv3.out_channels) == widths


def test_densenet_memory_efficient() -> None:
    """The same loss, gradients and running statistics, with fewer tensors kept."""
    torch.manual_seed(0)
    plain = DenseNet(8, (2, 3), 16, num_classes=5)
    lean = DenseNet(8, (2, 3), 16, num_classes=5, memory_efficient=True)
    lean.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 64, 64)
    kept = []
    for model in (plain, lean):
        saved: list[int] = []
        kept.append(saved)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            loss = cross_entropy(model.train()(images), torch.arange(4))
        loss.backward()
    assert sum(kept[1]) < sum(kept[0])
    for (name, a), b in zip(plain.named_parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6, msg=name)
    for (name, a), b in zip(plain.named_buffers(), lean.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), lean.eval()(images))


def test_densenet_drop_rate() -> None:
    torch.manual_seed(0)
    model = DenseNet(8, (2, 2), 16, num_classes=5, drop_rate=0.5)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model(images), model(images))
        model.eval()
        torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)


def test_vgg_init() -> None:
    torch.manual_seed(0)
    model = models.vgg11(num_classes=3, dropout=0.25)
    assert float(model.classifier[6].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    fan_out = 64 * 9
    spread = float(model.features[0].weight.detach().std())
    assert spread == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert not model.features[0].bias.detach().any()
    assert model.classifier[2].p == 0.25


def test_squeezenet_version() -> None:
    from lightning_zoo.models.classification.squeezenet import SqueezeNet

    with pytest.raises(ZooError, match="unknown version of SqueezeNet '1_2'"):
        SqueezeNet("1_2")


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match=r"resnet50\(\) has no argument 'num_clases'; did you mean"):
        models.resnet50(num_clases=10)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_compiles_to_the_same_graph_as_eager(name: str) -> None:
    """The networks can be traced: one graph, without Python that depends on the values."""
    torch.manual_seed(0)
    model = models.get_model(name, num_classes=4).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), model(images))


def test_golden_version() -> None:
    assert (Path(__file__).parent / "golden" / "VERSION").read_text().startswith("torchvision 0.")
