"""A W&B server that is away, slow or broken: the run is the same, and does not wait for it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from wandb_files import values, whole_file
from wandb_server import KEY, Server, run_trials, serve

from lightning_zoo.datamodules.image_folder import ImageFolderDataModule

# how the server behaves, and how from the first row of figures on
QUICK = ["good", "401", "silent", "good then 500"]
SLOW = [
    "500", "slow", "drop", "away", "tls", "good then silent", "good then drop", "good then slow",
    "good then 401",
]  # fmt: skip
SECONDS_AT_START, SECONDS_AT_END = 5.0, 30.0


@contextlib.contextmanager
def address(manner: str, servers: dict[str, Server]) -> Any:
    """Yield the address of a server of this manner."""
    if manner == "away":  # a port that nobody listens on
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{held.getsockname()[1]}"
        return
    with serve(*("silent" if manner == "tls" else manner).split(" then ")) as server:
        servers[manner] = server
        yield server.url.replace("http:", "https:") if manner == "tls" else server.url


def train(
    folder: Path, manners: list[str], shared: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Server]]:
    """Train without W&B, offline, and against a server of each manner.

    Those in ``shared`` find, as in a sweep, that W&B's own process was started by somebody else.
    """
    ImageFolderDataModule.write_fake(folder / "data", classes=3, images=12, size=40)
    servers: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:
        variables: dict[str, dict[str, str]] = {"none": {}, "offline": {}}
        for manner in manners:
            url = stack.enter_context(address(manner, servers))
            variables[manner] = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}
        for manner in shared:
            variables[manner]["WANDB_SERVICE"] = os.environ["WANDB_SERVICE"]
        trials = [
            {
                "name": name,
                "folder": str(folder / name.replace(" ", "_")),
                "loggers": ["csv"] if name == "none" else ["csv", "wandb"],
                "variables": given,
            }
            for name, given in variables.items()
        ]
        return run_trials(folder, trials), servers


def check(name: str, found: dict[str, Any], folder: Path, *, patience: float = 1.0) -> None:
    """Hold one trial against the promises; a busy machine may take ``patience`` times as long."""
    trial, alone = found[name], found["none"]
    assert trial["status"] == 0, trial["stderr"]
    assert trial["weights"] == alone["weights"]
    assert trial["stderr"] == ""
    seconds = trial["seconds"]
    said = [line for line in trial["printed"].splitlines() if line.startswith("W&B")]
    if name == "good":
        assert said == []
        return
    (line,) = said
    print(name, {k: round(v, 1) for k, v in seconds.items()}, line)
    assert "; nothing is lost, send the run later with: wandb sync " in line
    if " then " not in name:
        assert "did not take this run in (" in line
        # what it costs to begin any run depends on how busy the machine is
        begun = found["offline"]["seconds"]["start"]
        assert seconds["in vain"] - begun < patience * (SECONDS_AT_START - 1)
    else:  # W&B syncs a run without an artifact that it could not send
        command = shlex.split(line.split("send it later with: ")[1].split(")")[0])
        assert command[:5] == ["wandb", "artifact", "put", "--type", "model"]
        assert (folder / command[-1]).is_file()
    assert seconds["end"] + seconds["exit"] < patience * SECONDS_AT_END
    # what is to be sent later is whole
    sync = folder / shlex.split(line)[-1]
    (file,) = sync.glob("run-*.wandb")
    rows = [values(record.history.item) for record in whole_file(file) if record.history.item]
    assert [row["train/loss"] for row in rows if "train/loss" in row] != []
    assert [row["val/acc@1"] for row in rows if "val/acc@1" in row] != []
    assert [row for row in rows if "val/predictions" in row] != []
    assert {path.name for path in sync.parent.glob("*run-*")} >= {sync.name}
    assert len(list(sync.parent.glob("*run-*-*"))) == 1  # nothing of the attempt in vain


def test_servers(tmp_path: Path) -> None:
    import wandb

    outer = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True))
    found, servers = train(tmp_path, QUICK, shared=("401",))
    outer.finish()
    for name in QUICK:
        check(name, found, tmp_path, patience=5.0)
    rows = servers["good"].rows
    assert [row["train/loss"] for row in rows if "train/loss" in row]
    assert "CreateArtifact" in servers["good"].asked
    assert not any("otel" in name for server in servers.values() for name in server.asked)


@pytest.mark.slow
def test_more_servers(tmp_path: Path) -> None:
    found, _ = train(tmp_path, SLOW)
    for name in SLOW:
        check(name, found, tmp_path)


def test_a_key_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the environment and in ``~/.netrc``, for this server; without one nobody is asked."""
    from lightning_zoo.loggers.wandb import has_key

    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    address = "https://wandb.example:8443"
    assert not has_key(address)
    (tmp_path / ".netrc").write_text(f"machine wandb.example:8443 login user password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key(address)
    assert not has_key("https://other.example")
    (tmp_path / ".netrc").write_text("machine\n")
    assert not has_key(address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key("https://other.example")
