"""The benchmark of INT8 networks runs, and says what it promises."""

from __future__ import annotations

import pytest
import torch

from lightning_zoo.bench import quantization
from lightning_zoo.models.quantization.eager import supported_engines


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "has_torchvision", lambda: False)
    monkeypatch.setattr(quantization, "BATCHES", (1,))
    setting = torch.backends.quantized.engine
    rows = list(quantization.quantization_benchmark(1, names=["shufflenet_v2_x0_5"]))
    assert torch.backends.quantized.engine == setting
    assert [row["engine"] for row in rows] == supported_engines()
    for row in rows:
        assert (row["benchmark"], row["model"]) == ("quantization", "shufflenet_v2_x0_5")
        assert (row["batch"], row["threads"]) == (1, 1)
        assert row["speedup"] > 0
        assert row["ours_ms"] > 0
        assert "ratio" not in row
