"""Every recipe is a complete, true record: it fits the code, the registry and its own comments."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_zoo import tasks as lightning_zoo_tasks
from lightning_zoo.batch import plan_batches
from lightning_zoo.engine.session import plan_for
from lightning_zoo.engine.smoke import shrink
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import get_entry, registry, tasks
from lightning_zoo.recipe import Recipe, list_recipes, load_recipe, recipe_files

ROOT = Path(__file__).parents[2] / "recipes"
FILES = sorted(ROOT.glob("*/*.yaml"))
NAMES = [path.stem for path in FILES]
# those that train a model of the registry from nothing, against published figures
FULL = [path.stem for path in FILES if path.parent.name in tasks()]
ARITHMETIC = re.compile(
    r"^batch: .*# (\d+) (?:image|clip)s a step = (\d+) devices? x (\d+) (?:image|clip)s? x "
    r"(\d+) batch(?:es)?$",
    re.M,
)
# what the header says of weights that the reference scripts did not make
PLAIN_WORDS = {
    "P": "No training run of torchvision is known",
    "C": "torchvision did not train this file|hyper-parameters of this file were never published",
    "N": "torchvision 0.10 had no weights of this model",
}


def reference(recipe: Recipe) -> dict[str, Any]:
    return recipe.config.get("reference") or {}


def test_recipes_are_found() -> None:
    print(f"{len(FILES)} recipes, {len(FULL)} of them against published weights")
    assert len(FULL) >= 37
    assert len(FILES) > len(FULL)
    assert len(set(NAMES)) == len(NAMES), "a recipe's stem is its name over all folders"
    assert sorted(NAMES) == sorted(recipe_files()) == sorted(r.name for r in list_recipes())


def test_every_model_has_its_recipe() -> None:
    for entry in registry().values():
        if entry.recipe is None:  # a network to put together oneself
            assert not entry.weights
            continue
        recipe = load_recipe(entry.recipe)
        assert recipe.model == entry.name
        assert recipe.path is not None
        assert recipe.path.parent.name == entry.task


@pytest.mark.parametrize("name", FULL)
def test_every_recipe_has_its_model(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.path is not None
    entry = get_entry(recipe.model, recipe.path.parent.name)
    assert entry.recipe == name
    assert recipe.task == entry.task


@pytest.mark.parametrize("name", NAMES)
def test_no_mistakes(name: str) -> None:
    assert load_recipe(name).problems() == []


@pytest.mark.parametrize("name", NAMES)
def test_header(name: str) -> None:
    recipe = load_recipe(name)
    verb = f"demo {name.removeprefix('demo_')}" if name.startswith("demo_") else "fit --recipe "
    command = verb if name.startswith("demo_") else f"{verb}{name}"
    assert re.search(rf": python -m lightning_zoo {command}(?: |$)", recipe.header[0])
    assert recipe.header[1].startswith("Source: ")
    assert all(recipe.header)
    text = recipe.path.read_text(encoding="utf-8") if recipe.path else ""
    assert max(len(line) for line in text.splitlines()) <= 130
    assert text.endswith("\n")


@pytest.mark.parametrize("name", FULL)
def test_header_says_what_is_not_known(name: str) -> None:
    recipe = load_recipe(name)
    stated = reference(recipe)
    text = " ".join(recipe.header)
    assert stated["source"] in text
    assert recipe.header[1].endswith(f"(provenance {stated['provenance']}).")
    if stated["provenance"] in PLAIN_WORDS:
        assert re.search(PLAIN_WORDS[stated["provenance"]], text)
        assert "accuracy" in text
        assert ("substitute" in stated["hardware"]) == ("documented substitute" in text)
    else:
        assert stated["provenance"] in ("D", "D+")
        assert "substitute" not in text


@pytest.mark.parametrize("name", FULL)
def test_reference_is_the_registrys(name: str) -> None:
    recipe = load_recipe(name)
    stated = reference(recipe)
    assert recipe.path is not None
    weights = get_entry(recipe.model, recipe.path.parent.name).get_weights(stated["weights"])
    assert stated["metrics"] == dict(weights.metrics)
    assert stated["hardware"]
    assert stated["tolerance"] == (0.35 if name == "mobilenet_v2" else 0.3)
    assert recipe.config["run"] == {"loggers": ["csv", "wandb"]}
    pre = weights.preprocessing
    if pre is None:  # the network resizes and normalises by itself
        assert recipe.path.parent.name == "detection"
        return
    sizes = recipe.get("data.eval_resize")
    assert (tuple(sizes) if isinstance(sizes, list) else sizes) == pre.resize
    assert recipe.get("data.eval_crop") == pre.crop
    for fact in ("clip_frames", "frame_rate"):
        assert recipe.get(f"data.{fact}") == getattr(pre, fact)
    task = getattr(lightning_zoo_tasks, recipe.config["model"]["class_path"])
    for fact in ("mean", "std"):
        usual = inspect.signature(task).parameters[fact].default
        assert tuple(recipe.get(f"model.{fact}", usual)) == getattr(pre, fact)


@pytest.mark.parametrize("name", NAMES)
def test_batch_on_any_number_of_devices(name: str) -> None:
    recipe = load_recipe(name)
    batch, stated = recipe.config["batch"], reference(recipe)
    assert stated.get("per_device", batch["per_device"]) == batch["per_device"]
    own = stated.get("devices", 1)
    assert batch["size"] == own * batch["per_device"] or "devices" not in stated
    kept = []
    for devices in sorted({1, 2, 3, own}):
        at_once = devices * batch["per_device"]
        if batch["size"] % at_once == 0:
            plan = plan_for(recipe, devices)
            assert plan.size == batch["size"]
            assert plan.accumulate == batch["size"] // at_once
            assert plan.lr_scale == 1.0
            kept.append(devices)
            continue
        with pytest.raises(ZooError, match="choose one of: ") as caught:
            plan_for(recipe, devices)
        options = dict(re.findall(r"--batch\.(\w+) (\d+)", str(caught.value)))
        assert "--lr_rule linear" in str(caught.value)
        assert "size" in options
        for key, value in options.items():
            plan = plan_batches(**{**batch, key: int(value)}, devices=devices)
            assert plan.devices * plan.per_device * plan.accumulate == plan.size
    assert {1, own} <= set(kept)
    # calibration after training runs in one process
    assert 2 in kept or name not in FULL or recipe.get("model.method") == "ptq"


@pytest.mark.parametrize("name", FULL)
def test_arithmetic_is_true(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.path is not None
    found = ARITHMETIC.findall(recipe.path.read_text(encoding="utf-8"))
    assert len(found) == 1
    size, devices, per_device, batches = map(int, found[0])
    assert size == devices * per_device * batches
    assert recipe.config["batch"] == {"size": size, "per_device": per_device}
    assert reference(recipe).get("devices", devices) == devices


@pytest.mark.parametrize("name", NAMES)
def test_smoke_fits_the_code(name: str, tmp_path: Path) -> None:
    small = shrink(load_recipe(name), tmp_path)
    assert small.problems() == []
    assert plan_for(small, 1).accumulate == 2
    assert list(tmp_path.rglob("*.*"))
