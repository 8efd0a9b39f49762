"""Loaders that Lightning can stop and continue in mid-epoch, and that report bad files plainly."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_zoo.datamodules.samplers import EvalSampler, TrainSampler
from lightning_zoo.errors import ZooError

Batch = dict[str, Any]
Collate = Callable[[list[Any]], Any]


class Refused(NamedTuple):
    """Stands for a sample that may not be skipped; the loader raises its text in the main process.

    An error raised inside a worker would reach the person wrapped in the worker's traceback.
    """

    text: str


def collate(samples: Sequence[Batch | Refused | None]) -> Batch | Refused | None:
    """Join samples into one batch.

    Tensors are stacked, integers become int64, everything else stays a list. Samples that are None
    were skipped and are left out; None is returned where nothing is left.
    """
    for sample in samples:
        if isinstance(sample, Refused):
            return sample
    kept = [sample for sample in samples if isinstance(sample, dict)]
    if not kept:
        return None
    batch: Batch = {}
    for name in kept[0]:
        values = [sample[name] for sample in kept]
        if isinstance(values[0], torch.Tensor):
            batch[name] = torch.stack(values)
        elif isinstance(values[0], int):
            batch[name] = torch.tensor(values, dtype=torch.int64)
        else:
            batch[name] = values
    return batch


def useful_workers(asked: int) -> int:
    """Return how many workers to start: no more than there are cores, as more only get slower."""
    if hasattr(os, "sched_getaffinity"):
        return min(asked, len(os.sched_getaffinity(0)))
    return min(asked, os.cpu_count() or 1)


def start_worker(worker_id: int) -> None:
    """Give a worker one thread: the workers are the parallelism."""
    import cv2

    # The garbage collector would write to every page that a worker shares with the main process,
    # and so copy it
    gc.freeze()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    _leave_signals_to_the_main_process()


def _leave_signals_to_the_main_process() -> None:
    """Let a worker outlive what is sent to a whole group of processes.

    A terminal's Ctrl-C, ``timeout``, torchrun and SLURM signal workers too. The main process
    answers: it makes its step to the end and saves it, and needs its workers until then. Only
    what the main process itself sends ends a worker, and the main process's death.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # nothing else tells who has sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


class _ZooLoader(DataLoader[Any]):
    """A loader over keys: persistent workers of one thread, pinned memory where CUDA is there."""

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_sampler: TrainSampler | EvalSampler,
        *,
        workers: int = 0,
        collate_fn: Collate = collate,
    ) -> None:
        if workers < 0:
            raise ZooError(f"workers is {workers}; expected 0 (load in the main process) or more")
        workers = useful_workers(workers)
        super().__init__(
            dataset,
            batch_sampler=batch_sampler,
            num_workers=workers,
            collate_fn=collate_fn,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=start_worker,
        )

    def _readable(self) -> Iterator[Batch]:
        """Yield the batches that hold a sample.

        Raises:
            ZooError: If a file is broken and the policy is to refuse.
        """
        for batch in super().__iter__():
            if isinstance(batch, Refused):
                raise ZooError(batch.text)
            if batch is not None:
                yield batch


class EvalLoader(_ZooLoader):
    """Evaluation's loader: every sample once, batches of skipped files alone left out.

    Args:
        dataset: Data set that is indexed by :class:`SampleKey`.
        batch_sampler: Batches of keys.
        workers: Processes that load; 0 loads in the main process.
        collate_fn: Joins samples into a batch.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return self._readable()


class Unmanaged:
    """Shows a loader to Lightning as a plain iterable.

    For prediction Lightning builds every ``DataLoader`` anew around a sampler of its own, to track
    indices, and our loaders take no such sampler.
    """

    def __init__(self, loader: EvalLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)


class ResumableLoader(_ZooLoader):
    """Training's loader: its state counts the batches that were yielded, not those prefetched.

    After ``load_state_dict`` the next iteration continues right behind them in the same epoch;
    ``len()`` stays the number of batches in the whole epoch. Work starts at the first batch asked
    for, not at ``iter()``, because Lightning calls ``iter()`` before it calls ``set_epoch``.

    Args:
        dataset: Data set that is indexed by :class:`SampleKey`.
        batch_sampler: Batches of keys; Lightning's ``set_epoch`` reaches it by its ``sampler``.
        workers: Processes that load; 0 loads in the main process.
        collate_fn: Joins samples into a batch.
    """

    batch_sampler: TrainSampler

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_sampler: TrainSampler,
        *,
        workers: int = 0,
        collate_fn: Collate = collate,
    ) -> None:
        self._epoch = -1
        self._yielded = 0
        super().__init__(dataset, batch_sampler, workers=workers, collate_fn=collate_fn)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch (0 is the first)."""
        self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return self._continue()

    def _continue(self) -> Iterator[Batch]:
        self._epoch, self._yielded = self.batch_sampler.epoch, self.batch_sampler.offset
        for batch in self._readable():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of batches of it that the consumer was given."""
        state = self.batch_sampler.state_dict()
        if self._epoch == state["epoch"]:
            state["batches"] = self._yielded
        return {**state, "of": len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration continue where ``state`` was taken.

        Raises:
            ZooError: If the state lies within an epoch of another order.
        """
        self.batch_sampler.load_state_dict(state)
        self._epoch = -1
