"""Networks that take pixels: normalising before them, probabilities behind them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ClassifierGraph(nn.Module):
    """Probabilities of uint8 images ``(N, 3, H, W)`` or clips ``(N, 3, T, H, W)``.

    Args:
        network: Returns logits ``(N, classes)`` for normalised float32 images.
        mean: Per-channel mean of RGB values in [0, 1].
        std: Per-channel standard deviation.
        multilabel: Whether every class has a probability of its own (sigmoid, not softmax).
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        multilabel: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.multilabel = network, multilabel
        # (x / 255 - mean) / std, as one subtraction and one product
        self.register_buffer("mean", torch.tensor(mean) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255))

    def normalized(self, images: Tensor) -> Tensor:
        """Return uint8 images as the network's float32 ones."""
        per_channel = (1, 3, *[1] * (images.ndim - 2))
        return (images.float() - self.mean.view(per_channel)) * self.scale.view(per_channel)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``probs`` ``(N, classes)``, float32 from 0 to 1."""
        logits = self.network(self.normalized(images)).float()
        return {"probs": logits.sigmoid() if self.multilabel else logits.softmax(dim=1)}


class SegmenterGraph(ClassifierGraph):
    """Logits and labels of the pixels of uint8 images ``(N, 3, H, W)``."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` float32 ``(N, classes, H, W)`` and ``labels`` uint8 ``(N, H, W)``."""
        logits = self.network(self.normalized(images))["out"].float()
        return {"logits": logits, "labels": logits.argmax(dim=1).to(torch.uint8)}
