from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from lightning_zoo.datamodules.loader import collate
from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.drawing import Tile, draw_grid, draw_tile
from lightning_zoo.drawing.classification import classification_tile
from lightning_zoo.loggers.wandb import log_artifact
from lightning_zoo.runs import Run


class PredictionPictures(Callback):
    """Draws the predictions on the same validation images after each epoch.

    The grid goes to ``pictures/epoch_<n>.png`` of the run folder; W&B gets the single pictures, a
    table of the classes, and at the run's end the best checkpoint as an artifact.

    Args:
        run: The run's folder.
        count: Number of images, spread evenly over the validation set.
    """

    def __init__(self, run: Run, count: int) -> None:
        self.run, self.count = run, count

    def _tiles(self, trainer: Trainer, pl_module: LightningModule) -> list[Tile]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = sample_batch(data.datasets.get("val"), self.count)
        if not isinstance(batch, dict):
            return []
        on_device = {**batch, "image": batch["image"].to(pl_module.device)}
        with torch.no_grad():
            probs = pl_module.predict_step(on_device, 0)["probs"].cpu()
        tiles = []
        for image, label, row in zip(batch["image"], batch["label"], probs, strict=True):
            truth = label.nonzero().flatten().tolist() if data.multilabel else [int(label)]
            pixels = image.permute(1, 2, 0).numpy()
            tiles.append(
                classification_tile(
                    pixels, row.tolist(), data.class_names, truth, multilabel=data.multilabel
                )
            )
        return tiles

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, unless this is the check before training."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self.count:
            return
        tiles = self._tiles(trainer, pl_module)
        if not tiles:
            return
        self.run.pictures.mkdir(exist_ok=True)
        path = self.run.pictures / f"epoch_{trainer.current_epoch:04}.png"
        draw_grid(tiles).save(path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(
                    "val/predictions",
                    [draw_tile(tile, 224) for tile in tiles],
                    step=trainer.global_step,
                    caption=[" | ".join(tile.lines) for tile in tiles],
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the best checkpoint to W&B."""
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, WandbLogger) and self.run.best.is_file():
                results = {k: float(v) for k, v in trainer.callback_metrics.items()}
                log_artifact(logger, self.run, results)


def sample_batch(dataset: Any, count: int) -> Any:
    """Return ``count`` samples, spread evenly over a data set, as one batch."""
    if dataset is None:
        return None
    count = min(count, len(dataset))
    picked = [i * len(dataset) // count for i in range(count)]
    return collate([dataset[SampleKey(0, i)] for i in picked])
