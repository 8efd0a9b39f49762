from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_zoo.metrics.accuracy import TopKAccuracy


class VideoAccuracy(nn.Module):
    """Share of clips, and of videos, whose label is among the k most probable, in per cent.

    A video's score is the mean of its clips' softmax, and each video counts once, however many
    clips it has. A clip that comes twice counts once: the first stays. Every rank keeps the rows of
    its own clips; :meth:`compute` exchanges them and gives the same result on every rank, to the
    last bit what one rank gives. So call it on all ranks. Nothing goes into a checkpoint.

    Args:
        topk: The values of ``k``; those above the number of classes count everything as right.
    """

    def __init__(self, topk: tuple[int, ...] = (1, 5)) -> None:
        super().__init__()
        self.topk = topk
        self.reset()

    def reset(self) -> None:
        """Forget all clips."""
        self.ids: list[str] = []
        # tensors stay where they are until the end: fetching them would make a GPU wait
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, probs: Tensor, labels: Tensor, ids: Sequence[str], clips: Tensor) -> None:
        """Add a batch of clips.

        Args:
            probs: Softmax ``(N, C)``, float.
            labels: int64 ``(N,)``, those of the videos.
            ids: The video of each clip.
            clips: int64 ``(N,)``, number of each clip in its video.
        """
        self.ids += ids
        self.rows.append((clips, labels, probs.detach().float()))

    def compute(self) -> dict[str, Tensor]:
        """Return ``clip_acc@k`` and ``acc@k`` for each k, float64 scalars; NaN without clips."""
        keys, labels, probs = self._gather()
        found = self._shares("clip_acc", probs, labels)
        # the clips of a video stand together, in the order of their numbers
        starts = [i for i, (name, _) in enumerate(keys) if i == 0 or name != keys[i - 1][0]]
        scores = probs
        if starts:
            sizes = np.diff([*starts, len(keys)])[:, None]
            scores = np.add.reduceat(probs, starts, axis=0, dtype=np.float64) / sizes
        return found | self._shares("acc", scores, labels[starts])

    def _shares(
        self, name: str, scores: NDArray[Any], labels: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        metric = TopKAccuracy(self.topk, sync_on_compute=False)  # all ranks' clips are here
        metric.update(torch.from_numpy(scores), torch.from_numpy(labels))
        return {f"{name}@{k}": metric.compute()[f"acc@{k}"] for k in self.topk}

    def _gather(self) -> tuple[list[tuple[str, int]], NDArray[np.int64], NDArray[np.float32]]:
        """Return the clips of all ranks, each once, sorted by video and number."""
        ranks: list[Any] = [None]
        if self.rows:
            joined = [torch.cat(column).cpu().numpy() for column in zip(*self.rows, strict=True)]
            ranks = [(self.ids, *joined)]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            mine, ranks = ranks[0], [None] * dist.get_world_size()
            dist.all_gather_object(ranks, mine)
        parts = [part for part in ranks if part is not None]
        if not parts:
            return [], np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        first: dict[tuple[str, int], int] = {}
        every = [key for ids, clips, *_ in parts for key in zip(ids, clips.tolist(), strict=True)]
        for place, key in enumerate(every):
            first.setdefault(key, place)
        keys = sorted(first)
        picked = [first[key] for key in keys]
        labels, probs = (np.concatenate([part[i] for part in parts])[picked] for i in (2, 3))
        return keys, labels, probs
