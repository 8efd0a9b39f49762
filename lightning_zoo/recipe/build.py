"""Turns a recipe's ``{class_path, init_args}`` into objects. Imports what the recipe names."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from lightning_zoo.errors import ZooError
from lightning_zoo.recipe.schema import signature


def build(node: dict[str, Any], **more: Any) -> Any:
    """Build the object that a node describes.

    Args:
        node: ``class_path`` and ``init_args``; nested nodes are built first. Optimizers and
            schedules become partial calls that wait for their first argument.
        more: Arguments that are not the recipe's to give.
    """
    return _callable(node)(**_arguments(node), **more)


def _callable(node: dict[str, Any]) -> Any:
    found = signature(node["class_path"])
    if found.module.split(".")[0] == "albumentations":
        # albumentations asks the network for its newest version while it is imported
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    made = getattr(importlib.import_module(found.module), found.name, None)
    if not isinstance(made, type):  # never call anything else on a recipe's word
        raise ZooError(f"class_path {node['class_path']!r} is no class of {found.module}")
    return made


def _arguments(node: dict[str, Any]) -> dict[str, Any]:
    parameters = signature(node["class_path"]).parameters
    return {
        key: _value(value, deferred=key in parameters and parameters[key].deferred)
        for key, value in node.get("init_args", {}).items()
    }


def _value(value: Any, *, deferred: bool = False) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        if deferred:
            return functools.partial(_callable(value), **_arguments(value))
        return build(value)
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value
