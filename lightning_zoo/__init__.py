"""The classic torchvision model zoo, trained and measured with PyTorch Lightning recipes.

>>> import lightning_zoo as lz
>>> result = lz.fit("resnet18", {"data.root": "data/imagenet"})
>>> lz.validate(result.run).metrics["val/acc@1"]

Importing the package imports nothing heavy: what is used is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning_zoo import models as models
    from lightning_zoo.engine.demo import demo
    from lightning_zoo.engine.evaluate import EvalResult, test, validate
    from lightning_zoo.engine.fit import FitResult, fit
    from lightning_zoo.engine.predict import Detections, Prediction, predict
    from lightning_zoo.engine.quantize import QuantizeResult, quantize
    from lightning_zoo.errors import ZooError
    from lightning_zoo.recipe import Recipe, list_recipes, load_recipe

_HOMES = {
    "engine": "Detections EvalResult FitResult Prediction QuantizeResult demo fit predict quantize "
    "test validate",
    "errors": "ZooError",
    "recipe": "Recipe list_recipes load_recipe",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Detections",
    "EvalResult",
    "FitResult",
    "Prediction",
    "QuantizeResult",
    "Recipe",
    "ZooError",
    "demo",
    "fit",
    "list_recipes",
    "load_recipe",
    "models",
    "predict",
    "quantize",
    "test",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("lightning_zoo.models")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"lightning_zoo.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
