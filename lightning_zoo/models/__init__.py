"""Every model of the classic torchvision zoo, under its own name: ``models.resnet50()``.

Names resolve when they are first used, so importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_zoo.models.registry import get_entry, get_weights, list_models, registry

if TYPE_CHECKING:
    from torch import nn

    from lightning_zoo.models.classification import *  # noqa: F403

__all__ = ["get_entry", "get_model", "get_weights", "list_models", "registry"]


def get_model(name: str, **kwargs: Any) -> nn.Module:
    """Build a model by name; ``kwargs`` go to its constructor.

    Raises:
        ZooError: If there is no such model; the text names the nearest.
    """
    return get_entry(name).load_builder()(**kwargs)


def __getattr__(name: str) -> Any:
    import importlib

    if ("classification", name) in registry():
        return registry()["classification", name].load_builder()
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    names = {*__all__, "classification", "detection", "quantization", "segmentation", "video"}
    return sorted(names | {name for task, name in registry() if task == "classification"})
