"""INT8 networks against torchvision's, where it is installed: the same files, the same bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import calibrate, fill, inputs

from lightning_zoo import models
from lightning_zoo.models.quantization.eager import convert, on_engine, supported_engines

HEAVY = ("googlenet", "inception_v3", "resnet50", "resnext101_32x8d", "shufflenet_v2_x1_5",
         "shufflenet_v2_x2_0")  # fmt: skip
CASES = [
    pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ())
    for name in models.list_models("quantization")
]
THERE = supported_engines()
pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def torchvision() -> Iterator[Any]:
    """Torchvision, which still warns of the deprecated functions that it calls."""
    module = pytest.importorskip("torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield module


def images(name: str, n: int = 2) -> torch.Tensor:
    return inputs(name, [n, 3, 96, 96])


def theirs_calibrated(torchvision: Any, name: str, *, heads: bool = False) -> Any:
    """Return torchvision's float network with sane statistics, in evaluation mode."""
    torch.manual_seed(0)
    args = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = getattr(torchvision.models.quantization, name)(weights=None, num_classes=20, **args)
    if args and not heads:
        network.aux1 = network.aux2 = network.AuxLogits = None
        network.aux_logits = False
    network.load_state_dict(fill(network.state_dict()))
    calibrate(network, lambda: network(images(name, 4)))
    return network


def theirs_converted(torchvision: Any, name: str, backend: str, *, heads: bool = False) -> Any:
    ao = torch.ao.quantization
    network = theirs_calibrated(torchvision, name, heads=heads)
    with on_engine(backend):
        network.fuse_model(is_qat=False)
        network.qconfig = ao.get_default_qconfig(backend)
        ao.prepare(network, inplace=True)
        with torch.no_grad():
            network(images(name, 4))
        ao.convert(network, inplace=True)
    return network


def outputs_on(network: Any, state: dict[str, Any], engine: str, x: torch.Tensor) -> torch.Tensor:
    """Return what torchvision's network says on an engine: it is packed by the global setting."""
    with on_engine(engine), torch.no_grad():
        network.load_state_dict(state)
        return network(x)


@pytest.mark.parametrize("name", CASES)
def test_same_bits(name: str, torchvision: Any, tmp_path: Path) -> None:
    """A file made by torchvision on either kind of weights gives its outputs on each engine."""
    assert THERE
    x = images(f"{name} test")
    for backend in ("fbgemm", "qnnpack"):
        theirs = theirs_converted(torchvision, name, backend)
        state = theirs.state_dict()
        torch.save(state, tmp_path / "theirs.pth")
        for engine in THERE:
            ours = getattr(models.quantization, name)(
                weights=tmp_path / "theirs.pth", quantize=True, backend=engine, num_classes=20
            )
            with torch.no_grad():
                got = ours(x)
                assert torch.equal(got, ours.to_engine(engine)(x))
            want = outputs_on(theirs, state, engine, x)
            assert float(want.std()) > 0.01
            assert torch.equal(got, want), (backend, engine)
        assert set(ours.state_dict()) == set(state)


@pytest.mark.parametrize("name", CASES)
def test_ours_in_theirs(name: str, torchvision: Any) -> None:
    """A network that we converted gives its outputs in torchvision's class too."""
    x = images(f"{name} test")
    aux = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    ours = getattr(models.quantization, name)(num_classes=20, **aux)
    ours.load_state_dict(theirs_calibrated(torchvision, name).state_dict())
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs_calibrated(torchvision, name)(x))
    convert(ours, "fbgemm", [images(name, 4)])
    theirs = theirs_converted(torchvision, name, "fbgemm")
    with torch.no_grad():
        assert torch.equal(outputs_on(theirs, ours.state_dict(), "fbgemm", x), ours(x))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large"])
@pytest.mark.parametrize("backend", ["qnnpack", "fbgemm"])
def test_prepared_for_training(name: str, backend: str, torchvision: Any, tmp_path: Path) -> None:
    """A fine-tuned network that is not converted yet, such as the published MobileNet V3."""
    ao = torch.ao.quantization
    theirs = theirs_calibrated(torchvision, name).train()
    theirs.fuse_model(is_qat=True)
    theirs.qconfig = ao.get_default_qat_qconfig(backend)
    ao.prepare_qat(theirs, inplace=True)
    for i in range(3):
        theirs(images(f"{name} {i}", 4))
    state = theirs.state_dict()
    for key in [k for k in state if ".scale_activation." in k]:
        del state[key]  # as in the published file
    torch.save(state, tmp_path / "prepared.pth")
    with on_engine(backend):
        ao.convert(theirs, inplace=True)
        theirs.eval()
    for engine in THERE:
        ours = getattr(models.quantization, name)(
            weights=tmp_path / "prepared.pth", quantize=True, backend=engine, num_classes=20
        )
        x = images(f"{name} test")
        with torch.no_grad():
            assert torch.equal(ours(x), outputs_on(theirs, theirs.state_dict(), engine, x))
        report = ours.load_report
        assert bool(report.filled) == (name == "mobilenet_v3_large")
        assert all(".scale_activation." in key for key in report.filled)


def test_file_with_heads(torchvision: Any, tmp_path: Path) -> None:
    """Torchvision's GoogLeNet keeps its auxiliary heads when it is converted."""
    theirs = theirs_converted(torchvision, "googlenet", "fbgemm", heads=True)
    torch.save(theirs.state_dict(), tmp_path / "heads.pth")
    assert len(theirs.state_dict()) == 276
    x = images("googlenet test")
    for heads in (False, True):
        ours = models.quantization.googlenet(
            weights=tmp_path / "heads.pth", quantize=True, num_classes=20, aux_logits=heads
        )
        assert len(ours.state_dict()) == (276 if heads else 252)
        assert len(ours.load_report.dropped) == (0 if heads else 24)
        with torch.no_grad():
            assert torch.equal(ours(x), outputs_on(theirs, theirs.state_dict(), "fbgemm", x))
