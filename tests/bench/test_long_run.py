"""The long run's benchmark says what it promises; its judgement is told by made-up samples."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from lightning_zoo.bench.long_run import Sample, family, judge, long_run_benchmark, theil_sen
from lightning_zoo.errors import ZooError


def test_slope() -> None:
    rng = random.Random(0)
    x = list(range(0, 4000, 100))
    y = [300 + 0.002 * at + rng.uniform(-0.5, 0.5) for at in x]
    for i in range(0, len(y), 4):
        y[i] += 200  # what a save or a validation takes for a while
    assert theil_sen(x, y) == pytest.approx(0.002, rel=0.1)
    assert theil_sen([0, 1, 1, 2], [5, 5, 9, 5]) == 0


def samples(mb_per_1000_steps: float = 0.0, files: int = 0, processes: int = 0) -> list[Sample]:
    """Return samples of 5,000 steps that take much memory at first, then what is asked for."""
    return [
        Sample(
            step,
            int(1e6 * (min(300, step) + mb_per_1000_steps * step / 1000)),
            int(1e6 * (100 + 2 * step / 1000)),
            40 + files * step // 5000,
            5 + processes * step // 5000,
        )
        for step in range(0, 5001, 50)
    ]


def test_judgement() -> None:
    row = judge(samples(), 5000)
    assert row == {
        "samples": 81, "mb_per_1000_steps": 0.0, "mb_once_per_1000_steps": 2.0,
        "mb_at_start": 300.0, "mb_once_at_start": 102.8, "files_at_start": 40,
        "processes_at_start": 5, "mb_at_end": 300.0, "mb_once_at_end": 109.2, "files_at_end": 40,
        "processes_at_end": 5, "goal": 1.0, "reached": True,
    }  # fmt: skip
    assert judge(samples(0.9), 5000)["reached"]
    leak = judge(samples(1.1), 5000)
    assert leak["mb_per_1000_steps"] == pytest.approx(1.1)
    assert not leak["reached"]
    assert not judge(samples(files=5), 5000)["reached"]
    assert not judge(samples(processes=5), 5000)["reached"]
    with pytest.raises(ZooError, match=r"looked at only 3 times; take more --steps"):
        judge(samples()[:23], 5000)
    with pytest.raises(ZooError, match="--steps is 3; expected a whole number of at least 10"):
        next(long_run_benchmark(3))


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux")
def test_family() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        while len(found := family(process.pid)) < 2:
            assert process.poll() is None
        assert found[0] == process.pid
        assert set(found) < set(family(os.getpid()))
        process.communicate(b"\n")
    assert process.pid not in family(os.getpid())


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_a_short_run() -> None:
    (row,) = long_run_benchmark(100, steps_per_epoch=50, workers=1, pause=0.02)
    assert json.loads(json.dumps(row)) == row
    assert (row["benchmark"], row["steps"], row["workers"]) == ("long_run", 100, 1)
    # the run, and a worker of each loader
    assert row["processes_at_start"] in (2, 3)
    assert row["files_at_start"] > 3 * row["processes_at_start"]
    assert 50 < row["mb_once_at_start"] < row["mb_at_start"]
