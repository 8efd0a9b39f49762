"""The range test finds the rate that is known, and trying batches finds the size that pays."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
from lightning_zoo.engine.finetune.find_batch import BatchChoice, Trial, find_batch, try_sizes
from lightning_zoo.engine.finetune.find_lr import (
    LrCurve,
    bars,
    find_lr,
    has_diverged,
    noise,
    rates,
    round_rate,
    smooth,
)
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe, load_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    data = tmp_path / "data"
    ImageFolderDataModule.write_fake(data, classes=3, images=24, size=40)
    node = {
        "seed_everything": 0,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "model": "squeezenet1_1",
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.005}},
                "lr_schedule": {"class_path": "CosineDecay", "init_args": {"warmup_epochs": 1}},
            },
        },
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {"root": str(data), "train_crop": 32, "eval_resize": 36,
                          "eval_crop": 32, "workers": 0},
        },
        "batch": {"size": 4, "per_device": 2},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "strategy": "ddp",
                    "limit_train_batches": 1, "check_val_every_n_epoch": 2},
    }  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(node))
    return load_recipe(path).check()


# ---------------------------------------------------------------------------------------------
# Learning rates


def descend(curvatures: list[float], steps: int, low: float, high: float) -> LrCurve:
    """Run the range test on half the sum of c * x ** 2, by descent with noise in x, from 1."""
    noise = np.random.default_rng(0)
    x = np.ones(len(curvatures))
    c = np.array(curvatures)
    tried = rates(steps, low, high)
    losses: list[float] = []
    for rate in tried:
        losses.append(float((c * x**2).sum() / 2))
        if has_diverged(losses):
            break
        x = x - rate * c * (x + 0.03 * noise.standard_normal(len(c)))
    return LrCurve(tuple(tried[: len(losses)]), tuple(losses), 0.5, "it ended")


@pytest.mark.parametrize("steps", [40, 60, 80])
@pytest.mark.parametrize("curvatures", [[1.0], [100.0], [100.0, 10.0], [50.0, 1.0]])
def test_the_rate_of_a_bowl_is_known(curvatures: list[float], steps: int) -> None:
    """Descent overshoots from 2 / curvature on; a tenth of that is what a whole run can take."""
    curve = descend(20 * curvatures, steps, 1e-5, 100.0)
    known = 2 / max(curvatures) / 10
    assert known / 3 < curve.suggestion < known * 3
    assert len(curve.losses) < steps, "it went on after it had diverged"


def test_a_loss_that_never_falls() -> None:
    curve = LrCurve(tuple(rates(30, 1e-4, 1.0)), tuple(float(i) for i in range(30)), 0.05, "why")
    assert curve.edge is None
    assert curve.suggestion == 0.05
    assert "the loss rose from the start: the learning rate stays 0.05" in curve.table()


def test_an_accident_among_low_rates_is_none() -> None:
    """A loss that is noise until it rises: not the lowest point counts but where it rises."""
    generator = np.random.default_rng(0)
    tried = rates(80, 1e-6, 1.0)
    losses = [0.7 + 0.1 * generator.standard_normal() + 3 * max(0.0, r - 0.01) for r in tried]
    losses[11] = 0.2
    curve = LrCurve(tuple(tried), tuple(losses), 0.05, "why")
    assert 0.01 / 10 < curve.suggestion < 0.1 / 10
    assert noise([v - 3 * max(0.0, r - 0.01) for v, r in zip(losses, tried, strict=True)]) == (
        pytest.approx(0.1, rel=0.3)
    )


def test_arithmetic() -> None:
    tried = rates(5, 1e-4, 1.0)
    assert tried == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert smooth([1.0, 2.0, 6.0, 1.0, 5.0, 9.0]) == (1, 2, 2, 5, 5, 9)
    assert round_rate(0.0123) == 0.012
    assert bars([1.0, 10.0, 100.0]) == "▁▅█"
    assert len(bars([1.0] * 200)) == 60
    assert has_diverged([1.0, float("nan")])
    assert not has_diverged([1.0] * 30)
    assert has_diverged([1.0] * 30 + [9.0] * 5)


def test_the_curve_of_a_recipe(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(recipe.path)).parent
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    curve = find_lr(recipe, steps=16, low=1e-4, high=10.0)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert sorted(folder.rglob("*")) == before
    assert 10 <= len(curve.losses) == len(curve.rates) <= 16
    assert curve.rates[:2] == pytest.approx((1e-4, 1e-4 * 10 ** (1 / 3)))
    assert curve.own == 0.005
    # the first loss is that of a network that knows nothing of three classes
    assert curve.losses[0] == pytest.approx(np.log(3), abs=0.5)
    lines = curve.table().splitlines()
    assert lines[0].startswith("loss by learning rate, ")
    assert set(lines[1].strip()) <= set("▁▂▃▄▅▆▇█")
    assert lines[2].split()[0] == "1e-04"
    again = find_lr(recipe, steps=16, low=1e-4, high=10.0)
    assert again == curve
    picture = curve.plot(folder / "curve.png")
    with Image.open(picture) as image:
        assert image.size == (720, 360)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 3}, "find_lr: steps is 3, low 1e-06, high 1; expected at least 10 steps"),
        ({"low": 1.0, "high": 0.1}, "low 1, high 0.1; expected at least 10 steps from a rate abo"),
        ({"low": 0.0}, "low 0, high 1"),
    ],
)
def test_a_range_that_is_none(recipe: Recipe, options: dict[str, float], expected: str) -> None:
    with pytest.raises(ZooError) as caught:
        find_lr(recipe, **options)
    assert expected in str(caught.value)


# ---------------------------------------------------------------------------------------------
# Batch sizes


def test_a_cpu_stops_where_more_images_gain_nothing() -> None:
    speed = {1: 10.0, 2: 9.0, 4: 18.0, 8: 17.0, 16: 19.0, 32: 99.0}  # the second was disturbed
    tried, why = try_sizes(lambda n: Trial(n, speed[n]), 1000, "cpu")
    assert [t.per_device for t in tried] == [1, 2, 4, 8, 16]
    assert why == "more gain less than a tenth over 4"


def test_a_cpu_keeps_half_of_its_memory() -> None:
    tried, why = try_sizes(lambda n: Trial(n, 10.0 * n, 0.1 * n), 100, "cpu")
    assert [t.per_device for t in tried] == [1, 2, 4]
    assert why == "8 would take more than 50% of free memory"


def test_a_gpu_goes_on_until_a_fifth_is_left() -> None:
    tried, why = try_sizes(lambda n: Trial(n, 10.0, 0.11 * n), 100, "cuda")
    assert [t.per_device for t in tried] == [1, 2, 4, 8]
    assert why == "8 take more than 80% of the memory"


def test_out_of_memory_is_an_answer() -> None:
    def run(images: int) -> Trial:
        if images > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return Trial(images, 1.0)

    tried, why = try_sizes(run, 100, "cuda")
    assert [(t.per_device, t.why) for t in tried] == [(1, ""), (2, ""), (4, "out of memory")]
    assert why == "4 need more memory than there is"


def test_one_image_may_be_too_few_for_norms() -> None:
    def run(images: int) -> Trial:
        if images == 1:
            raise ValueError("Expected more than 1 value per channel when training, got ...")
        if images == 4:
            raise ValueError("something else")
        return Trial(images, 1.0)

    tried, why = try_sizes(run, 3, "cpu")
    assert [(t.per_device, t.why) for t in tried] == [
        (1, "batch norms need more than 1 image"),
        (2, ""),
    ]
    assert why == "an epoch keeps at least 4 steps"
    with pytest.raises(ValueError, match="something else"):
        try_sizes(run, 100, "cuda")


def test_a_recipe_is_tried(recipe: Recipe) -> None:
    folder = Path(str(recipe.path)).parent
    before = sorted(folder.rglob("*"))
    state = torch.get_rng_state()
    choice = find_batch(recipe, devices=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(folder.rglob("*")) == before
    sizes = [trial.per_device for trial in choice.tried]
    assert sizes == [1, 2, 4][: len(sizes)]  # 24 images in four steps: 6 at most
    assert choice.per_device in sizes
    assert all(trial.rate > 0 for trial in choice.tried)
    assert all(0 <= trial.memory < 0.5 for trial in choice.tried)
    assert (choice.size, choice.advice) == (4, "")  # the recipe's own step, whatever it is made of
    assert choice.table().splitlines()[-1].startswith("4 images a step = 1 device x ")


def test_a_larger_step_is_said_and_the_rate_stays(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules[find_batch.__module__],
        "try_sizes",
        lambda run, most, kind, unit: ([Trial(4, 10.0), Trial(8, 20.0)], "it ended"),
    )
    choice = find_batch(recipe, devices=2)
    assert (choice.per_device, choice.devices, choice.size) == (8, 2, 16)
    assert choice.table().splitlines() == [
        "  images   images/s  memory",
        "       4       10.0      0%",
        "       8       20.0      0%",
        "16 images a step = 2 devices x 8 images x 1 batch (it ended)",
        "a step takes 16 images instead of the recipe's 4; its learning rate stays 0.005, the "
        "linear rule would make it 0.02 (--model.optimizer.lr 0.02)",
    ]


def test_nothing_fits(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules[find_batch.__module__],
        "try_sizes",
        lambda run, most, kind, unit: ([Trial(1, why="out of memory")], "1 need more memory"),
    )
    with pytest.raises(ZooError, match=r"squeezenet1_1 trains on no number of images that was tr"):
        find_batch(recipe)


def test_the_step_is_a_multiple_of_what_the_devices_take() -> None:
    choice = BatchChoice(2, 1, 4, (Trial(2, 5.0, 0.25),), "it ended", "")
    assert choice.table().splitlines()[1:] == [
        "       2        5.0     25%",
        "4 images a step = 1 device x 2 images x 2 batches (it ended)",
    ]
