from __future__ import annotations

import pytest
import torch

from lightning_zoo.bench import ops


def test_rows_have_ratio_and_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "NMS_GOALS", {20: 3.0, 50: None})
    monkeypatch.setattr(ops, "ROI_SHAPES", ((6, 3, 2, 10, 12, 8),) * 2)
    monkeypatch.setattr(ops, "CHANNELS", 4)
    monkeypatch.setattr(ops, "BUSY_BOXES", 50)
    threads = torch.get_num_threads()
    rows = list(ops.ops_benchmark(repeats=1))
    assert torch.get_num_threads() == threads
    assert len(rows) == 2 + 3 + 2
    assert all(row["benchmark"] == "ops" for row in rows)
    assert "goal" in rows[0]
    assert "goal" not in rows[1]
    assert {row["against"] for row in rows} in ({"torchvision"}, {"greedy loop", "grid_sample"})
    assert all(row["growth"] > 0 for row in rows[-2:])


def test_references_compute_the_same() -> None:
    boxes, scores = ops._boxes(200, True)
    kept = ops._greedy_nms(boxes, scores, 0.5)
    assert torch.equal(kept, ops.nms(boxes, scores, 0.5))
    features = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0, 2, 3, 12, 15], [1, 5, 5, 9, 19.0]])
    got = ops._grid_roi_align(features, rois, 7, 1.0, 2, False)
    torch.testing.assert_close(got, ops.roi_align(features, rois, 7, 1.0, 2), rtol=0, atol=1e-4)
