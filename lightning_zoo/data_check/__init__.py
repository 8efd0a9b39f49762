"""Looking at one's own data before training: what is wrong with it, and pictures of its labels.

check.py report.py summary.py     the check, what it found as text and JSON, figures of the data
looking.py files.py videos.py     every file read once; broken, rotated, odd and huge ones
objects.py mask_files.py          boxes, masks and keypoints of objects; masks in files
classes.py duplicates.py          balance and splits of classes; the same picture twice
show.py augmented.py              labels, and the training batch of a recipe, drawn
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_zoo.data_check.check import check_data
    from lightning_zoo.data_check.report import CheckReport
    from lightning_zoo.data_check.show import show_data

# drawing needs torch, checking boxes and labels does not
_HOMES = {"CheckReport": "report", "check_data": "check", "show_data": "show"}

__all__ = ["CheckReport", "check_data", "show_data"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
