"""The first batch of a training run on the data, made by the data module of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_zoo.batch import BatchPlan
from lightning_zoo.data_check.report import model_for
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.index import DataIndex
from lightning_zoo.models.registry import get_entry
from lightning_zoo.recipe import load_recipe
from lightning_zoo.recipe.build import build
from lightning_zoo.recipe.schema import signature


def training_batch(
    index: DataIndex,
    recipe: str | Path | None,
    *,
    count: int,
    seed: int,
    reading: dict[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Return a batch of ``count`` training samples, and the names of the classes.

    Args:
        index: The data.
        recipe: Name or file of a recipe: its data module's arguments are taken as far as the one
            for one's own data has them too. None: the recipe that ``finetune`` would write.
        count: Samples of the batch.
        seed: Seed of order and augmentation.
        reading: How the data was read: ``format``, ``val_share``, ``split_seed``,
            ``annotations``.

    Raises:
        ZooError: If the recipe is for another task, or the data cannot be loaded.
    """
    from lightning_zoo.engine.finetune.compose import DATA_MODULES, check_fit, compose
    from lightning_zoo.engine.finetune.defaults import choose
    from lightning_zoo.engine.finetune.statistics import measure

    if recipe is None:
        entry = get_entry(model_for(index))
        check_fit(entry, index)
        choices = choose(index, measure(index), entry, start="none", on_gpu=False)
        made = compose(
            index, entry, choices, name=entry.name, start="none", weights=None, read={}, command=""
        )
        arguments = made.config["data"]["init_args"]
    else:
        loaded = load_recipe(recipe).check()
        if loaded.task != index.task:
            raise ZooError(
                f"the recipe {loaded.name} is for {loaded.task} and {str(index.root)!r} holds "
                f"data for {index.task}; name another, see: python -m lightning_zoo recipes ls"
            )
        arguments = loaded.config["data"].get("init_args", {})
    node = {"class_path": DATA_MODULES[index.task]}
    parameters = signature(node["class_path"]).parameters
    given = {**arguments, **reading, "root": str(index.root), "workers": 0}
    kept = {key: value for key, value in given.items() if key in parameters}
    data = build({**node, "init_args": kept})
    data.configure(BatchPlan(count, count, 1, 1), seed=seed)
    data.setup("fit")
    return next(iter(data.train_dataloader())), list(data.class_names)
