"""Writes to W&B without a network, and reads what it wrote."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


def values(items: Any) -> dict[str, Any]:
    """Return keys and values; those of ``a.b`` stand in a dictionary under ``a``."""
    found: dict[str, Any] = {}
    for item in items:
        first, *rest = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if rest:
            found.setdefault(first, {})[".".join(rest)] = value
        else:
            found[first] = value
    return found


class Log:
    """A run with W&B offline, and what was logged once it is closed."""

    def __init__(self, folder: Path) -> None:
        from lightning_zoo.loggers.wandb import wandb_logger

        state = SimpleNamespace(wandb_id=None)
        run: Any = SimpleNamespace(path=folder, state=lambda: state, write_state=lambda s: None)
        self.folder = folder
        self.logger = wandb_logger(run, title="test", config={})

    def close(self) -> dict[str, Any]:
        self.logger.experiment.finish()
        (file,) = self.folder.glob("wandb/offline-run-*/run-*.wandb")
        self.files = file.parent / "files"
        found = whole_file(file)
        self.config: dict[str, Any] = {}
        for record in found:
            self.config |= values(record.config.update)
        (logged,) = (values(r.history.item) for r in found if r.history.item)
        return logged

    def class_labels(self, kind: str) -> list[dict[str, str]]:
        """Return the names that boxes or masks were logged with, of each panel and side."""
        found = self.config["_wandb"][f"{kind}/class_labels"].values()
        return [one["value"] for one in found]
