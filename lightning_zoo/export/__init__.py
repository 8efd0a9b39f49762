"""A trained network as one file that other programs run: ONNX, or torch's own ``.pt2``.

Normalising and, of detectors, resizing are inside; class names, thresholds and sizes travel with
it. ``load`` reads both kinds of file back, and both are then called alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_zoo.export.check import Checked, Row, check
    from lightning_zoo.export.export import Exported, export_run
    from lightning_zoo.export.files import load

__all__ = ["FORMATS", "Checked", "Exported", "Row", "check", "export_run", "load"]

FORMATS = {
    "onnx": "for onnxruntime and whatever else reads ONNX",
    "pt2": "for torch.export.load",
}
"""Kinds of file by the ending of their names."""

_HOME = {
    "Checked": "check", "Exported": "export", "Row": "check", "check": "check",
    "export_run": "export", "load": "files",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
