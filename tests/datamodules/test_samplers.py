"""The images of a step are the same for any number of devices, and each epoch is complete."""

from collections import Counter

import numpy as np
import pytest

from lightning_zoo.batch import BatchPlan, plan_batches
from lightning_zoo.datamodules.samplers import EvalSampler, SampleKey, TrainSampler
from lightning_zoo.errors import ZooError

PLANS = [plan_batches(24, p, d) for p, d in [(24, 1), (4, 1), (4, 2), (3, 4), (1, 8), (12, 2)]]


def steps(plan, n=100, epoch=0, **options):
    """Return the images of each step as the ranks see them, each step sorted."""
    per_rank = []
    for rank in range(plan.devices):
        sampler = TrainSampler(n, plan, seed=3, rank=rank, **options)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(len(batch) == plan.per_device for batch in batches)
        per_rank.append(batches)
    return [
        sorted(
            key
            for batches in per_rank
            for batch in batches[s * plan.accumulate : (s + 1) * plan.accumulate]
            for key in batch
        )
        for s in range(len(per_rank[0]) // plan.accumulate)
    ]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"repeats": 3}])
def test_steps_do_not_depend_on_devices(plan, options):
    for epoch in (0, 1):
        assert steps(plan, epoch=epoch, **options) == steps(PLANS[0], epoch=epoch, **options)


def test_an_epoch_by_hand():
    plan = BatchPlan(4, 1, 2, 2)
    order, draws = TrainSampler(10, plan, seed=3).order(5)
    assert sorted(order[:10].tolist()) == list(range(10))
    assert order[10:].tolist() == order[:2].tolist()  # round again from the start
    assert draws.tolist() == [0] * 10 + [1] * 2
    sampler = TrainSampler(10, plan, seed=3, rank=1)
    sampler.set_epoch(5)
    # rank 1 has the second sample of each pair
    assert list(sampler) == [
        [SampleKey(5, int(i), int(d))] for i, d in zip(order[1::2], draws[1::2], strict=True)
    ]


def test_fewer_images_than_a_step():
    (step,) = steps(BatchPlan(8, 4, 1, 2), n=3)
    assert sorted(Counter(key.index for key in step).values()) == [2, 3, 3]
    assert len(set(step)) == 8  # no key twice, so no pixels twice


def test_seeds_and_epochs_differ():
    plan = BatchPlan(4, 4, 1, 1)
    orders = {
        tuple(TrainSampler(50, plan, seed=s).order(e)[0].tolist()) for s in range(3) for e in (0, 1)
    }
    assert len(orders) == 6


def test_drop_last():
    sampler = TrainSampler(10, BatchPlan(4, 4, 1, 1), drop_last=True)
    assert len(sampler) == 2
    keys = [key.index for batch in sampler for key in batch]
    assert len(keys) == len(set(keys)) == 8
    with pytest.raises(ZooError, match="3 training samples are fewer than one step of 4"):
        TrainSampler(3, BatchPlan(4, 4, 1, 1), drop_last=True)


def test_repeats():
    plan = BatchPlan(12, 4, 1, 3)
    sampler = TrainSampler(36, plan, repeats=3)
    keys = [key for batch in sampler for key in batch]
    assert len(keys) == len(set(keys)) == 36  # as long as one pass
    assert Counter(Counter(k.index for k in keys).values()) == {3: 12}
    assert Counter(k.draw for k in keys) == {0: 12, 1: 12, 2: 12}
    for batch in sampler:  # the copies stand in different chunks
        assert len({key.index for key in batch}) == 4


def test_offset_is_used_once():
    sampler = TrainSampler(20, BatchPlan(4, 4, 1, 1), seed=1)
    whole = list(sampler)
    sampler.load_state_dict({**sampler.state_dict(), "batches": 3})
    assert sampler.state_dict()["batches"] == 3
    assert len(sampler) == 5
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole
    sampler.load_state_dict({**sampler.state_dict(), "batches": 3})
    sampler.set_epoch(0)
    assert sampler.offset == 3  # the same epoch keeps it
    sampler.set_epoch(1)
    assert sampler.offset == 0


def test_another_order_is_refused_in_mid_epoch():
    state = {**TrainSampler(20, BatchPlan(4, 4, 1, 1), seed=1).state_dict(), "of": 5}
    other = TrainSampler(20, BatchPlan(4, 4, 1, 1), seed=2)
    other.load_state_dict({**state, "batches": 5})
    other.load_state_dict({**state, "batches": 0})
    with pytest.raises(ZooError, match="seed 1 then and 2 now"):
        other.load_state_dict({**state, "batches": 2})


@pytest.mark.parametrize("devices", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 21])
def test_evaluation_counts_every_sample_once(devices, n):
    seen = []
    for rank in range(devices):
        sampler = EvalSampler(n, 4, rank=rank, devices=devices)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(0 < len(batch) <= 4 for batch in batches)
        seen += [key for batch in batches for key in batch]
    assert sorted(seen) == [SampleKey(0, i) for i in range(n)]


def test_errors():
    with pytest.raises(ZooError, match="no training sample"):
        TrainSampler(0, BatchPlan(4, 4, 1, 1))
    with pytest.raises(ZooError, match="rank is 2"):
        TrainSampler(5, BatchPlan(4, 2, 2, 1), rank=2)
    with pytest.raises(ZooError, match="eval_batch is 0"):
        EvalSampler(5, 0)


def test_the_order_is_even():
    plan = BatchPlan(10, 10, 1, 1)
    first = [TrainSampler(10, plan, seed=s).order(0)[0][0] for s in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260
