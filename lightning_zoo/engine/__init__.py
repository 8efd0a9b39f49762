"""What the verbs do: recipe, data, task and trainer are joined here, and nowhere else.

The command line is a thin shell over these functions, and Python users call the same ones.
"""

from lightning_zoo.engine.demo import demo
from lightning_zoo.engine.evaluate import EvalResult, evaluate, test, validate
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

__all__ = [
    "Detections",
    "EvalResult",
    "FinetunePlan",
    "FinetuneResult",
    "FitResult",
    "Prediction",
    "QuantizeResult",
    "ReplayResult",
    "Result",
    "Segmentation",
    "VideoResult",
    "demo",
    "evaluate",
    "finetune",
    "fit",
    "plan_finetune",
    "predict",
    "quantize",
    "replay",
    "test",
    "validate",
]
