"""Networks of the registry as files, against torch: a few, with `slow` all of them.

A classifier stands in the test of the command line.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tamed import ENTRIES, tamed

from lightning_zoo.export.export import export_subject, with_check
from lightning_zoo.export.files import load
from lightning_zoo.models.registry import ModelEntry, get_entry

pytest.importorskip("onnxscript", reason="ONNX needs the extra export")
pytest.importorskip("onnxruntime", reason="ONNX needs the extra export")


def proved(entry: ModelEntry, path: Path, format: str = "onnx", **args: object) -> None:
    subject = tamed(entry, **args)
    exported = with_check(subject, export_subject(subject, path, format=format), [])
    checked = exported.checked
    assert checked is not None
    assert checked.passed, f"\n{checked.table()}"
    network, facts = load(path)
    assert facts == exported.facts
    assert facts["model"] == entry.name
    if entry.task == "detection":
        assert checked.found
        blank = torch.zeros(3, 50, 70, dtype=torch.uint8)
        assert set(network(blank)) == set(subject.eager(blank))


def test_a_segmenter(tmp_path: Path) -> None:
    proved(get_entry("fcn"), tmp_path / "a.onnx", backbone="resnet18")


TINY = {
    "backbone": "resnet18", "returned_layers": [2, 3], "fpn_channels": 16, "num_classes": 5,
    "representation_size": 32, "anchor_sizes": [16, 32, 64], "mask_layers": [16],
    "mask_dim_reduced": 16,
}  # fmt: skip


@pytest.mark.parametrize("format", ["onnx", pytest.param("pt2", marks=pytest.mark.slow)])
def test_a_detector(format: str, tmp_path: Path) -> None:
    proved(get_entry("mask_rcnn"), tmp_path / f"a.{format}", format, **TINY)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.full_name)
def test_every_model(entry: ModelEntry, tmp_path: Path) -> None:
    proved(entry, tmp_path / "a.onnx")


def test_there_are_many() -> None:
    assert len(ENTRIES) >= 54
