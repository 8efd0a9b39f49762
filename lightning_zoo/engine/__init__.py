"""What the verbs do: recipe, data, task and trainer are joined here, and nowhere else.

The command line is a thin shell over these functions, and Python users call the same ones.
"""

from lightning_zoo.engine.demo import demo
from lightning_zoo.engine.evaluate import EvalResult, evaluate, test, validate
from lightning_zoo.engine.fit import FitResult, fit
from lightning_zoo.engine.predict import Detections, Prediction, predict
from lightning_zoo.engine.quantize import QuantizeResult, quantize

__all__ = [
    "Detections",
    "EvalResult",
    "FitResult",
    "Prediction",
    "QuantizeResult",
    "demo",
    "evaluate",
    "fit",
    "predict",
    "quantize",
    "test",
    "validate",
]
