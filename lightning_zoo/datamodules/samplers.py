"""Which sample stands where: orders that are the same for any number of devices and workers.

The images of every optimizer step follow from the seed and the epoch alone. How a step is cut into
forward passes and devices changes nothing about which images it holds, nor about their pixels,
because every key carries all that the sample's random numbers are drawn from.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.batch import BatchPlan
from lightning_zoo.errors import ZooError

_ORDER = 0x0DE5  # sets the stream of orders apart from the streams of samples


class SampleKey(NamedTuple):
    """What one sample's bytes depend on, beside the seed.

    Attributes:
        epoch: Epoch, counted from 0; always 0 in evaluation.
        index: Position of the file in the data set.
        draw: Which of several draws of the same file in the same epoch.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which no key needs
    draw: int = 0


def sample_rng(seed: int, key: SampleKey) -> np.random.Generator:
    """Return the random numbers of one sample, the same in every worker and on every rank."""
    return np.random.default_rng((seed, *key))


class TrainSampler:
    """Batches of keys for one rank: shuffled anew in each epoch, equal on any number of devices.

    The global order of an epoch is a permutation from ``(seed, epoch)``. Optimizer step ``s`` takes
    the next ``plan.size`` samples of it, and forward pass ``j`` of rank ``r`` takes the chunk
    ``j * devices + r`` of ``per_device`` samples within the step. The last step is filled by going
    round the same permutation again from its start (with the next ``draw``, so that the pixels
    differ), hence every batch is full and an epoch has ``ceil(N / size)`` steps.

    Args:
        num_samples: Number N of samples in the data set.
        plan: How the images of a step are spread.
        seed: Seed of the run.
        rank: Index of this process.
        drop_last: Drop the incomplete last step instead of filling it.
        repeats: Repeated augmentation: each sample stands ``repeats`` times in a row of the order,
            with another ``draw`` each time, and the epoch is the first N entries of that order, so
            it sees about N / repeats different images. Within a step the draws are ordered so that
            copies of an image fall into different chunks where the step has several.

    Attributes:
        epoch: Epoch that the next iteration yields.
        offset: Batches of that epoch which were handed out already and will be left out once.

    Raises:
        ZooError: If there is no sample, or fewer than one step with ``drop_last``.
    """

    def __init__(
        self,
        num_samples: int,
        plan: BatchPlan,
        *,
        seed: int = 0,
        rank: int = 0,
        drop_last: bool = False,
        repeats: int = 1,
    ) -> None:
        if num_samples < 1:
            raise ZooError("there is no training sample; expected at least 1")
        if repeats < 1:
            raise ZooError(f"repeated_augmentation is {repeats}; expected at least 1")
        if not 0 <= rank < plan.devices:
            raise ZooError(f"rank is {rank}; expected 0 to {plan.devices - 1} ({plan.explain()})")
        if drop_last and num_samples < plan.size:
            raise ZooError(
                f"{num_samples} training samples are fewer than one step of {plan.size} images and "
                f"drop_last leaves none; choose --batch.size {num_samples} or less, "
                "or --data.drop_last false"
            )
        self.num_samples = num_samples
        self.plan = plan
        self.seed = seed
        self.rank = rank
        self.drop_last = drop_last
        self.repeats = repeats
        self.epoch = 0
        self.offset = 0

    @property
    def sampler(self) -> TrainSampler:
        """This object: Lightning calls ``set_epoch`` on ``loader.batch_sampler.sampler``."""
        return self

    @property
    def batch_size(self) -> int:
        """Images of one batch."""
        return self.plan.per_device

    @property
    def num_steps(self) -> int:
        """Optimizer steps of one epoch."""
        return self.plan.steps_per_epoch(self.num_samples, drop_last=self.drop_last)

    def __len__(self) -> int:
        """Return the batches of one whole epoch on this rank, whatever the offset."""
        return self.num_steps * self.plan.accumulate

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; the offset is kept only if it was this epoch's."""
        if epoch != self.epoch:
            self.epoch, self.offset = epoch, 0

    def order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return index and draw of all ``num_steps * size`` samples of an epoch, on all devices."""
        rng = np.random.default_rng((_ORDER, self.seed, epoch))
        index = rng.permutation(self.num_samples)
        draw = np.zeros_like(index)
        if self.repeats > 1:
            index = np.repeat(index, self.repeats)[: self.num_samples]
            draw = np.resize(np.arange(self.repeats), self.num_samples)
        total = self.num_steps * self.plan.size
        rounds = np.arange(total) // self.num_samples
        index = np.resize(index, total)
        draw = np.resize(draw, total) + self.repeats * rounds
        if self.repeats > 1:
            steps = draw.reshape(self.num_steps, self.plan.size)
            by_draw = np.argsort(steps, axis=1, kind="stable")
            index = np.take_along_axis(index.reshape(steps.shape), by_draw, axis=1).ravel()
            draw = np.take_along_axis(steps, by_draw, axis=1).ravel()
        return index, draw

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # a generator: the offset is used up at the first batch, not at ``iter()``, which torch's
        # loader with workers calls twice; and not at the end, which Lightning may never reach
        epoch, start = self.epoch, self.offset
        self.offset = 0
        index, draw = self.order(epoch)
        shape = (len(self), self.plan.devices, self.plan.per_device)
        mine, draws = index.reshape(shape)[:, self.rank], draw.reshape(shape)[:, self.rank]
        for i in range(start, len(self)):
            pairs = zip(mine[i].tolist(), draws[i].tolist(), strict=True)
            yield [SampleKey(epoch, n, d) for n, d in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the batches of it that this rank has handed out."""
        return {"epoch": self.epoch, "batches": self.offset, "order": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after ``state["batches"]`` batches of ``state["epoch"]``.

        Raises:
            ZooError: If the state lies within an epoch of another order (seed, data set, batch).
        """
        theirs, ours = state.get("order", {}), self._fingerprint()
        changed = [name for name in ours if theirs.get(name, ours[name]) != ours[name]]
        if changed and 0 < state["batches"] < state.get("of", len(self)):
            facts = ", ".join(
                f"{name} {theirs[name]} then and {ours[name]} now" for name in changed
            )
            raise ZooError(
                f"cannot continue within epoch {state['epoch']}: its order of images was another "
                f"({facts}); set them back, or resume from a checkpoint of an epoch's end"
            )
        self.epoch = int(state["epoch"])
        self.offset = 0 if changed and state["batches"] == 0 else int(state["batches"])

    def _fingerprint(self) -> dict[str, int]:
        return {
            "samples": self.num_samples,
            "size": self.plan.size,
            "per_device": self.plan.per_device,
            "devices": self.plan.devices,
            "seed": self.seed,
            "repeats": self.repeats,
        }


class GroupedTrainSampler(TrainSampler):
    """Batches whose images are of one group each, as images of like shape need little padding.

    Every chunk of ``per_device`` images, that is every forward pass of a device, has images of one
    group. Which chunks there are and in which order follows from the seed, the epoch, the groups
    and the plan's ``size`` and ``per_device`` alone, so that steps are the same on any number of
    devices. As in :class:`TrainSampler` an epoch has ``ceil(N / size)`` steps.

    Each group is shuffled and cut into chunks. Its last, incomplete chunk is filled by going round
    the group again (with the next ``draw``), and the chunks of all groups are shuffled together.
    Where the incomplete chunks are more than the epoch has room for, the fullest are taken; the few
    images of the others (fewer than ``per_device`` a group) wait for another epoch. Where there is
    room for more, the groups whose images were seen least go round again.

    Args:
        groups: Group of each sample, int (N).
        plan: How the images of a step are spread.
        seed: Seed of the run.
        rank: Index of this process.
        drop_last: Drop as many chunks at random as the incomplete last step has.

    Raises:
        ZooError: If there is no sample, or fewer than one step with ``drop_last``.
    """

    def __init__(
        self,
        groups: NDArray[np.integer[Any]],
        plan: BatchPlan,
        *,
        seed: int = 0,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(len(groups), plan, seed=seed, rank=rank, drop_last=drop_last)
        self.groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)

    def order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return index and draw of all ``num_steps * size`` samples of an epoch, on all devices."""
        rng = np.random.default_rng((_ORDER, self.seed, epoch))
        per_chunk = self.plan.per_device
        needed = self.num_steps * self.plan.size // per_chunk
        shuffled = rng.permutation(self.num_samples)
        shuffled = shuffled[np.argsort(self.groups[shuffled], kind="stable")]
        counts = np.bincount(self.groups)
        chunks = self._chunks(counts, needed, rng)
        index, draw = [], []
        for members, count in zip(np.split(shuffled, np.cumsum(counts)[:-1]), chunks, strict=True):
            places = np.arange(count * per_chunk)
            index.append(members[places % len(members)])
            draw.append(places // len(members))
        chosen = rng.permutation(int(chunks.sum()))[:needed]
        all_index = np.concatenate(index).reshape(-1, per_chunk)[chosen]
        all_draws = np.concatenate(draw).reshape(-1, per_chunk)[chosen]
        return all_index.ravel(), all_draws.ravel()

    def _chunks(
        self, counts: NDArray[np.int64], needed: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the chunks of each group: at least ``needed`` in all, more only if all are full.

        Args:
            counts: int64 (G), images of each group.
            needed: Chunks of an epoch.
            rng: Settles ties.
        """
        chunks, rest = np.divmod(counts, self.plan.per_device)
        room = max(0, needed - int(chunks.sum()))
        fullest = np.lexsort((rng.random(len(rest)), -rest))
        fullest = fullest[rest[fullest] > 0][:room]
        chunks[fullest] += 1
        for _ in range(room - len(fullest)):
            chunks[np.argmin(chunks * self.plan.per_device / counts)] += 1
        return chunks

    def _fingerprint(self) -> dict[str, int]:
        return {**super()._fingerprint(), "groups": zlib.crc32(self.groups.tobytes())}


class EvalSampler:
    """Batches of keys for evaluation: rank ``r`` of ``R`` takes ``r, r + R, ...``, each index once.

    Nothing is padded and nothing repeated, so ranks may differ by one sample and by one batch.

    Args:
        num_samples: Number of samples in the data set.
        batch_size: Images of one batch on one device; the last may be smaller.
        rank: Index of this process.
        devices: Number of processes.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, rank: int = 0, devices: int = 1
    ) -> None:
        if batch_size < 1:
            raise ZooError(f"eval_batch is {batch_size}; expected a whole number of at least 1")
        self.indices = range(rank, num_samples, devices)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Return the number of batches on this rank."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self.indices), self.batch_size):
            chunk = self.indices[start : start + self.batch_size]
            yield [SampleKey(0, index) for index in chunk]
