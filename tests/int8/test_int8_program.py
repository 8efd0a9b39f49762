from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from int8_networks import calibrated, distance, images, network
from torch import nn

from lightning_zoo import int8
from lightning_zoo.errors import ZooError

pytest.importorskip("torchao", reason="quantizing needs the extra int8")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def float_network() -> Any:
    return network("resnet18")


@pytest.fixture(scope="module")
def prepared(float_network: Any) -> Any:
    return calibrated("resnet18", float_network)


@pytest.fixture(scope="module")
def program(prepared: Any) -> Any:
    return int8.convert(prepared)


@pytest.fixture(scope="module")
def untrained() -> Any:
    model = network("mobilenet_v3_small")
    return int8.prepare(model, images("mobilenet_v3_small", 2), qat=True)


@pytest.fixture
def qat(untrained: Any) -> Any:
    return copy.deepcopy(untrained)


def test_observing_changes_nothing(float_network: Any, prepared: Any) -> None:
    x = images("resnet18")
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), float_network(x), rtol=1e-3, atol=1e-3)


def test_program_is_close_to_float(float_network: Any, program: Any) -> None:
    x = images("resnet18")
    with torch.no_grad():
        expected = float_network(x)
        assert (program(x) - expected).norm() < 0.3 * expected.norm()


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (5, 3, 64, 64), (2, 3, 96, 80)])
def test_batch_and_size_are_free(prepared: Any, program: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        for part in (copy.deepcopy(prepared), program, int8.lower(program)):
            assert part(x).shape == (shape[0], 10)


def test_the_network_stays_as_it_was() -> None:
    model = network("squeezenet1_0")
    before = copy.deepcopy(model.state_dict())
    qat = int8.prepare(model.train(), images("squeezenet1_0", 2), qat=True)
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.1)
    qat(images("squeezenet1_0")).sum().backward()
    optimizer.step()
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_prepared_stays_as_it_was(prepared: Any) -> None:
    before = copy.deepcopy(prepared.state_dict())
    int8.convert(prepared)
    assert all(torch.equal(v, before[k]) for k, v in prepared.state_dict().items())
    assert int8.calibrated(prepared)


def test_a_network_that_saw_nothing_cannot_be_converted(float_network: Any) -> None:
    empty = int8.prepare(float_network, images("resnet18", 2))
    assert not int8.calibrated(empty)
    with pytest.raises(ZooError, match="has seen no images"):
        int8.convert(empty)


def test_state_dict_goes_into_a_fresh_one(float_network: Any, prepared: Any, program: Any) -> None:
    fresh = int8.prepare(float_network, images("resnet18", 2))
    fresh.load_state_dict(prepared.state_dict())
    x = images("resnet18", seed=1)
    with torch.no_grad():
        assert torch.equal(int8.convert(fresh)(x), program(x))


def test_state_dict_of_training_goes_into_a_fresh_one(qat: Any, untrained: Any) -> None:
    x = images("mobilenet_v3_small")
    qat(x)
    fresh = copy.deepcopy(untrained)
    fresh.load_state_dict(qat.state_dict())
    with torch.no_grad():
        assert torch.equal(int8.convert(fresh)(x), int8.convert(qat)(x))


def test_observers_are_switched_off(prepared: Any, qat: Any) -> None:
    for module, name in ((copy.deepcopy(prepared), "resnet18"), (qat, "mobilenet_v3_small")):
        module(images(name))
        int8.observe(module, False)
        before = {k: v.clone() for k, v in module.state_dict().items() if "post_process" in k}
        assert before
        module.train()
        module(10 * images(name, seed=1))
        after = module.state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.items())
        int8.observe(module, True)
        module(10 * images(name, seed=1))
        after = module.state_dict()
        assert not all(torch.equal(after[k], v) for k, v in before.items())


def test_norms_are_frozen(qat: Any) -> None:
    x = images("mobilenet_v3_small")
    means = {k: v.clone() for k, v in qat.named_buffers() if "running_" in k}
    assert means
    qat.eval()
    qat(x)
    assert all(torch.equal(v, means[k]) for k, v in qat.named_buffers() if k in means)
    qat.train()
    qat(x)
    moved = {k: v.clone() for k, v in qat.named_buffers() if "running_" in k}
    assert not any(torch.equal(v, means[k]) for k, v in moved.items())
    int8.freeze_norms(qat)
    qat.train()
    qat(x).sum().backward()
    assert all(torch.equal(v, moved[k]) for k, v in qat.named_buffers() if k in moved)
    norms = [p for k, p in qat.named_parameters() if ".0.1." in k]
    assert norms
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in norms)


def test_training_lowers_the_loss(qat: Any) -> None:
    x = images("mobilenet_v3_small", 8)
    labels = torch.arange(8) % 2
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(qat(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_converted_is_what_was_simulated(qat: Any) -> None:
    x = images("mobilenet_v3_small")
    qat(x)
    qat.eval()
    int8.observe(qat, False)
    with torch.no_grad():
        assert distance(int8.convert(qat)(x), qat(x)) < 0.02


def test_a_channel_switched_off_gives_no_nan() -> None:
    model = network("resnet18")
    nn.init.zeros_(model.layer1[0].bn2.weight)
    qat = int8.prepare(model, images("resnet18", 2), qat=True)
    y = qat(images("resnet18"))
    y.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in qat.parameters())
    qat.eval()
    int8.observe(qat, False)
    x = images("resnet18")
    with torch.no_grad():
        # a random network makes much of the one step that a value in the middle may round by
        assert distance(int8.convert(qat)(x), qat(x)) < 0.3


def test_file_gives_the_same_bit_for_bit(program: Any, float_network: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "int8.pt2"
    facts = {"classes": ["a", "b"], "mean": [0.5, 0.5, 0.5], "eval_crop": 64}
    int8.save(program, path, example=torch.zeros(2, 3, 64, 64), facts=facts)
    loaded, found = int8.load(path)
    assert found == facts
    assert [p.name for p in path.parent.iterdir()] == ["int8.pt2"]
    with torch.no_grad():
        for shape in ((1, 3, 64, 64), (4, 3, 64, 64), (2, 3, 80, 96)):
            x = torch.randn(shape)
            assert torch.equal(loaded(x), program(x))
            assert torch.equal(int8.lower(loaded)(x), int8.lower(program)(x))
    size = sum(p.numel() * 4 for p in float_network.parameters())
    assert path.stat().st_size < 0.27 * size + 200_000


@pytest.mark.slow
def test_file_needs_torch_alone(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "int8.pt2"
    int8.save(program, path, example=torch.zeros(2, 3, 64, 64), facts={})
    x = images("resnet18", 1)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch, torch.ao.quantization.fx._decomposed\n"
        f"x = torch.load({str(tmp_path / 'x.pt')!r})\n"
        f"y = torch.export.load({str(path)!r}).module()(x)\n"
        f"torch.save(y.detach(), {str(tmp_path / 'y.pt')!r})\n"
        "assert not any(m.startswith(('torchao', 'lightning_zoo')) for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=300)
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt"), program(x))


def test_files_that_are_none(program: Any, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is no INT8 program .*nowhere\.pt2"):
        int8.load(tmp_path / "nowhere.pt2")
    path = tmp_path / "int8.pt2"
    int8.save(program, path, example=torch.zeros(2, 3, 64, 64), facts={})
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = (
        whole[:middle] + bytes(255 - b for b in whole[middle : middle + 9]) + whole[middle + 9 :]
    )
    for data in (b"", b"words", whole[:middle], whole[:-30], flipped):
        path.write_bytes(data)
        with pytest.raises(ZooError, match="is damaged or no INT8 program"):
            int8.load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ZooError, match="is damaged or no INT8 program"):
        int8.load(path)


def test_wrong_arguments(program: Any, float_network: Any) -> None:
    with pytest.raises(ZooError, match="unknown engine 'onedn'; did you mean onednn"):
        int8.lower(program, "onedn")
    with pytest.raises(ZooError, match=r"expected what convert\(\) or load\(\) returned, not ResN"):
        int8.lower(float_network)
    with pytest.raises(ZooError, match="is lowered already"):
        int8.lower(int8.lower(program))
    with pytest.raises(ZooError, match="example is tuple; expected a tensor"):
        int8.prepare(float_network, (torch.zeros(2, 3, 8, 8),))  # type: ignore[arg-type]
    with pytest.raises(ZooError, match=r"expected what prepare\(\) returned, not a ResNet"):
        int8.convert(float_network)
    with pytest.raises(ZooError, match=r"example is \(1, 3, 64, 64\)"):
        int8.prepare(float_network, torch.zeros(1, 3, 64, 64))


def test_without_torchao(monkeypatch: pytest.MonkeyPatch, float_network: Any) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torchao" else find(name)
    )
    with pytest.raises(ZooError, match=r"pip install 'lightning_zoo\[int8\]'"):
        int8.prepare(float_network, images("resnet18", 2))


def test_import_is_quiet_and_lazy() -> None:
    code = (
        "import sys\nfrom lightning_zoo import int8\n"
        "assert not any(m.split('.')[0] in ('torch', 'torchao') for m in sys.modules)\n"
        "from lightning_zoo.int8.prepared import torchao_part\ntorchao_part()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
