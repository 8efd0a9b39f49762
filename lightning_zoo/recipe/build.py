"""Turns a recipe's ``{class_path, init_args}`` into objects. Imports what the recipe names."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from lightning_zoo.errors import ZooError
from lightning_zoo.recipe.schema import Parameter, signature
from lightning_zoo.recipe.trust import (
    FINETUNING,
    OPTIMIZER,
    PART,
    SCHEDULE,
    SLOTS,
    TRANSFORM,
    Slot,
    is_trusting,
)

# What stands within the arguments of a task or a data module.
INNER = (PART, TRANSFORM, FINETUNING)


def build(node: dict[str, Any], slots: tuple[Slot, ...] = SLOTS, **more: Any) -> Any:
    """Build the object that a node describes.

    Args:
        node: ``class_path`` and ``init_args``; nested nodes are built first. Optimizers and
            schedules become partial calls that wait for their first argument.
        slots: What the place takes.
        more: Arguments that are not the recipe's to give.

    Raises:
        ZooError: If a node names a class that recipes may not use at its place.
    """
    return _callable(node, slots)(**_arguments(node), **more)


def _callable(node: dict[str, Any], slots: tuple[Slot, ...]) -> type:
    name = node["class_path"]
    if not isinstance(name, str):
        raise ZooError(f"class_path is {name!r}; expected the name of a class")
    found = signature(name, slots)
    if found.module.split(".")[0] == "albumentations":
        # albumentations asks the network for its newest version while it is imported
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    made = getattr(importlib.import_module(found.module), found.name, None)
    if not isinstance(made, type):  # never call anything else on a recipe's word
        raise ZooError(f"class_path {name!r} is no class of {found.module}")
    if is_trusting():
        if slots == INNER:  # what it is part of knows best what it takes
            return made
        fitting = list(slots)
    else:
        fitting = [slot for slot in slots if slot.takes(f"{found.module}.{found.name}")]
    if not any(issubclass(made, _base(slot)) for slot in fitting):
        expected = fitting or slots
        kinds = " or ".join(slot.kind for slot in expected)
        bases = " or ".join(".".join(slot.base) for slot in expected)
        raise ZooError(f"class_path {name!r} is not {kinds}; expected a class derived from {bases}")
    return made


def _base(slot: Slot) -> type:
    module, name = slot.base
    base: type = getattr(importlib.import_module(module), name)
    return base


def _arguments(node: dict[str, Any]) -> dict[str, Any]:
    arguments = node.get("init_args", {})
    if not isinstance(arguments, dict):
        raise ZooError(f"init_args of {node['class_path']} is {arguments!r}; expected a mapping")
    parameters = signature(node["class_path"]).parameters
    return {key: _value(value, parameters.get(key)) for key, value in arguments.items()}


def _value(value: Any, parameter: Parameter | None = None) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        if parameter is not None and parameter.deferred:
            made = _callable(value, (OPTIMIZER, SCHEDULE))
            return functools.partial(made, **_arguments(value))
        return _callable(value, INNER)(**_arguments(value))
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value
