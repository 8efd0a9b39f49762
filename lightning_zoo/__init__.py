"""The classic torchvision model zoo, trained and measured with PyTorch Lightning recipes.

>>> import lightning_zoo as lz
>>> result = lz.fit("resnet18", {"data.root": "data/imagenet"})
>>> lz.validate(result.run).metrics["val/acc@1"]
>>> lz.finetune("maskrcnn_resnet50_fpn", "my_data").report

Importing the package imports nothing heavy: what is used is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning_zoo import models as models
    from lightning_zoo.data_check import check_data, show_data
    from lightning_zoo.doctor import Checkup, Finding, check_machine
    from lightning_zoo.engine.demo import demo
    from lightning_zoo.engine.evaluate import EvalResult, test, validate
    from lightning_zoo.engine.finetune import (
        FinetunePlan,
        FinetuneResult,
        finetune,
        plan_finetune,
    )
    from lightning_zoo.engine.fit import FitResult, fit
    from lightning_zoo.engine.predict import (
        Detections,
        Prediction,
        Result,
        Segmentation,
        VideoResult,
        predict,
    )
    from lightning_zoo.engine.quantize import QuantizeResult, quantize
    from lightning_zoo.engine.replay import ReplayResult, replay
    from lightning_zoo.errors import ZooError
    from lightning_zoo.export import export_run
    from lightning_zoo.formats import read_data
    from lightning_zoo.launch import launch_script
    from lightning_zoo.recipe import Recipe, list_recipes, load_recipe, trust
    from lightning_zoo.report import make_report

_HOMES = {
    "data_check": "check_data show_data",
    "doctor": "Checkup Finding check_machine",
    "engine": "Detections EvalResult FinetunePlan FinetuneResult FitResult Prediction "
    "QuantizeResult ReplayResult Result Segmentation VideoResult demo finetune fit plan_finetune "
    "predict quantize replay test validate",
    "errors": "ZooError",
    "export": "export_run",
    "formats": "read_data",
    "launch": "launch_script",
    "recipe": "Recipe list_recipes load_recipe trust",
    "report": "make_report",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Checkup",
    "Detections",
    "EvalResult",
    "Finding",
    "FinetunePlan",
    "FinetuneResult",
    "FitResult",
    "Prediction",
    "QuantizeResult",
    "Recipe",
    "ReplayResult",
    "Result",
    "Segmentation",
    "VideoResult",
    "ZooError",
    "check_data",
    "check_machine",
    "demo",
    "export_run",
    "finetune",
    "fit",
    "launch_script",
    "list_recipes",
    "load_recipe",
    "make_report",
    "models",
    "plan_finetune",
    "predict",
    "quantize",
    "read_data",
    "replay",
    "show_data",
    "test",
    "trust",
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
