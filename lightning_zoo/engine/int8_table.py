"""What quantizing costs and gains: accuracy, size and latency of networks, side by side."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.batch import counted
from lightning_zoo.timing import timed, torch_threads

Logits = Callable[[Tensor], Tensor]

BATCHES = (1, 8)  # whose latency is measured
ROUNDS, LEAST, SECONDS = 60, 10, 30.0  # of each batch size; a slow network has fewer rounds
SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True)
class Latency:
    """How long a batch takes, in milliseconds.

    Attributes:
        batch: Images at once.
        median: Half of the passes were as quick.
        p95: 95 in 100 were.
    """

    batch: int
    median: float
    p95: float


@dataclass(frozen=True)
class Row:
    """One network as one engine runs it.

    Attributes:
        network: ``fp32`` or ``int8``.
        engine: What computes it.
        metrics: Accuracies on the validation split, in per cent.
        size_mb: Size of the file in MB, of 10^6 bytes.
        latencies: One for each batch size.
    """

    network: str
    engine: str
    metrics: dict[str, float]
    size_mb: float
    latencies: tuple[Latency, ...]


@dataclass(frozen=True)
class Candidate:
    """A network that is measured.

    Attributes:
        network: ``fp32`` or ``int8``.
        engine: What computes it.
        logits: Returns float logits ``(N, C)`` for normalised images ``(N, 3, H, W)``.
        size_mb: Size of its file in MB.
    """

    network: str
    engine: str
    logits: Logits
    size_mb: float


def measure(
    candidates: Sequence[Candidate], task: Any, loader: Any, *, side: int, threads: int
) -> list[Row]:
    """Return a row for each network.

    Args:
        candidates: What is measured.
        task: Classification task, which normalises images and brings the metric.
        loader: Batches of the validation split.
        side: Side in pixels of the images whose latency is measured.
        threads: Threads of the latencies; accuracies take as many as torch has.
    """
    with torch.inference_mode():
        found = accuracies(candidates, task, loader)
        print("timing them, in turns", flush=True)  # noqa: T201
        took = latencies(candidates, side=side, threads=threads)
    return [
        Row(one.network, one.engine, metrics, one.size_mb, times)
        for one, metrics, times in zip(candidates, found, took, strict=True)
    ]


def accuracies(candidates: Sequence[Candidate], task: Any, loader: Any) -> list[dict[str, float]]:
    """Return each network's accuracies in per cent, all from one pass over the images."""
    metrics = [task.new_metric() for _ in candidates]
    start, shown = time.monotonic(), time.monotonic()
    for n, batch in enumerate(loader, 1):
        images, labels = task.prepare(batch["image"]), batch["label"]
        for one, metric in zip(candidates, metrics, strict=True):
            metric.update(one.logits(images).float(), labels.long())
        if n < len(loader) and time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            left = (shown - start) / n * (len(loader) - n) / 60
            print(f"measured {n}/{len(loader)} batches, {left:.0f} min left", flush=True)  # noqa: T201
    results = [metric.compute() for metric in metrics]
    named = [found if isinstance(found, dict) else {"map": 100 * found} for found in results]
    return [{name: float(value) for name, value in found.items()} for found in named]


def latencies(
    candidates: Sequence[Candidate], *, side: int, threads: int
) -> list[tuple[Latency, ...]]:
    """Return each network's latencies; the networks take turns, so that a busy moment hits all."""
    rows: list[list[Latency]] = [[] for _ in candidates]
    with torch_threads(threads):
        for batch in BATCHES:
            images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
            work = {
                i: (lambda one=one, images=images: one.logits(images))
                for i, one in enumerate(candidates)
            }
            for i, seconds in timed(work, ROUNDS, seconds=SECONDS, least=LEAST).items():
                p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
                rows[i].append(Latency(batch, 1e3 * statistics.median(seconds), 1e3 * p95))
    return [tuple(row) for row in rows]


def file_size_mb(network: nn.Module) -> float:
    """Return the size in MB that a network's state dict has as a file."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.tell() / 1e6


def format_rows(rows: Sequence[Row]) -> str:
    """Return the table as text; ``speed`` is how many times as fast as fp32 a row is."""
    figures = list(rows[0].metrics)
    speeds = rows[0].network == "fp32"
    head = ["network", "engine", *figures, "MB"]
    for latency in rows[0].latencies:
        head += [f"batch {latency.batch}, ms", "p95", *(["speed"] if speeds else [])]
    lines = [head]
    for row in rows:
        cells = [row.network, row.engine, *(f"{row.metrics[name]:.2f}" for name in figures)]
        cells.append(f"{row.size_mb:.2f}")
        for first, own in zip(rows[0].latencies, row.latencies, strict=True):
            cells += [f"{own.median:.1f}", f"{own.p95:.1f}"]
            if speeds:
                cells.append(f"{first.median / own.median:.2f}x")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def as_json(rows: Sequence[Row], threads: int, side: int) -> dict[str, Any]:
    """Return the table as plain data."""
    return {
        "threads": threads,
        "image": [side, side],
        "rows": [
            {
                "network": row.network,
                "engine": row.engine,
                **row.metrics,
                "size_mb": round(row.size_mb, 3),
                "latency_ms": {
                    f"batch {one.batch}": {"median": round(one.median, 3), "p95": round(one.p95, 3)}
                    for one in row.latencies
                },
            }
            for row in rows
        ],
    }


def describe(threads: int, side: int) -> str:
    """Return a sentence on how the table came about."""
    return (
        f"accuracy in per cent of the validation split, size in MB; latency of images of "
        f"{side} x {side} pixels on {counted(threads, 'CPU thread')}: median and 95th percentile"
    )
