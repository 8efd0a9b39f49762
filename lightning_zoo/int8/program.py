"""INT8 programs as files."""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.fx import GraphModule

from lightning_zoo import programs
from lightning_zoo.errors import ZooError
from lightning_zoo.int8.prepared import own, quietly, trace

FACTS = "lightning_zoo.json"


def save(
    program: GraphModule, path: Path | str, *, example: Tensor, facts: Mapping[str, Any]
) -> None:
    """Write a program, all or nothing.

    Anyone reads it with torch alone: ``import torch.ao.quantization.fx._decomposed``, which defines
    its operations, then ``torch.export.load(path).module()``.

    Args:
        program: What :func:`~lightning_zoo.int8.convert` returned.
        path: The file, usually ``.pt2``.
        example: Normalised images ``(N, 3, H, W)``, N >= 2; other sizes are free.
        facts: What belongs to it (class names, mean, crop), as JSON.

    Raises:
        ZooError: If the file cannot be written.
    """
    path = Path(path)
    written = io.BytesIO()
    with quietly():
        exported, _ = trace(program, example)
        exported.example_inputs = None  # images that nobody needs
        torch.export.save(exported, written, extra_files={FACTS: json.dumps(dict(facts))})
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            _compress(written, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}; choose another folder") from None
    finally:
        part.unlink(missing_ok=True)


def _compress(archive: BinaryIO, file: BinaryIO) -> None:
    """Copy an archive with its texts deflated: the graph's is a megabyte, and mostly repetition."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            text = entry.filename.endswith(".json")
            kind = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
            new.writestr(entry, old.read(entry), compress_type=kind)


def load(path: Path | str) -> tuple[GraphModule, dict[str, Any]]:
    """Return a program of :func:`save`, and its facts; it computes the same, bit for bit.

    Raises:
        ZooError: If there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(
            f"there is no INT8 program {path}; python -m lightning_zoo quantize makes one"
        )
    import torch.ao.quantization.fx._decomposed  # noqa: F401  defines such programs' operations

    try:
        with quietly(everything=True):
            exported, facts = programs.load(path, FACTS)
    except programs.NotPlainError as error:
        raise ZooError(
            f"{path} holds more than a network, and is not loaded: {error}; "
            "python -m lightning_zoo quantize makes one"
        ) from None
    except Exception:
        raise ZooError(
            f"{path} is damaged or no INT8 program; python -m lightning_zoo quantize makes one"
        ) from None
    return own(exported.module(check_guards=False)).eval(), facts
