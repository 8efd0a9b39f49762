"""Constructors, files of weights, cache and downloads; the server is on this machine."""

from __future__ import annotations

import hashlib
import inspect
import io
import logging
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.models.hub import LoadReport, register_model
from lightning_zoo.models.registry import Preprocessing, Weights, get_entry


class TinyNet(nn.Module):
    def __init__(self, width: int, *, num_classes: int = 5, aux_logits: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.aux = nn.Linear(width, num_classes) if aux_logits else None
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(images)).mean(dim=(2, 3)))


FINISHED: list[tuple[nn.Module, Weights]] = []


@register_model(
    rename=lambda key: key.replace("norm.", "bn."),
    finish=lambda model, weights: FINISHED.append((model, weights)),
)
def tinynet(**kwargs: Any) -> TinyNet:
    """TinyNet."""
    return TinyNet(4, **kwargs)


@register_model
def ownnet(width: int = 4, **kwargs: Any) -> TinyNet:
    """Network that is in no registry."""
    return TinyNet(width, **kwargs)


class Server:
    """Answers on this machine as published files do, or fails in one of the ways they may."""

    def __init__(self) -> None:
        server = self
        self.body = b""
        self.failure = ""
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                body = server.body
                if server.failure == "missing":
                    self.send_error(404)
                    return
                if server.failure == "other":
                    body = bytes(len(body))
                length = {"long": len(body) + 9, "short": len(body) - 9}.get(server.failure)
                self.send_response(200)
                if server.failure != "unsaid":
                    self.send_header("Content-Length", str(length or len(body)))
                self.end_headers()
                broken = server.failure in ("broken", "unsaid")
                self.wfile.write(body[: len(body) // 2] if broken else body)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    buffer = io.BytesIO()
    torch.manual_seed(0)
    torch.save(TinyNet(4).state_dict(), buffer)
    server.body = buffer.getvalue()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture
def weights(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights of the tiny network, published on this machine."""
    prefix = hashlib.sha256(server.body).hexdigest()[:8]
    weights = Weights(
        name="V1",
        url=f"{server.address}/tinynet-{prefix}.pth",
        num_classes=5,
        classes="",
        metrics={},
        preprocessing=Preprocessing(32, 32, (0, 0, 0), (1, 1, 1)),
        sha256_prefix=prefix,
        build_args={"aux_logits": True},
    )
    entry = replace(
        get_entry("resnet18"),
        name="tinynet",
        builder=f"{__name__}:tinynet",
        weights={"V1": weights},
        pretrained="V1",
        default="V1",
        recipe="tinynet",
    )
    monkeypatch.setattr(hub, "registry", lambda: {("classification", "tinynet"): entry})
    return weights


def save(path: Path, model: nn.Module) -> dict[str, Tensor]:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.state_dict()


def assert_same(a: nn.Module, state: dict[str, Tensor]) -> None:
    assert list(a.state_dict()) == list(state)
    for name, value in a.state_dict().items():
        assert torch.equal(value, state[name]), name


# ---------------------------------------------------------------------------------------------
# Downloads


def test_download(
    server: Server, weights: Weights, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lightning_zoo"):
        model = tinynet(pretrained=True)
    path = cache / weights.file_name
    assert path.read_bytes() == server.body
    assert [p.name for p in cache.iterdir()] == [path.name]
    assert_same(model, torch.load(path, weights_only=True))
    assert caplog.messages == [
        f"downloading {weights.url} to {path}",
        f"tinynet: 11 tensors copied from {weights.file_name}",
    ]
    assert FINISHED.pop() == (model, weights)
    tinynet(weights="V1")
    tinynet(True, False)
    assert server.requests == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("missing", r"HTTP 404 Not Found"),
        ("broken", r"the connection ended after \d+ of \d+ bytes"),
        ("long", r"the connection ended after \d+ of \d+ bytes"),
        ("short", r"its SHA-256 starts with [0-9a-f]{8}, not [0-9a-f]{8}"),
        ("unsaid", r"its SHA-256 starts with [0-9a-f]{8}, not [0-9a-f]{8}"),
        ("other", r"its SHA-256 starts with [0-9a-f]{8}, not [0-9a-f]{8}"),
    ],
)
def test_failed_download(
    failure: str, reason: str, server: Server, weights: Weights, cache: Path
) -> None:
    server.failure = failure
    with pytest.raises(
        ZooError,
        match=f"^could not download {weights.file_name} from {weights.url}: {reason}. Try again, "
        f"or put the file into {cache} by hand .set TORCH_HOME for another cache., or pass",
    ):
        tinynet(pretrained=True)
    assert list(cache.iterdir()) == []
    server.failure = ""
    tinynet(pretrained=True)


def test_nobody_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.pth"
        with pytest.raises(ZooError, match=r"could not download a.pth from .*refused"):
            hub.download(url, cache / "a.pth")
        unused.listen()
        with pytest.raises(ZooError, match=r"could not download a.pth from .*timed out"):
            hub.download(url, cache / "a.pth", timeout=0.1)
    assert list(cache.iterdir()) == []


def test_interrupted(weights: Weights, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(url: str, file: Any, *_: object) -> str:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "_receive", receive)
    with pytest.raises(KeyboardInterrupt):
        hub.fetch(weights)
    assert list(cache.iterdir()) == []


def test_no_place(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(ZooError, match=r"could not download .*Not a directory.*set TORCH_HOME"):
        tinynet(pretrained=True)


def test_many_at_once(server: Server, weights: Weights, cache: Path) -> None:
    paths: list[Path] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        path = hub.fetch(weights)
        assert path.read_bytes() == server.body
        paths.append(path)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [cache / weights.file_name] * 8
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("terminal", "progress"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_progress(
    terminal: bool,
    progress: bool,
    weights: Weights,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    tinynet(pretrained=True, progress=progress)
    shown = capsys.readouterr().err
    if terminal and progress:
        assert shown.startswith(f"\r{weights.file_name}: 0.0 of 0.0 MiB, 100%")
        assert shown.endswith("\n")
    else:
        assert shown == ""


# ---------------------------------------------------------------------------------------------
# Cache


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCH_MODEL_ZOO", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert hub.checkpoint_dir() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a"))
    assert hub.checkpoint_dir() == tmp_path / "a" / "hub" / "checkpoints"
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "b"))
    assert hub.checkpoint_dir() == tmp_path / "b"


def test_cached_file_is_used_as_it_is(server: Server, weights: Weights, cache: Path) -> None:
    state = save(cache / weights.file_name, TinyNet(4))  # its hash is another
    assert_same(tinynet(pretrained=True), state)
    assert server.requests == 0


@pytest.mark.parametrize("size", [0, 10, 1000, -20])
def test_damaged_cached_file(size: int, server: Server, weights: Weights, cache: Path) -> None:
    cache.mkdir(parents=True)
    path = cache / weights.file_name
    path.write_bytes(server.body[:size])
    with pytest.raises(ZooError, match=rf"^{path} is damaged.*; delete it, and it is downloaded"):
        tinynet(pretrained=True)
    path.unlink()
    tinynet(pretrained=True)


# ---------------------------------------------------------------------------------------------
# Local files


def test_local_state_dict(tmp_path: Path) -> None:
    state = save(tmp_path / "own.pth", TinyNet(4))
    for path in (tmp_path / "own.pth", str(tmp_path / "own.pth")):
        model = tinynet(weights=path)
        assert_same(model, state)
        assert model.load_report.source == tmp_path / "own.pth"


def test_local_lightning_checkpoint(tmp_path: Path) -> None:
    task = nn.Module()
    task.model = TinyNet(4)
    task.register_buffer("mean", torch.zeros(3))
    checkpoint = {
        "epoch": 3,
        "state_dict": task.state_dict(),
        "hyper_parameters": {"model": "tinynet", "num_classes": 5},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
    }
    torch.save(checkpoint, tmp_path / "best.ckpt")
    model = tinynet(weights=tmp_path / "best.ckpt")
    assert_same(model, task.model.state_dict())
    state = hub.read_state_dict(tmp_path / "best.ckpt")
    assert state._metadata == task.model.state_dict()._metadata


def test_metadata_and_old_names(tmp_path: Path) -> None:
    state = TinyNet(4).state_dict()
    old = OrderedDict((key.replace("bn.", "norm."), value) for key, value in state.items())
    del old["norm.num_batches_tracked"]
    torch.save(old, tmp_path / "old.pth")
    model = tinynet(weights=tmp_path / "old.pth")
    assert model.load_report.filled == ("bn.num_batches_tracked",)
    assert "bn.weight" in model.load_report.copied

    old._metadata = state._metadata  # says that batch norms have counters: the file is broken
    torch.save(old, tmp_path / "new.pth")
    with pytest.raises(ZooError, match=r"new.pth does not fit tinynet: .*num_batches_tracked"):
        tinynet(weights=tmp_path / "new.pth")


def test_local_file_with_other_classes(tmp_path: Path) -> None:
    state = save(tmp_path / "own.pth", TinyNet(4, num_classes=9))
    with pytest.raises(
        ZooError,
        match=r"tinynet: own.pth holds 9 classes, the default is 5; pass num_classes=9 to load its "
        r"head, num_classes=5 for a new one",
    ):
        tinynet(weights=tmp_path / "own.pth")
    assert_same(tinynet(weights=tmp_path / "own.pth", num_classes=9), state)
    model = tinynet(weights=tmp_path / "own.pth", num_classes=3)
    assert model.load_report.new == ("aux.weight", "aux.bias", "fc.weight", "fc.bias")
    assert torch.equal(model.conv.weight, state["conv.weight"])


def test_local_half_precision(tmp_path: Path) -> None:
    torch.save(TinyNet(4).half().state_dict(), tmp_path / "half.pth")
    model = tinynet(weights=tmp_path / "half.pth")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_copy_of_a_published_file(
    server: Server, weights: Weights, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / weights.file_name).write_bytes(server.body)
    model = tinynet(weights=tmp_path / weights.file_name, aux_logits=False)
    assert model.load_report.dropped == ("aux.weight", "aux.bias")
    assert FINISHED.pop()[1] == weights
    assert server.requests == 0
    assert not cache.exists()


class Mine:
    """What a pickle may hold and no file of weights should."""


def test_what_is_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"state_dict": TinyNet(4).state_dict(), "args": Mine()}, path)
    with pytest.raises(
        ZooError, match=r"own.pth holds Python objects beside tensors, which are ne"
    ):
        tinynet(weights=path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ZooError, match=r"own.pth holds no state dict; save model.state_dict\(\)"):
        tinynet(weights=path)
    path.write_text("<html>not found</html>")
    with pytest.raises(ZooError, match=r"own.pth is damaged or no file of weights; replace it"):
        tinynet(weights=path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("fc.bias"), "it lacks fc.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "it has too many: extra"),
        (
            lambda s: s.update({"conv.bias": torch.zeros(7)}),
            r"conv.bias is \(7,\), expected \(4,\)",
        ),
        (lambda s: [s.pop(k) for k in list(s) if "bn" not in k], "it lacks .* and 3 more"),
    ],
)
def test_loading_is_strict(change: Any, text: str, weights: Weights, cache: Path) -> None:
    state = TinyNet(4).state_dict()
    change(state)
    cache.mkdir(parents=True)
    torch.save(state, cache / weights.file_name)
    for options in ({}, {"num_classes": 3}, {"aux_logits": False}):
        with pytest.raises(ZooError, match=rf"{weights.file_name} does not fit tinynet: {text}"):
            tinynet(pretrained=True, **options)


def test_new_head_and_dropped_one(
    server: Server, weights: Weights, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lightning_zoo"):
        model = tinynet(pretrained=True, num_classes=3, aux_logits=False)
    assert model.aux is None
    report = model.load_report
    assert report == LoadReport(
        model="tinynet",
        source=cache / weights.file_name,
        copied=tuple(k for k in model.state_dict() if not k.startswith("fc")),
        new=("fc.weight", "fc.bias"),
        dropped=("aux.weight", "aux.bias"),
    )
    assert caplog.messages[-1] == (
        f"tinynet: 7 tensors copied from {weights.file_name}, 2 new: fc.weight, fc.bias, "
        "2 dropped: aux.weight, aux.bias"
    )
    assert report.table().splitlines()[:4] == [
        f"tinynet from {cache / weights.file_name}",
        "new      fc.weight",
        "new      fc.bias",
        "dropped  aux.weight",
    ]
    assert len(report.table().splitlines()) == 12


# ---------------------------------------------------------------------------------------------
# Arguments


def test_signature() -> None:
    parameters = inspect.signature(ownnet).parameters
    names = ["pretrained", "progress", "weights", "width", "num_classes", "aux_logits"]
    assert list(parameters) == names
    assert parameters["weights"].annotation == str | Path | None
    assert parameters["num_classes"].annotation is int
    assert inspect.signature(ownnet).return_annotation is TinyNet
    assert ownnet.__doc__ == "Network that is in no registry."
    assert ownnet(width=8, num_classes=2).fc.weight.shape == (2, 8)


def test_own_model_has_no_published_weights(tmp_path: Path) -> None:
    for kwargs in ({"pretrained": True}, {"weights": "DEFAULT"}):
        with pytest.raises(ZooError, match="no published weights for ownnet; pass a file of your"):
            ownnet(**kwargs)
    save(tmp_path / "own.pth", TinyNet(8))
    assert len(ownnet(weights=tmp_path / "own.pth", width=8).load_report.copied) == 11


def test_nothing_published(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = hub.registry()["classification", "tinynet"]
    bare = replace(entry, weights={}, pretrained=None, default=None)
    monkeypatch.setattr(hub, "registry", lambda: {("classification", "tinynet"): bare})
    with pytest.raises(ZooError, match="no published weights for tinynet; train it with: python"):
        tinynet(pretrained=True)
    only_named = replace(entry, pretrained=None)
    monkeypatch.setattr(hub, "registry", lambda: {("classification", "tinynet"): only_named})
    with pytest.raises(ZooError, match="pretrained=True is not defined for tinynet; pass weights="):
        tinynet(pretrained=True)


def test_pretrained_and_weights(weights: Weights, tmp_path: Path) -> None:
    assert tinynet(pretrained=True, weights="V1").load_report
    assert tinynet(pretrained=True, weights="DEFAULT").load_report
    path = tmp_path / "own.pth"
    save(path, TinyNet(4))
    with pytest.raises(
        ZooError, match=r"tinynet: pretrained=True loads V1 but weights='.*own.pth'; pass one of"
    ):
        tinynet(pretrained=True, weights=path)


def test_unknown_weights(weights: Weights) -> None:
    with pytest.raises(ZooError, match=r"unknown weights of tinynet 'V2'; did you mean V1\?"):
        tinynet(weights="V2")
    for path in ("nowhere/own.pth", "own.ckpt", Path("V2")):
        with pytest.raises(ZooError, match=f"weights='{path}' is neither a file nor a name of"):
            tinynet(weights=path)
    with pytest.raises(TypeError, match="tinynet: weights is a name or a path, not int"):
        tinynet(weights=3)
    with pytest.raises(TypeError, match="tinynet: pretrained is True or False, not 'V1'"):
        tinynet("V1")
    with pytest.raises(TypeError, match=r"tinynet\(\) has no argument 'nam_classes'; did you mea"):
        tinynet(nam_classes=3)
