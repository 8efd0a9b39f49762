from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_zoo.errors import Stopped
from lightning_zoo.runs import Run, now


class RunRecord(Callback):
    """Keeps ``run.json`` true, and puts into each checkpoint what is needed to use it elsewhere.

    Args:
        run: The run's folder.
        config: The resolved recipe.
        class_names: Names of the classes, in the order of the logits.
    """

    def __init__(self, run: Run, config: dict[str, Any], class_names: list[str]) -> None:
        self.run, self.config, self.class_names = run, config, class_names

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the recipe and the class names: plain data, so that loading runs no code."""
        checkpoint["lightning_zoo"] = {"recipe": self.config, "class_names": self.class_names}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures so far."""
        if trainer.is_global_zero:
            self.run.update(results=results(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the run came to its end."""
        if trainer.is_global_zero:
            self.run.update(status="finished", finished=now(), results=results(trainer))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Note what ended the run."""
        if not trainer.is_global_zero:
            return
        if isinstance(exception, (KeyboardInterrupt, Stopped)):
            self.run.update(status="interrupted", finished=now(), error=None)
        else:
            self.run.fail(f"{type(exception).__name__}: {exception}")


def results(trainer: Trainer) -> dict[str, float]:
    """Return the logged figures as plain numbers."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
