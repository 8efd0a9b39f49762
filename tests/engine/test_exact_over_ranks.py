"""One task on one, two and four ranks: the same figures of one checkpoint, the same losses.

The tasks are those that have a demonstration: one recipe each, of a network that is small.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rank_forks import RankForks

from lightning_zoo.engine import smoke
from lightning_zoo.models.registry import registry
from lightning_zoo.recipe import load_recipe, recipe_files
from lightning_zoo.recipe.schema import signature
from lightning_zoo.runs import dump

DEMOS = sorted(name for name, path in recipe_files().items() if path.parent.name == "demo")
SAMPLES = 11  # no number of ranks divides it, nor does a step
# what counts in whole numbers comes out the same to the last bit; what adds up numbers, nearly so
COUNTED = ("acc@", "iou", "pixel_acc", "_map", "_mar")


def test_every_task_has_a_demonstration() -> None:
    tasks = {load_recipe(name).task for name in DEMOS}
    print(f"{len(DEMOS)} recipes of {len(tasks)} tasks")
    assert tasks == {task for task, _ in registry()} - {"quantization"}


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankForks]:
    made = RankForks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


def write_recipe(name: str, folder: Path, world: int) -> Path:
    """Write a demonstration's recipe for ``SAMPLES`` small generated samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoke, "IMAGES", SAMPLES)
        recipe = smoke.shrink(load_recipe(name), folder / f"data_{world}")
    changes: dict[str, Any] = {
        "trainer.max_epochs": 2, "trainer.accelerator": "cpu", "run.pictures": 0,
        "data.eval_batch": 1, "model.optimizer": {
            "class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}
        },
    }  # fmt: skip
    if "ema_decay" in signature(recipe.config["model"]["class_path"]).parameters:
        changes["model.ema_decay"] = 0.9
    if recipe.task == "detection":  # so many guesses that some are right
        guesses = {"box_score_thresh": 0.0, "box_nms_thresh": 0.9, "box_detections_per_img": 60,
                   "rpn_post_nms_top_n_test": 100}  # fmt: skip
        changes |= {f"model.model_args.{key}": value for key, value in guesses.items()}
    path = folder / f"ranks_{world}.yaml"
    path.write_text(dump(recipe.with_overrides(changes.items()).check().config))
    return path


def by_place(ranks: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    found = {tuple(place): loss for rank in ranks for place, loss in rank["losses"]}
    assert len(found) == sum(len(rank["losses"]) for rank in ranks)
    return found


def check(name: str, folder: Path, forks: RankForks, worlds: tuple[int, ...]) -> None:
    began = time.monotonic()
    # --- training: one device that accumulates, and two that do not
    recipe = write_recipe(name, folder, 1)
    one, two = (
        forks.run("fit", world, recipe=str(recipe), out=str(folder / f"runs_{world}"))
        for world in (1, 2)
    )
    expected, found = by_place(one), by_place(two)
    assert len(expected) == 2 * 3 * 2  # epochs, steps, chunks of a step
    assert expected.keys() == found.keys()
    assert len(set(expected.values())) > 6
    for place, loss in expected.items():
        assert math.isclose(found[place], loss, rel_tol=1e-5, abs_tol=1e-6), (place, loss)
    # --- validation of one checkpoint
    checkpoint = str(Path(one[0]["run"]) / "checkpoints" / "last.ckpt")
    (alone,) = forks.run("validate", 1, checkpoint=checkpoint)
    once = Counter(alone["seen"])
    assert set(once.values()) == {1}
    assert len(once) >= SAMPLES
    exact = [key for key in alone["metrics"] if any(word in key for word in COUNTED)]
    assert exact
    assert any(alone["metrics"][key] > 0 for key in exact), "nothing was found at all"
    for world in worlds:
        nodes = 2 if world == 4 else 1
        ranks = forks.run("validate", world, nodes, checkpoint=checkpoint)
        assert sum((Counter(rank["seen"]) for rank in ranks), Counter()) == once
        assert all(rank["seen"] for rank in ranks)
        for rank in ranks:
            assert rank["metrics"].keys() == alone["metrics"].keys()
            for key, value in alone["metrics"].items():
                other = rank["metrics"][key]
                if key in exact:
                    assert other == value or (math.isnan(other) and math.isnan(value)), key
                else:
                    assert math.isclose(other, value, rel_tol=1e-12, abs_tol=0), (key, other, value)
            assert repr(rank["per_class"]) == repr(alone["per_class"])
    print(
        f"{name}: {len(exact)} exact of {len(alone['metrics'])}, {time.monotonic() - began:.1f} s"
    )


def test_masks_and_boxes_agree(tmp_path: Path, forks: RankForks) -> None:
    check("demo_instances", tmp_path, forks, (4,))


@pytest.mark.slow
@pytest.mark.parametrize("name", DEMOS)
def test_every_task_agrees(name: str, tmp_path: Path, forks: RankForks) -> None:
    check(name, tmp_path, forks, (2, 4))
