"""Images a step = devices x images per device x batches, whatever the number of devices."""

from __future__ import annotations

import re

import pytest

from lightning_zoo.batch import BatchPlan, check_devices, counted, plan_batches
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import list_recipes


@pytest.mark.parametrize(
    ("devices", "accumulate", "text"),
    [
        (1, 8, "16 images a step = 1 device x 2 images x 8 batches"),
        (2, 4, "16 images a step = 2 devices x 2 images x 4 batches"),
        (8, 1, "16 images a step = 8 devices x 2 images x 1 batch"),
    ],
)
def test_the_step_stays(devices: int, accumulate: int, text: str) -> None:
    plan = plan_batches(16, 2, devices)
    assert plan == BatchPlan(16, 2, devices, accumulate, 1.0)
    assert plan.explain() == text
    assert plan.explain({"devices": 8, "per_device": 2}) == f"{text}; the reference ran 8 x 2"


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_every_recipe_keeps_its_step(devices: int) -> None:
    found = list_recipes()
    assert len(found) >= 39
    for recipe in found:
        batch = recipe.config["batch"]
        if batch["size"] % (batch["per_device"] * devices):
            continue  # small recipes for one device
        plan = plan_batches(batch["size"], batch["per_device"], devices)
        assert plan.devices * plan.per_device * plan.accumulate == batch["size"], recipe.name


@pytest.mark.parametrize(
    ("size", "per_device", "devices"), [(256, 32, 3), (10, 4, 1), (30, 7, 2), (8, 8, 2), (5, 3, 4)]
)
def test_what_does_not_divide_names_ways_that_work(
    size: int, per_device: int, devices: int
) -> None:
    with pytest.raises(ZooError) as caught:
        plan_batches(size, per_device, devices)
    text = str(caught.value)
    assert text.startswith(f"batch.size {size} is no multiple of {devices} device")
    assert f"= {devices * per_device}; choose one of: " in text

    fewer = re.search(r"--batch\.per_device (\d+)", text)
    assert (fewer is not None) == (size % devices == 0)
    if fewer:
        plan = plan_batches(size, int(fewer[1]), devices)
        assert plan.size == size
        assert plan.per_device <= per_device
    other = re.search(r"--batch\.size (\d+)", text)
    assert other is not None
    plan = plan_batches(int(other[1]), per_device, devices)
    assert abs(plan.size - size) <= max(devices * per_device / 2, devices * per_device - size)
    assert "--lr_rule linear" in text
    assert plan_batches(size, per_device, devices, lr_rule="linear").accumulate == 1


def test_the_largest_that_fits_is_named() -> None:
    with pytest.raises(ZooError, match=r"--batch\.per_device 6, --batch\.size 14,"):
        plan_batches(12, 7, 2)


@pytest.mark.parametrize(("devices", "scale"), [(1, 0.125), (2, 0.25), (8, 1.0), (16, 2.0)])
def test_linear_rule(devices: int, scale: float) -> None:
    plan = plan_batches(256, 32, devices, lr_rule="linear")
    assert plan == BatchPlan(32 * devices, 32, devices, 1, scale)
    told = f"learning rate x {scale:g} by the linear rule" in plan.explain()
    assert told == (scale != 1.0)


def test_steps_per_epoch() -> None:
    plan = plan_batches(256, 32, 8)
    # 1,281,167 images of ImageNet are 5004.56 steps of 256
    assert plan.steps_per_epoch(1_281_167) == 5005
    assert plan.steps_per_epoch(1_281_167, drop_last=True) == 5004
    assert plan.steps_per_epoch(512) == plan.steps_per_epoch(512, drop_last=True) == 2
    assert plan.steps_per_epoch(1) == 1


@pytest.mark.parametrize(
    ("size", "per_device", "rule", "text"),
    [
        (0, 2, "fixed", "batch.size is 0; expected a whole number of at least 1"),
        (8, -1, "fixed", "batch.per_device is -1; expected a whole number of at least 1"),
        (8, 2, "square", "unknown --lr_rule 'square'; expected fixed or linear"),
    ],
)
def test_senseless_numbers(size: int, per_device: int, rule: str, text: str) -> None:
    with pytest.raises(ZooError) as caught:
        plan_batches(size, per_device, 1, lr_rule=rule)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("given", "number"), [("auto", None), (-1, None), ("-1", None), ("2", 2), (8, 8)]
)
def test_devices(given: int | str, number: int | None) -> None:
    assert check_devices(given) == number


@pytest.mark.parametrize("given", ["two", "0", 0, -2, "1.5", "", True, "²"])
def test_devices_that_are_none(given: int | str) -> None:
    with pytest.raises(ZooError, match=r"^--devices is .*; expected auto or a whole number"):
        check_devices(given)


def test_counted() -> None:
    assert [counted(n, "batch", "es") for n in (0, 1, 2)] == ["0 batches", "1 batch", "2 batches"]
    assert counted(3, "device") == "3 devices"
