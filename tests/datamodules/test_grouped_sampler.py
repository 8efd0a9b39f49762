"""Chunks of one group each, the same for any number of devices, with hardly an image repeated."""

from collections import Counter

import numpy as np
import pytest

from lightning_zoo.batch import BatchPlan, plan_batches
from lightning_zoo.datamodules.coco import aspect_groups
from lightning_zoo.datamodules.samplers import GroupedTrainSampler, SampleKey, TrainSampler
from lightning_zoo.errors import ZooError

PLANS = [plan_batches(24, 3, d) for d in (1, 2, 4, 8)]
GROUPS = np.random.default_rng(0).permutation([0] * 50 + [1] * 31 + [2] * 2 + [5] * 17)


def chunks(plan, groups=GROUPS, epoch=0, seed=3, **options):
    """Return the chunks of every step as the ranks see them, in the order of the devices."""
    per_rank = []
    for rank in range(plan.devices):
        sampler = GroupedTrainSampler(groups, plan, seed=seed, rank=rank, **options)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        per_rank.append(batches)
    return [tuple(chunk) for step in zip(*per_rank, strict=True) for chunk in step]


@pytest.mark.parametrize("options", [{}, {"drop_last": True}])
def test_the_same_chunks_for_any_number_of_devices(options):
    for epoch in (0, 1):
        expected = chunks(PLANS[0], epoch=epoch, **options)
        for plan in PLANS[1:]:
            assert chunks(plan, epoch=epoch, **options) == expected


@pytest.mark.parametrize("n", [1, 5, 24, 25, 100, 997])
@pytest.mark.parametrize("per_device", [1, 2, 3, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_chunks_are_of_one_group_and_keys_differ(n, per_device, drop_last):
    rng = np.random.default_rng(n)
    groups = rng.choice(8, n, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01])
    plan = plan_batches(24, per_device, 1)
    if drop_last and n < 24:
        with pytest.raises(ZooError, match="fewer than one step of 24"):
            GroupedTrainSampler(groups, plan, drop_last=True)
        return
    steps = n // 24 if drop_last else -(-n // 24)
    for epoch in range(3):
        found = chunks(plan, groups, epoch, drop_last=drop_last)
        assert len(found) == steps * 24 // per_device
        assert all(len({groups[key.index] for key in chunk}) == 1 for chunk in found)
        keys = [key for chunk in found for key in chunk]
        assert len(set(keys)) == len(keys)
        assert all(key.epoch == epoch for key in keys)
        times = Counter(key.index for key in keys)
        for index, count in times.items():  # draws count up from 0
            assert {k.draw for k in keys if k.index == index} == set(range(count)) or drop_last
        if not drop_last:
            # at most the incomplete chunks of 8 groups wait for another epoch
            assert n - len(times) <= 8 * (per_device - 1)
            if per_device == 1:
                assert len(times) == n


def test_an_epoch_by_hand():
    # 5 wide and 3 tall images in chunks of 2, 4 images a step: 2 steps have 4 chunks. Two wide
    # and one tall chunk are full; of the two incomplete ones there is room for one
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    seen = Counter()
    for epoch in range(40):
        found = chunks(BatchPlan(4, 2, 1, 2), groups, epoch)
        kinds = sorted(int(groups[chunk[0].index]) for chunk in found)
        assert kinds in ([0, 0, 0, 1], [0, 0, 1, 1])
        keys = [key for chunk in found for key in chunk]
        assert Counter(key.draw for key in keys) == {0: 7, 1: 1}  # one image waits, one is repeated
        seen.update({key.index for key in keys})
        seen[str(kinds)] += 1
    assert all(seen[i] >= 30 for i in range(8))  # who waits is drawn anew
    assert min(seen["[0, 0, 0, 1]"], seen["[0, 0, 1, 1]"]) > 8  # so are ties


def test_a_fill_repeats_its_own_group():
    groups = np.array([0, 0, 0, 1])
    (first, second, third, fourth) = chunks(BatchPlan(8, 2, 1, 4), groups)
    for chunk in (first, second, third, fourth):
        assert {groups[key.index] for key in chunk} in ({0}, {1})
    keys = sorted(key for chunk in (first, second, third, fourth) for key in chunk)
    draws = {i: [k.draw for k in keys if k.index == i] for i in range(4)}
    assert draws[3] == [0, 1]  # the lonely one is shown twice, with other random numbers
    assert sorted(len(draws[i]) for i in range(3)) == [2, 2, 2]


def test_one_group_is_like_no_group():
    plan = plan_batches(8, 2, 1)
    grouped = chunks(plan, np.zeros(37, int))
    plain = list(TrainSampler(37, plan, seed=3))
    assert len(grouped) == len(plain)
    counts = Counter(key.index for chunk in grouped for key in chunk)
    assert set(counts) == set(range(37))
    assert Counter(counts.values()) == {1: 34, 2: 3}


def test_orders_differ_and_are_even():
    plan = BatchPlan(6, 2, 1, 3)
    groups = np.arange(12) % 2
    orders = {tuple(chunks(plan, groups, e, s)) for s in range(3) for e in range(2)}
    assert len(orders) == 6
    first = [chunks(plan, groups, 0, seed)[0][0].index for seed in range(2400)]
    counts = np.bincount(first, minlength=12)
    assert counts.min() > 140
    assert counts.max() < 260


def test_resume_within_an_epoch():
    plan = plan_batches(8, 2, 2)
    groups = aspect_groups(np.random.default_rng(0).uniform(0.3, 3, 60), 3)
    sampler = GroupedTrainSampler(groups, plan, seed=1, rank=1)
    sampler.set_epoch(4)
    whole = list(sampler)
    other = GroupedTrainSampler(groups, plan, seed=1, rank=1)
    other.load_state_dict({**sampler.state_dict(), "batches": 5})
    assert (other.epoch, other.offset, len(other)) == (4, 5, len(whole))
    assert list(other) == whole[5:]
    assert list(other) == whole
    assert isinstance(whole[0][0], SampleKey)
    changed = groups.copy()
    changed[0] += 1
    state = {**sampler.state_dict(), "of": len(sampler), "batches": 5}
    with pytest.raises(ZooError, match=r"cannot continue within epoch 4: .*groups"):
        GroupedTrainSampler(changed, plan, seed=1, rank=1).load_state_dict(state)


def test_aspect_groups():
    # edges 2^-1, 2^-2/3, 2^-1/3, 1, 2^1/3, 2^2/3, 2; a ratio on an edge belongs above it
    ratios = np.array([0.3, 0.5, 0.62, 0.63, 0.99, 1.0, 4 / 3, 1.5, 1.6, 2.0, 9])
    assert aspect_groups(ratios, 3).tolist() == [0, 1, 1, 2, 3, 4, 5, 5, 6, 7, 7]
    assert aspect_groups(ratios, 0).tolist() == [0] * 5 + [1] * 6


def test_a_large_epoch():
    groups = aspect_groups(np.random.default_rng(0).lognormal(0.2, 0.3, 117_266), 3)
    sampler = GroupedTrainSampler(groups, plan_batches(16, 2, 8), seed=0)
    index, draw = sampler.order(0)
    assert len(index) == 7330 * 16
    assert np.count_nonzero(draw) <= 14 + 8
    assert 117_266 - len(np.unique(index)) <= 8
    pairs = groups[index].reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()
