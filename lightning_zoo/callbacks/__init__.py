from lightning_zoo.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_zoo.callbacks.console import Console
from lightning_zoo.callbacks.finite import NotFiniteRecord
from lightning_zoo.callbacks.pictures import PredictionPictures
from lightning_zoo.callbacks.ranks import RankWatch
from lightning_zoo.callbacks.run_record import RunRecord
from lightning_zoo.callbacks.stopping import SIGNALS, StopOnSignal

__all__ = [
    "SIGNALS",
    "AtomicCheckpointIO",
    "Checkpoints",
    "Console",
    "NotFiniteRecord",
    "PredictionPictures",
    "RankWatch",
    "RunRecord",
    "StopOnSignal",
]
