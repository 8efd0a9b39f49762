"""Exported networks as files: written whole or not at all, and read back."""

from __future__ import annotations

import contextlib
import copyreg
import io
import json
import logging
import os
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lightning_zoo import programs
from lightning_zoo.errors import ZooError

FACTS = "lightning_zoo"
"""Where the facts stand: ONNX metadata of this name, in a ``.pt2`` the extra file of it, JSON."""

Network = Callable[[Tensor], dict[str, Tensor]]


def need_extra() -> None:
    """Import what writes ONNX.

    Raises:
        ZooError: If the extra is not installed.
    """
    # onnxruntime reports to its makers over the network, even after disable_telemetry_events()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ZooError(
            f"--format onnx needs {error.name}: pip install 'lightning_zoo[export]' "
            "(--format pt2 needs nothing more)"
        ) from None
    del onnx, onnxruntime, onnxscript


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hold back what the exporter says of itself on every run."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # "torchvision is not installed": nor is it wanted
    try:
        with warnings.catch_warnings():
            # torch copies its own tree specs while it decomposes
            warnings.filterwarnings(
                "ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning, copyreg.__name__
            )
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def write_pt2(program: ExportedProgram, path: Path, facts: dict[str, Any]) -> None:
    """Write a graph as torch keeps it; what belongs to it goes along as JSON."""
    program._example_inputs = None  # pixels that nobody needs
    written = io.BytesIO()
    with quietly():
        torch.export.save(program, written, extra_files={FACTS: json.dumps(facts)})
    with _replacing(path) as part:
        part.write_bytes(written.getvalue())


def write_onnx(program: Any, path: Path, facts: dict[str, Any]) -> None:
    """Write a ``torch.onnx.ONNXProgram``, the facts among its metadata."""
    program.model.metadata_props[FACTS] = json.dumps(facts)
    program.model.producer_name = FACTS
    program.model.producer_version = facts["lightning_zoo"]
    with _replacing(path) as part:
        program.save(part)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; what is there afterwards takes the file's place."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise ZooError(
            f"cannot write {path}: {error.strerror or error}; choose another file with --out"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Return an exported network and its facts; ONNX is run by onnxruntime, on the CPU.

    Args:
        path: A file of ``python -m lightning_zoo export``.

    Returns:
        A function that takes one uint8 tensor and returns tensors by name, and what the file says
        of itself (``classes``, ``thresholds``, ``mean`` ...).

    Raises:
        ZooError: If there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(
            f"there is no file {path}; python -m lightning_zoo export RUN --format onnx makes one"
        )
    return _load_pt2(path) if zipfile.is_zipfile(path) else _load_onnx(path)


def _damaged(path: Path, kind: str) -> ZooError:
    return ZooError(
        f"{path} is damaged or no {kind} file of lightning_zoo; make it anew: "
        "python -m lightning_zoo export RUN_OR_MODEL --format onnx"
    )


def _refused(path: Path, why: object) -> ZooError:
    return ZooError(
        f"{path} holds more than a network, and is not loaded: {why}; make it anew: "
        "python -m lightning_zoo export RUN_OR_MODEL"
    )


def _load_pt2(path: Path) -> tuple[Network, dict[str, Any]]:
    import lightning_zoo.ops  # noqa: F401  defines the operations of detectors

    try:
        import torch.ao.quantization.fx._decomposed  # noqa: TID251  defines those of INT8

        with quietly():
            program, facts = programs.load(path, FACTS)
    except programs.NotPlainError as error:
        raise _refused(path, error) from None
    except Exception:
        raise _damaged(path, "pt2") from None
    module = program.module(check_guards=False)

    def run(pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return module(pixels)

    return run, facts


def _outside(model: Any) -> str:
    """Say what an ONNX model takes from beside itself, "" if nothing."""
    import onnx

    ours = {"", "ai.onnx", *(function.domain for function in model.functions)}
    graphs = [model.graph, *model.functions]
    tensors: list[Any] = []
    while graphs:
        graph = graphs.pop()
        tensors += getattr(graph, "initializer", ())  # functions have none
        for sparse in getattr(graph, "sparse_initializer", ()):
            tensors += (sparse.values, sparse.indices)
        for node in graph.node:
            if node.domain not in ours:
                return f"an operation of {node.domain!r}"
            for attribute in node.attribute:
                tensors += (attribute.t, *attribute.tensors)
                graphs += [g for g in (attribute.g, *attribute.graphs) if g.node or g.initializer]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return f"the values of {tensor.name!r} are in another file"
    return ""


def _load_onnx(path: Path) -> tuple[Network, dict[str, Any]]:
    need_extra()
    import onnx
    import onnxruntime

    try:
        model = onnx.load(str(path), load_external_data=False)
        if outside := _outside(model):
            raise _refused(path, outside)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),  # what was looked at, whatever becomes of the file
            providers=["CPUExecutionProvider"],
            # a few bytes can ask for gigabytes of constants to be computed while it is read
            disabled_optimizers=["ConstantFolding"],
        )
        facts = json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
    except ZooError:
        raise
    except Exception:
        raise _damaged(path, "ONNX") from None
    (pixels_name,) = [one.name for one in session.get_inputs()]
    names = [one.name for one in session.get_outputs()]

    def run(pixels: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {pixels_name: pixels.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run, facts
