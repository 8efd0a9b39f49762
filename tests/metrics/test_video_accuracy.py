"""Accuracy of clips and videos: by hand, against a slow formula, over ranks, at the edges."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_zoo.metrics import VideoAccuracy

ROOT = Path(__file__).resolve().parents[2]
NOTHING = (torch.zeros(0, 9), torch.zeros(0).long(), [], torch.zeros(0).long())
Clips = tuple[Tensor, Tensor, list[str], Tensor]


def sample(seed: int, videos: int = 12, classes: int = 9) -> Clips:
    """Return clips of several videos, one to five of each, in a random order."""
    rng = torch.Generator().manual_seed(seed)
    keys = [(v, c) for v in range(videos) for c in range(1 + v % 5)]
    order = torch.randperm(len(keys), generator=rng).tolist()
    truth = torch.randint(classes, (videos,), generator=rng)
    labels = torch.stack([truth[keys[i][0]] for i in order])
    logits = torch.randn(len(keys), classes, generator=rng)
    logits[torch.arange(len(keys)), labels] += 1
    ids = [f"val/{keys[i][0]}.mp4" for i in order]
    return logits.softmax(dim=1), labels, ids, torch.tensor([keys[i][1] for i in order])


def pick(clips: Clips, places: list[int]) -> Clips:
    probs, labels, ids, numbers = clips
    return probs[places], labels[places], [ids[i] for i in places], numbers[places]


def figures(metric: VideoAccuracy) -> dict[str, float]:
    found = metric.compute()
    assert {value.dtype for value in found.values()} == {torch.float64}
    return {name: float(value) for name, value in found.items()}


def measure(*batches: Clips, topk: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    metric = VideoAccuracy(topk)
    for batch in batches:
        metric.update(*batch)
    return figures(metric)


def slow(clips: Clips, k: int) -> tuple[float, float]:
    """Return per cent of clips and of videos with fewer than k classes above the label's."""
    probs, labels, ids, _ = clips

    def right(row: list[float], label: int) -> bool:
        return sum(p > row[label] for p in row) < k

    hits = [right(row, int(label)) for row, label in zip(probs.tolist(), labels, strict=True)]
    videos = []
    for name in set(ids):
        rows = [probs[i].tolist() for i in range(len(ids)) if ids[i] == name]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        videos.append(right(mean, int(labels[ids.index(name)])))
    return 100 * sum(hits) / len(hits), 100 * sum(videos) / len(videos)


def test_worked_by_hand() -> None:
    probs = torch.tensor(
        [
            [0.6, 0.4, 0.0],  # video a, label 1: wrong
            [0.1, 0.9, 0.0],  # video a: right; the mean is 0.35, 0.65, 0
            [0.5, 0.3, 0.2],  # video b, label 0: right
            [0.1, 0.2, 0.7],  # video b: wrong; the mean is 0.3, 0.25, 0.45
            [0.2, 0.5, 0.3],  # video c, label 2: wrong
        ]
    )
    batch = probs, torch.tensor([1, 1, 0, 0, 2]), list("aabbc"), torch.tensor([0, 1, 0, 1, 0])
    found = measure(batch, topk=(1, 2))
    third = pytest.approx(100 / 3)
    assert found == {"clip_acc@1": 40.0, "clip_acc@2": 80.0, "acc@1": third, "acc@2": 100.0}


@pytest.mark.parametrize("seed", range(3))
def test_slow_formula(seed: int) -> None:
    clips = sample(seed)
    found = measure(clips, topk=(1, 3, 5))
    for k in (1, 3, 5):
        assert (found[f"clip_acc@{k}"], found[f"acc@{k}"]) == pytest.approx(slow(clips, k))


@pytest.mark.parametrize("seed", range(3))
def test_order_batches_and_repeats_change_nothing(seed: int) -> None:
    clips = sample(seed)
    count = len(clips[2])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [order[:1], order[1:20], order[20:], order[5:9]]
    assert measure(*(pick(clips, part) for part in parts)) == measure(clips)


def test_the_first_of_two_clips_stays() -> None:
    right, wrong = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.9, 0.1]])
    label, number = torch.tensor([1]), torch.tensor([3])
    one, other = (right, label, ["a"], number), (wrong, label, ["a"], number)
    assert measure(one, other)["clip_acc@1"] == 100
    assert measure(other, one)["acc@1"] == 0


def test_videos_count_once_however_many_clips_they_have() -> None:
    probs = torch.tensor([[0.9, 0.1]] * 9 + [[0.2, 0.8]])
    labels = torch.zeros(10, dtype=torch.int64)
    found = measure((probs, labels, ["long"] * 9 + ["short"], torch.arange(10)))
    assert found["clip_acc@1"] == 90
    assert found["acc@1"] == 50


def test_ties_have_one_winner() -> None:
    labels = torch.arange(6)
    clips = torch.full((6, 6), 1 / 6), labels, list("abcdef"), torch.zeros(6, dtype=torch.int64)
    found = measure(clips, topk=(1, 2))
    assert found["clip_acc@1"] == found["acc@1"] == pytest.approx(100 / 6)
    assert found["clip_acc@2"] == found["acc@2"] == pytest.approx(200 / 6)


def test_fewer_classes_than_k() -> None:
    assert measure(sample(0, classes=3))["acc@5"] == 100


def test_nan_and_half_precision() -> None:
    clips = torch.eye(8, dtype=torch.bfloat16), torch.arange(8), list("aabbccdd"), torch.arange(8)
    clips[0][0, 0] = math.nan
    found = measure(clips, topk=(1, 8))
    assert found["clip_acc@1"] == 87.5
    assert found["clip_acc@8"] == 87.5
    assert found["acc@8"] == 75.0, "a video with NaN in a clip is wrong"


def test_no_clip() -> None:
    for found in (measure(), measure(NOTHING)):
        assert set(found) == {"clip_acc@1", "clip_acc@5", "acc@1", "acc@5"}
        assert all(math.isnan(value) for value in found.values())


def test_reset() -> None:
    metric = VideoAccuracy()
    metric.update(*sample(0))
    metric.reset()
    metric.update(*sample(1))
    assert figures(metric) == measure(sample(1))


SCRIPT = """
import json, sys
from pathlib import Path
import torch.distributed as dist
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_video_accuracy import VideoAccuracy, figures, pick, sample

rank, folder = int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
clips = sample(11)
count = len(clips[2])
metric = VideoAccuracy()
shares = [list(range(0, count, 3)), [i for i in range(count) if i % 3 or i < 6]]
metric.update(*pick(clips, shares[rank]))  # videos lie on both, two clips too
found = [figures(metric)]
metric.reset()
if rank == 0:  # the other has none
    metric.update(*clips)
found.append(figures(metric))
(folder / f"{rank}.json").write_text(json.dumps(found))
dist.destroy_process_group()
"""


def test_two_processes(tmp_path: Path) -> None:
    """Two processes say, both, what one process says, to the last bit."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(2):
        command = [sys.executable, str(script), __file__, str(rank), str(tmp_path)]
        running.append(subprocess.Popen(command, env=environment, cwd=tmp_path))
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    whole = measure(sample(11))
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [whole, whole]
