from lightning_zoo.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_zoo.callbacks.console import Console
from lightning_zoo.callbacks.pictures import PredictionPictures
from lightning_zoo.callbacks.run_record import RunRecord

__all__ = ["AtomicCheckpointIO", "Checkpoints", "Console", "PredictionPictures", "RunRecord"]
