from __future__ import annotations

import pytest

from lightning_zoo.bench.int8 import GOALS, int8_benchmark
from lightning_zoo.models.registry import registry

pytest.importorskip("torchao", reason="quantizing needs the extra int8")


def test_goals_are_of_models() -> None:
    assert all(("classification", name) in registry() for name in GOALS)


@pytest.mark.slow
def test_two_rows_a_network() -> None:
    rows = list(int8_benchmark(1, names=["squeezenet1_1"]))
    assert [row["shape"] for row in rows] == [[1, 3, 224, 224], [8, 3, 224, 224]]
    for row in rows:
        assert row["onednn_speedup"] > 0
        assert row["threads"] == 1
