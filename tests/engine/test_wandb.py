"""W&B without key and network: the offline file is read back."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_zoo as lz
from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
from lightning_zoo.loggers.wandb import can_go_online

BLOCK = 32768


def records(path: Path) -> Iterator[Any]:
    """Yield the records of an offline file: a LevelDB log of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    data, at, held = path.read_bytes(), 7, b""
    assert data[:4] in (b"", b":W&B")
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            at += left
            continue
        if at + 7 + length > len(data):
            return  # not yet written to its end
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            held = b""
            yield record


def whole_file(path: Path) -> list[Any]:
    """Return all records, once W&B's own process has written the last: it may lag behind."""
    deadline = time.monotonic() + 120
    while True:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < deadline, f"only {len(found)} records, no end"
        time.sleep(0.1)


def test_offline_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked a question"))
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=12, size=40)
    changes = {
        "data.root": str(tmp_path / "data"),
        "data.workers": 0,
        "data.albumentations": None,
        "data.train_crop": 32,
        "data.eval_resize": 32,
        "data.eval_crop": 32,
        "model.model": "squeezenet1_1",
        "batch": {"size": 4, "per_device": 4},
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
    }
    result = lz.fit("finetune_resnet18", changes, out=tmp_path / "runs", loggers=["csv", "wandb"])
    (file,) = result.run.glob("wandb/offline-run-*/run-*.wandb")
    history: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    artifacts, run_id = [], ""
    for record in whole_file(file):
        match record.WhichOneof("record_type"):
            case "run":
                run_id = record.run.run_id
                for item in record.run.config.update:
                    config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            case "config":
                for item in record.config.update:
                    config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            case "history":
                for item in record.history.item:
                    name = item.key or ".".join(item.nested_key)
                    history.setdefault(name, []).append(json.loads(item.value_json))
            case "artifact":
                artifacts.append(record.artifact)
    assert config["batch"] == {"size": 4, "per_device": 4}
    assert config["model"]["init_args"]["num_classes"] == 3
    assert len(history["train/loss"]) == 6
    assert len(history["val/acc@1"]) == 2
    assert history["val/acc@1"][-1] == pytest.approx(result.metrics["val/acc@1"])
    rates = history["lr"]
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)  # warm-up, then a cosine
    assert all(rate > 0 for rate in history["images/s"])
    pictures = [name for name in history if name.startswith("val/predictions")]
    assert pictures
    folder = file.parent / "files" / "media" / "images"
    images = sorted(folder.rglob("*.png"))
    assert len(images) >= 8
    captions = json.dumps({name: history[name] for name in pictures})
    assert "truth: " in captions
    (artifact,) = artifacts
    assert artifact.type == "model"
    names = {entry.path for entry in artifact.manifest.contents}
    assert names == {"best.ckpt", "recipe.yaml"}
    assert json.loads((result.run / "run.json").read_text())["wandb_id"] == run_id


def test_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: refused
    start = time.monotonic()
    assert not can_go_online()
    assert time.monotonic() - start < 10
