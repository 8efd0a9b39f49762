"""The quantized zoo: layouts, files, engines, and integers that say what the floats said."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import calibrate, fill, inputs, write_stand_in
from test_hub import Server
from torch import Tensor, nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.models.quantization import eager
from lightning_zoo.models.quantization.eager import (
    Quantizable,
    convert,
    prepare_qat,
    supported_engines,
)

NAMES = models.list_models("quantization")
LIGHT = ("googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_large", "resnet18",
         "shufflenet_v2_x0_5")  # fmt: skip
CASES = [pytest.param(n, marks=() if n in LIGHT else pytest.mark.slow) for n in NAMES]
HEADS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# Entries of the published files; that of MobileNet V3 is not converted, this is what it becomes.
ENTRIES = {
    "resnet18": 102,
    "resnet50": 250,
    "resnext101_32x8d": 488,
    "inception_v3": 412,
    "googlenet": 276,
    **{f"shufflenet_v2_{width}": 262 for width in ("x0_5", "x1_0", "x1_5", "x2_0")},
    "mobilenet_v2": 248,
    "mobilenet_v3_large": 346,
}
THERE = supported_engines()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def setting() -> Iterator[None]:
    """Whatever is done, PyTorch's own setting is as it was."""
    before = torch.backends.quantized.engine
    yield
    assert torch.backends.quantized.engine == before


def build(name: str, **kwargs: Any) -> Any:
    return getattr(models.quantization, name)(**kwargs)


def images(name: str, n: int = 2) -> Tensor:
    side = 80 if "inception" in name else 64
    return inputs(name, [n, 3, side, side])


def sane(name: str, **kwargs: Any) -> Any:
    """Return the float network with the statistics of one batch."""
    network = build(name, num_classes=20, **kwargs).train()
    network.load_state_dict(fill(network.state_dict()))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(images(name, 8))
    return network.eval()


def no_heads(name: str) -> dict[str, Any]:
    return {"aux_logits": False} if name in HEADS else {}


@functools.lru_cache(maxsize=1)
def pair(name: str) -> tuple[Any, Any]:
    """Return a float network and what it is converted to."""
    network = sane(name, **no_heads(name))
    twin = copy.deepcopy(network)
    convert(twin, models.get_weights(f"quantization/{name}").backend, [images(name, 8)])
    return network, twin


def scaled(integer: int, tensor: Tensor) -> float:
    return (integer - tensor.q_zero_point()) * tensor.q_scale()


def blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Return the parts of a float network that are quantized as a whole, and the last layer."""
    last = [name for name, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    return {
        name: module
        for name, module in network.named_modules()
        if name == last or (name and type(module).__name__.startswith(("Quantizable", "ConvNorm")))
    }


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert list(a) == list(b)
    for name, value in a.items():
        parts = value if isinstance(value, tuple) else (value,)
        for x, y in zip(parts, b[name] if isinstance(value, tuple) else (b[name],), strict=True):
            if not isinstance(x, Tensor):
                assert x == y, name
            elif x.is_quantized:
                assert torch.equal(x.int_repr(), y.int_repr()), name
                assert torch.equal(x.dequantize(), y.dequantize()), name
            else:
                assert torch.equal(x, y), name


def test_all_are_there() -> None:
    assert len(NAMES) == 11
    assert set(NAMES) == set(ENTRIES) == set(models.quantization.__all__)
    assert set(LIGHT) < set(NAMES)
    assert THERE
    with pytest.raises(AttributeError, match="has no attribute 'resnet34'"):
        _ = models.quantization.resnet34
    from lightning_zoo.models.quantization.googlenet import googlenet

    assert models.quantization.googlenet is googlenet
    assert dir(models.quantization) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_float_layout(name: str) -> None:
    """The float network fits the classifier's files, and has no ReLU that changes its input."""
    with torch.device("meta"):
        network, classifier = build(name), getattr(models, name)()
    assert hub.shapes(network.state_dict()) == hub.shapes(classifier.state_dict())
    assert {type(m) for m in network.modules()}.isdisjoint({nn.ReLU6})
    assert not any(m.inplace for m in network.modules() if isinstance(m, nn.ReLU))


@pytest.mark.parametrize("name", CASES)
def test_entries(name: str) -> None:
    """As many entries as the published file; no parameter is left, nothing is said."""
    heads = {"aux_logits": True} if name == "googlenet" else {}
    network = build(name, quantize=True, **heads)
    assert len(network.state_dict()) == ENTRIES[name]
    assert not list(network.parameters())
    assert not network.training
    assert network.engine == models.get_weights(f"quantization/{name}").backend


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_files(name: str, tmp_path: Path) -> None:
    """Integers say nearly what floats say; a file gives back the same bits on each engine.

    They are compared block by block, as random networks blow up the smallest difference.
    """
    network, converted = pair(name)
    x = images(name, 8)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [
        converted.get_submodule(block).register_forward_hook(
            lambda _, args, out, block=block: seen.update({block: (args[0], out)})
        )
        for block in blocks(network)
    ]
    with torch.no_grad():
        got = converted(x)
        for block, module in blocks(network).items():
            integers, out = seen[block]
            want = module(integers.dequantize())
            low, high = (scaled(end, out) for end in (0, 255))
            want = want.clamp(low, high)  # the ranges are those of the float network
            error = float((out.dequantize() - want).norm() / want.norm())
            assert error < 0.3, (block, error)  # with a step left out it is about 1
    for hook in hooks:
        hook.remove()
    assert len(seen) > 8
    assert got.shape == (8, 20)
    state = converted.state_dict()
    torch.save(state, tmp_path / "mine.pth")
    again = build(
        name, weights=tmp_path / "mine.pth", quantize=True, backend=THERE[-1], num_classes=20
    )
    assert again.engine == THERE[-1]
    assert_same(again.state_dict(), state)
    report = again.load_report
    assert set(report.copied) == set(state)
    assert (report.new, report.dropped, report.filled) == ((), (), ())
    for engine in THERE:
        twin = copy.deepcopy(converted).to_engine(engine)
        with torch.no_grad():
            there = again.to_engine(engine)(x)
            assert torch.equal(there, twin(x))
            assert torch.equal(there, copy.deepcopy(twin)(x))
        assert float(torch.cosine_similarity(there.flatten(), got.flatten(), dim=0)) > 0.3


def test_float_network_trains() -> None:
    network = build("resnet18", num_classes=5).train()
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.engine is None
    network.to(torch.float64)


# ---------------------------------------------------------------------------------------------
# Published files


def test_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pretrained=True, quantize=True`` fetches the INT8 file, checks and loads it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    published = build("shufflenet_v2_x0_5", quantize=True)
    buffer = io.BytesIO()
    torch.save(published.state_dict(), buffer)
    server = Server()
    server.body = buffer.getvalue()
    prefix = hashlib.sha256(server.body).hexdigest()[:8]
    entry = models.get_entry("quantization/shufflenet_v2_x0_5")
    weights = replace(
        entry.get_weights(), url=f"{server.address}/net-{prefix}.pth", sha256_prefix=prefix
    )
    patched = replace(entry, weights={weights.name: weights})
    monkeypatch.setattr(hub, "registry", lambda: {("quantization", entry.name): patched})
    try:
        for kwargs in ({"pretrained": True}, {"weights": "DEFAULT"}, {"weights": weights.name}):
            network = build(entry.name, quantize=True, **kwargs)
            assert_same(network.state_dict(), published.state_dict())
        assert server.requests == 1
        assert network.load_report.source == cache / f"net-{prefix}.pth"
        (cache / f"net-{prefix}.pth").unlink()
        server.failure = "other"
        with pytest.raises(ZooError, match="its SHA-256 starts with"):
            build(entry.name, quantize=True, pretrained=True)
    finally:
        server.close()


def test_float_weights_of_the_classifier(cache: Path) -> None:
    weights = models.get_weights("googlenet")
    with torch.device("meta"):
        layout = models.googlenet()
    write_stand_in(cache / weights.file_name, layout)
    network = build("googlenet", pretrained=True)
    assert isinstance(network, Quantizable)
    assert network.aux1 is None
    assert network.transform_input
    assert len(network.load_report.dropped) > 0
    other = build("googlenet", pretrained=True, num_classes=7)
    assert list(other.load_report.new) == ["fc.weight", "fc.bias"]
    with hub.structure_only():
        assert build("googlenet", pretrained=True, quantize=True).aux1 is None


def test_googlenet_file_has_heads(cache: Path) -> None:
    donor = build("googlenet", quantize=True, aux_logits=True)
    weights = models.get_weights("quantization/googlenet")
    torch.save(donor.state_dict(), cache / weights.file_name)
    network = build("googlenet", pretrained=True, quantize=True)
    assert network.transform_input
    assert (len(network.state_dict()), len(network.load_report.dropped)) == (252, 24)
    assert all(key.startswith(HEADS["googlenet"]) for key in network.load_report.dropped)
    whole = build("googlenet", pretrained=True, quantize=True, aux_logits=True)
    assert whole.load_report.dropped == ()
    assert_same(whole.state_dict(), donor.state_dict())
    plain = build("googlenet", pretrained=True, quantize=True, transform_input=False)
    x = images("googlenet")
    with torch.no_grad():
        assert torch.equal(plain(hub_range(x)), network(x))


def hub_range(x: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return x * (std / 0.5).view(3, 1, 1) + ((mean - 0.5) / 0.5).view(3, 1, 1)


def test_inception_file_has_no_head(cache: Path) -> None:
    donor = build("inception_v3", quantize=True)
    assert donor.AuxLogits is None
    weights = models.get_weights("quantization/inception_v3")
    torch.save(donor.state_dict(), cache / weights.file_name)
    network = build("inception_v3", pretrained=True, quantize=True)
    assert network.transform_input
    assert_same(network.state_dict(), donor.state_dict())
    with pytest.raises(ZooError, match=r"does not fit inception_v3: it lacks AuxLogits"):
        build("inception_v3", pretrained=True, quantize=True, aux_logits=True)


def test_mobilenet_v3_file_is_not_converted(cache: Path) -> None:
    """The published file holds ranges and float weights, and is older than some observers."""
    donor = build("mobilenet_v3_large")
    donor.load_state_dict(fill(donor.state_dict()))
    calibrate(donor, lambda: donor(images("v3", 8)))
    prepare_qat(donor, per_channel=False)
    with torch.no_grad():
        for i in range(3):
            donor(images(f"v3 {i}", 8))
    state = donor.state_dict()
    for key in [k for k in state if ".scale_activation." in k or k.endswith(".eps")]:
        del state[key]
    for versions in state._metadata.values():
        if versions.get("version", 0) > 1:
            versions["version"] = 1
    torch.save(state, cache / models.get_weights("quantization/mobilenet_v3_large").file_name)
    network = build("mobilenet_v3_large", pretrained=True, quantize=True)
    assert len(network.state_dict()) == ENTRIES["mobilenet_v3_large"]
    assert network.engine == "qnnpack"
    assert network.features[0][0].weight().qscheme() == torch.per_tensor_affine
    filled = [k for k in network.load_report.filled if not k.endswith(".eps")]
    assert filled
    assert all(".scale_activation." in key for key in filled)
    with torch.no_grad():
        donor.eval().apply(torch.ao.quantization.disable_observer)
        want, got = donor(images("v3 test")), network(images("v3 test"))
    assert float(torch.cosine_similarity(want, got, dim=1).min()) > 0.9


def test_files_of_older_pytorch(tmp_path: Path) -> None:
    """Linear layers of 2019 kept weight and bias apart."""
    _, converted = pair("resnet18")
    state = converted.state_dict()
    weight, bias = state.pop("fc._packed_params._packed_params")
    state["fc._packed_params.weight"], state["fc._packed_params.bias"] = weight, bias
    state._metadata["fc._packed_params"]["version"] = 2
    torch.save(state, tmp_path / "old.pth")
    network = build("resnet18", weights=tmp_path / "old.pth", quantize=True, num_classes=20)
    x = images("old")
    with torch.no_grad():
        assert torch.equal(network(x), converted(x))


# ---------------------------------------------------------------------------------------------
# Mistakes


def test_mistakes_of_arguments(cache: Path) -> None:
    text = r"resnet18: IMAGENET1K_FBGEMM_V1 are INT8 weights; pass quantize=True with them"
    with pytest.raises(ZooError, match=text):
        build("resnet18", weights="IMAGENET1K_FBGEMM_V1")
    text = "resnet50: IMAGENET1K_V2 are float weights; pass quantize=False, or one of IMAGENET1K_F"
    with pytest.raises(ZooError, match=text):
        build("resnet50", weights="IMAGENET1K_V2", quantize=True)
    with pytest.raises(ZooError, match="unknown weights of quantization/resnet18 'IMAGENET1K_FBGE"):
        build("resnet18", weights="IMAGENET1K_FBGEMM_V9", quantize=True)
    text = (
        "resnet18: the file has 1000 classes and num_classes is 10, but an INT8 head cannot be "
        "trained; pass quantize=False, train, then: python -m lightning_zoo quantize RUN"
    )
    with pytest.raises(ZooError, match=text):
        build("resnet18", pretrained=True, quantize=True, num_classes=10)
    with pytest.raises(ZooError, match=r"backend='x86' is an engine of INT8 networks; pass quant"):
        build("resnet18", backend="x86")
    with pytest.raises(ZooError, match=r"unknown backend 'fbgem'; did you mean fbgemm\?"):
        build("resnet18", quantize=True, backend="fbgem")
    with pytest.raises(TypeError, match=r"resnet18\(\) has no argument 'num_clases'; did you mean"):
        build("resnet18", quantize=True, num_clases=3)


def test_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "supported_engines", lambda: ["onednn"])
    text = r"backend 'fbgemm' is not in this PyTorch, which has onednn; pass backend='onednn'"
    with pytest.raises(ZooError, match=text):
        build("resnet18", quantize=True)
    monkeypatch.setattr(eager, "supported_engines", lambda: [])
    with pytest.raises(ZooError, match=r"which has none; INT8 networks need another build"):
        build("resnet18", quantize=True)


def test_mistakes_of_files(tmp_path: Path) -> None:
    network, converted = pair("resnet18")
    torch.save(network.state_dict(), tmp_path / "float.pth")
    torch.save(converted.state_dict(), tmp_path / "int8.pth")
    with pytest.raises(ZooError, match=r"float\.pth holds float weights; load it with quantize=F"):
        build("resnet18", weights=tmp_path / "float.pth", quantize=True, num_classes=20)
    text = r"int8\.pth holds INT8 weights; load it with models\.quantization\.resnet18\(weights"
    for constructor in (models.resnet18, models.quantization.resnet18):
        with pytest.raises(ZooError, match=text):
            constructor(weights=tmp_path / "int8.pth", num_classes=20)
    with pytest.raises(ZooError, match=r"int8\.pth holds 20 classes, the default is 1000; pass nu"):
        build("resnet18", weights=tmp_path / "int8.pth", quantize=True)
    with pytest.raises(ZooError, match="the file has 20 classes and num_classes is 7, but an INT8"):
        build("resnet18", weights=tmp_path / "int8.pth", quantize=True, num_classes=7)
    with pytest.raises(
        ZooError, match=r"int8\.pth does not fit shufflenet_v2_x0_5: it lacks conv1\.0"
    ):
        build("shufflenet_v2_x0_5", weights=tmp_path / "int8.pth", quantize=True, num_classes=20)
    state = converted.state_dict()
    state["layer1.0.conv1.weight"] = state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ZooError, match=r"layer1\.0\.conv1\.weight is \(128, 64, 3, 3\), expected"):
        build("resnet18", weights=tmp_path / "other.pth", quantize=True, num_classes=20)


def test_what_a_converted_network_cannot() -> None:
    network = build("shufflenet_v2_x0_5", quantize=True)
    with pytest.raises(ZooError, match="an INT8 network cannot be trained; build it with quantize"):
        network.train()
    network.eval().requires_grad_(False).to("cpu").float()
    for change in (lambda: network.half(), lambda: network.to("meta")):
        with pytest.raises(ZooError, match="an INT8 network runs on the CPU, on float32 images"):
            change()
    with pytest.raises(ZooError, match="QuantizableShuffleNetV2 is not converted yet; pass quan"):
        build("shufflenet_v2_x0_5").to_engine("fbgemm")


def test_engine_is_put_back_after_a_failure() -> None:
    network = build("shufflenet_v2_x0_5", quantize=True, backend=THERE[-1])
    with pytest.raises(Exception, match=r"channel|size|expect|dim"):
        network(torch.randn(1, 4, 32, 32))


def test_predict(cache: Path, tmp_path: Path) -> None:
    """By its full name the INT8 file predicts; the bare name is the classifier's."""
    from PIL import Image

    from lightning_zoo.engine import predict
    from lightning_zoo.transforms.classification import EvalTransform
    from lightning_zoo.transforms.decode import read_image

    network = build("shufflenet_v2_x0_5", quantize=True)
    weights = models.get_weights("quantization/shufflenet_v2_x0_5")
    torch.save(network.state_dict(), cache / weights.file_name)
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(photo)
    (found,) = predict("quantization/shufflenet_v2_x0_5", photo)
    pixels = EvalTransform(256, 224)(read_image(photo), None)[None] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        row = network((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).softmax(1)[0]
    assert found.score == pytest.approx(float(row.max()), abs=1e-6)
    with pytest.raises(ZooError, match=r"did you mean quantization/resnet50"):
        predict("quantization/resnet51", photo)
