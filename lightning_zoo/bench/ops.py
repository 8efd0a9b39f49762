"""What our ops take, as a share of torchvision's time in the same process.

Where torchvision is not installed they are compared with the plain way to write them: a loop over
boxes for NMS, ``grid_sample`` for RoIAlign.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.ops import box_iou, nms, roi_align

NMS_GOALS = {20: 3.0, 100: 3.0, 200: 3.0, 300: 3.0, 1000: None, 2000: 0.5, 10000: 0.35}
ROI_GOAL = 0.10
BUSY_BOXES = 2000
BUSY_GOAL = 2.0  # a ratio with a busy neighbour, over the same one without
# boxes, side of the output, images, height and width of the map, stride
ROI_SHAPES = (
    (512, 7, 1, 100, 136, 8),
    (1000, 7, 1, 200, 272, 4),
    (128, 14, 2, 100, 136, 8),
    (1024, 7, 2, 50, 68, 16),
)
CHANNELS = 256

Run = Callable[[], object]


def ops_benchmark(repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Yield one JSON-able row a case: milliseconds of both, their ratio, the goal, whether reached.

    Both take turns, on one thread; the best time of each counts, since what disturbs a measurement
    only ever adds to it. The rows ``busy`` run on two threads beside a process that spins, and take
    medians.

    Args:
        repeats: Measurements of the slow cases; fast ones are measured 20 times as often.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _nms_rows(repeats)
        yield from _roi_rows(repeats)
        yield from _busy_rows(repeats)
    finally:
        torch.set_num_threads(threads)


def _reference(op: str) -> tuple[str, Callable[..., Tensor]]:
    try:
        import torchvision  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return ("greedy loop", _greedy_nms) if op == "nms" else ("grid_sample", _grid_roi_align)
    return "torchvision", getattr(torchvision.ops, op)


def _nms_rows(repeats: int) -> Iterator[dict[str, Any]]:
    against, theirs = _reference("nms")
    for count, goal in NMS_GOALS.items():
        rounds = repeats if count > 2000 or against == "greedy loop" else 20 * repeats
        cases: dict[str, float] = {}
        ours_ms, theirs_ms = 0.0, 0.0
        for name, clustered in (("spread", False), ("clustered", True)):
            boxes, scores = _boxes(count, clustered)
            for threshold in (0.5, 0.7):
                args = (boxes, scores, threshold)
                ours_s, theirs_s = _race(partial(nms, *args), partial(theirs, *args), rounds)
                cases[f"{name} {threshold}"] = round(min(ours_s) / min(theirs_s), 3)
                ours_ms += 250 * min(ours_s)
                theirs_ms += 250 * min(theirs_s)
        row = {"op": "nms", "boxes": count, "cases": cases}
        yield _row(row, against, ours_ms, theirs_ms, _geometric(cases.values()), goal)


def _roi_rows(repeats: int) -> Iterator[dict[str, Any]]:
    against, theirs = _reference("roi_align")
    ratios = []
    ours_total, theirs_total = 0.0, 0.0
    for shape in ROI_SHAPES:
        ours_s, theirs_s = _race(*_roi_runs(theirs, shape), repeats)
        ours_ms, theirs_ms = 1000 * min(ours_s), 1000 * min(theirs_s)
        ratios.append(ours_ms / theirs_ms)
        ours_total, theirs_total = ours_total + ours_ms, theirs_total + theirs_ms
        num, side, images, height, width, _ = shape
        name = f"{num} boxes to {side}x{side}, {images} x {height}x{width}x{CHANNELS}"
        row = {"op": "roi_align forward + backward", "shape": name}
        yield _row(row, against, ours_ms, theirs_ms, ratios[-1], None)
    row = {"op": "roi_align forward + backward", "shape": "geometric mean"}
    yield _row(row, against, ours_total, theirs_total, _geometric(ratios), ROI_GOAL)


def _busy_rows(repeats: int) -> Iterator[dict[str, Any]]:
    against, their_nms = _reference("nms")
    their_roi = _reference("roi_align")[1]
    boxes = _boxes(BUSY_BOXES, True)
    races = {
        f"nms, {BUSY_BOXES} clustered boxes": (
            (lambda: nms(*boxes, 0.7), lambda: their_nms(*boxes, 0.7)),
            repeats if against == "greedy loop" else 10 * repeats,
        ),
        f"roi_align, {ROI_SHAPES[0][0]} boxes": (_roi_runs(their_roi, ROI_SHAPES[0]), repeats),
    }
    torch.set_num_threads(2)
    for name, (runs, rounds) in races.items():
        ratios = []
        for busy in (False, True):
            with _spinning() if busy else contextlib.nullcontext():
                ours_s, theirs_s = _race(*runs, rounds)
            ratios.append(statistics.median(ours_s) / statistics.median(theirs_s))
        growth = ratios[1] / ratios[0]
        yield {
            "benchmark": "ops",
            "op": f"{name}, 2 threads, busy neighbour",
            "against": against,
            "idle_ratio": round(ratios[0], 3),
            "busy_ratio": round(ratios[1], 3),
            "growth": round(growth, 2),
            "goal": BUSY_GOAL,
            "reached": growth <= BUSY_GOAL,
        }
    torch.set_num_threads(1)


def _row(
    row: dict[str, Any], against: str, ours: float, theirs: float, ratio: float, goal: float | None
) -> dict[str, Any]:
    row = {"benchmark": "ops"} | row | {"against": against}
    row |= {"ours_ms": round(ours, 3), "theirs_ms": round(theirs, 3), "ratio": round(ratio, 3)}
    return row if goal is None else row | {"goal": goal, "reached": ratio <= goal}


def _race(ours: Run, theirs: Run, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each round, after one to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for run, spent in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            if i:
                spent.append(time.perf_counter() - start)
    return times


def _geometric(ratios: Any) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))


@contextlib.contextmanager
def _spinning() -> Iterator[None]:
    """Keep one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def _boxes(count: int, clustered: bool) -> tuple[Tensor, Tensor]:
    """Return boxes on 1333 x 800 pixels and scores: apart, or 25 around each object."""
    g = torch.Generator().manual_seed(0)
    image = torch.tensor([1333.0, 800.0])
    if clustered:
        objects = max(count // 25, 1)
        centers = torch.rand(objects, 2, generator=g) * image
        sizes = torch.exp(torch.rand(objects, 2, generator=g) * 3 + 2.5)
        pick = torch.randint(0, objects, (count,), generator=g)
        center = centers[pick] + torch.randn(count, 2, generator=g) * sizes[pick] * 0.12
        size = sizes[pick] * torch.exp(torch.randn(count, 2, generator=g) * 0.18)
    else:
        center = torch.rand(count, 2, generator=g) * image
        size = torch.rand(count, 2, generator=g) * 124 + 4
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1)
    boxes = torch.minimum(boxes.clamp(min=0), image.repeat(2))
    return boxes, torch.rand(count, generator=g)


def _roi_runs(theirs: Callable[..., Tensor], shape: tuple[int, ...]) -> tuple[Run, Run]:
    """Return a forward and backward pass of both over the same channels-last features."""
    num, side, images, height, width, stride = shape
    g = torch.Generator().manual_seed(0)
    features = torch.randn(images, CHANNELS, height, width, generator=g)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    size = torch.exp(torch.rand(num, 2, generator=g) * 1.6 + math.log(7.0 * stride))
    center = torch.rand(num, 2, generator=g) * torch.tensor([width, height]) * stride
    index = torch.randint(0, images, (num, 1), generator=g)
    rois = torch.cat([index, center - size / 2, center + size / 2], dim=1)
    grad = torch.randn(num, CHANNELS, side, side, generator=g)
    # each gets the gradient in the layout of its output, as the layer above would give it
    grads = grad.contiguous(memory_format=torch.channels_last), grad

    def run(op: Callable[..., Tensor], grad: Tensor) -> None:
        features.grad = None
        torch.autograd.backward(op(features, rois, side, 1 / stride, 2, False), grad)

    return lambda: run(roi_align, grads[0]), lambda: run(theirs, grads[1])


def _greedy_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    order = scores.sort(stable=True, descending=True).indices
    kept = []
    while len(order):
        kept.append(order[0])
        overlap = box_iou(boxes[order[:1]], boxes[order[1:]])[0]
        order = order[1:][~(overlap > threshold)]
    return torch.stack(kept)


def _grid_roi_align(
    features: Tensor, rois: Tensor, side: int, scale: float, samples: int, aligned: bool
) -> Tensor:
    """RoIAlign of boxes inside the map (border samples differ), all samples of an image at once."""
    height, width = features.shape[2:]
    start, size = rois[:, 1:3] * scale, (rois[:, 3:] - rois[:, 1:3]) * scale
    step = (torch.arange(side * samples) + 0.5) / (side * samples)
    places = start[:, None] + size.clamp(min=1)[:, None] * step[:, None]  # (K, points, 2)
    grid = places / torch.tensor([width - 1, height - 1]) * 2 - 1
    points = side * samples
    out = features.new_empty(len(rois), features.shape[1], side, side)
    for image in range(len(features)):
        index = torch.where(rois[:, 0] == image)[0]
        x, y = grid[index, None, :, 0], grid[index, :, None, 1]
        shape = (len(index), points, points)
        mesh = torch.stack([x.expand(shape), y.expand(shape)], dim=-1).flatten(0, 1)[None]
        sampled = F.grid_sample(
            features[image : image + 1], mesh, padding_mode="border", align_corners=True
        )
        pooled = F.avg_pool2d(sampled, samples).view(-1, len(index), side, side)
        out = out.index_copy(0, index, pooled.transpose(0, 1))
    return out
