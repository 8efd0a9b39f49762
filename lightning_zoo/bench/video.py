"""Networks of clips against torchvision's: one clip of 16 x 112 x 112, two to train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_zoo.bench.networks import Subject, benchmark


def loss(logits: Tensor) -> Tensor:
    """Return the loss of labels 0, 1 and so on."""
    return cross_entropy(logits, torch.arange(len(logits)))


SUBJECT = Subject(
    task="video",
    build_args=lambda name: {},
    evaluation=(1, 3, 16, 112, 112),
    training=(2, 3, 16, 112, 112),
    loss=loss,
    memory_format=torch.channels_last_3d,
)


def video_benchmark(
    repeats: int = 3, *, threads: int | None = None, names: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield two rows a network: seconds of a clip, and of a training step.

    Args:
        repeats: Measurements of each side, which take turns; the least counts.
        threads: Threads of torch; None leaves them as they are.
        names: Networks; None takes all published ones.
    """
    yield from benchmark(SUBJECT, repeats, threads=threads, names=names)
