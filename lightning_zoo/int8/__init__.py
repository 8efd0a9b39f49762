"""INT8 for a person's own classifiers: prepare, calibrate or train, convert, save, run.

    prepared = int8.prepare(network, images)            # qat=True: to be trained
    for images in calibration:
        prepared(images)
    program = int8.convert(prepared)
    fast = int8.lower(program)

Making a program needs torchao (extra ``int8``); loading and running one needs torch alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_zoo.int8.engines import ENGINES, available_engines, lower
    from lightning_zoo.int8.prepared import calibrated, convert, freeze_norms, observe, prepare
    from lightning_zoo.int8.program import load, save

__all__ = [
    "ENGINES",
    "available_engines",
    "calibrated",
    "convert",
    "freeze_norms",
    "load",
    "lower",
    "observe",
    "prepare",
    "save",
]

_FILES = dict.fromkeys(["ENGINES", "available_engines", "lower"], "engines")
_FILES |= dict.fromkeys(["calibrated", "convert", "freeze_norms", "observe", "prepare"], "prepared")
_FILES |= dict.fromkeys(["load", "save"], "program")


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
