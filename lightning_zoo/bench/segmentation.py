"""Segmentation networks against torchvision's: one image of 520 x 520, two of 320 x 320 to train.

All have their auxiliary head, where there is one: it is computed in evaluation too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_zoo.bench.networks import Subject, benchmark

CLASSES = 21


def loss(logits: dict[str, Tensor]) -> Tensor:
    """Return the loss of random masks, that of the auxiliary head by half."""
    n, _, height, width = logits["out"].shape
    generator = torch.Generator().manual_seed(1)
    masks = torch.randint(0, CLASSES, (n, height, width), generator=generator)
    masks[:, :20] = 255
    parts = [
        (1.0 if key == "out" else 0.5) * cross_entropy(value, masks, ignore_index=255)
        for key, value in logits.items()
    ]
    return torch.stack(parts).sum()


SUBJECT = Subject(
    task="segmentation",
    build_args=lambda name: {} if name.startswith("lraspp") else {"aux_loss": True},
    evaluation=(1, 3, 520, 520),
    training=(2, 3, 320, 320),
    loss=loss,
    memory_format=torch.channels_last,
)


def segmentation_benchmark(
    repeats: int = 3, *, threads: int | None = None, names: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield two rows a network: seconds of an image, and of a training step.

    Args:
        repeats: Measurements of each side, which take turns; the least counts.
        threads: Threads of torch; None leaves them as they are.
        names: Networks; None takes all published ones.
    """
    yield from benchmark(SUBJECT, repeats, threads=threads, names=names)
