from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device as to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.drawing import batch_tiles, draw_grid
from lightning_zoo.loggers.wandb import log_artifact
from lightning_zoo.loggers.wandb_images import log_predictions
from lightning_zoo.runs import Run


class PredictionPictures(Callback):
    """Draws the predictions on the same validation images, or clips, after each epoch.

    The grid goes to ``pictures/epoch_<n>.png`` of the run folder; W&B gets the single pictures or
    clips, the names of the classes, and at the run's end the best checkpoint as an artifact.

    Args:
        run: The run's folder.
        count: Number of images or videos, spread evenly over the validation set.
    """

    def __init__(self, run: Run, count: int) -> None:
        self.run, self.count = run, count

    def _predict(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        """Return the samples as one batch, and what the network says of them."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = sample_batch(data, self.count)
        if not isinstance(batch, dict):
            return None
        outputs = []
        with torch.no_grad():
            # images that differ in size go one at a time, which needs the least memory
            for part in split_batch(batch) if isinstance(batch.get("image"), list) else [batch]:
                outputs.append(pl_module.predict_step(to_device(part, pl_module.device), 0))
        return batch, outputs

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, unless this is the check before training."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self.count:
            return
        predicted = self._predict(trainer, pl_module)
        if predicted is None:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch, outputs = predicted
        skeleton = getattr(pl_module, "skeleton", None)
        tiles = batch_tiles(batch, outputs, data.class_names, skeleton=skeleton)
        self.run.pictures.mkdir(exist_ok=True)
        path = self.run.pictures / f"epoch_{trainer.current_epoch:04}.png"
        draw_grid(tiles).save(path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_predictions(
                    logger, batch, outputs, tiles, data.class_names, step=trainer.global_step,
                    frame_rate=getattr(data, "frame_rate", None),
                )  # fmt: skip

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the best checkpoint to W&B."""
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, WandbLogger) and self.run.best.is_file():
                results = {k: float(v) for k, v in trainer.callback_metrics.items()}
                log_artifact(logger, self.run, results)


def sample_batch(data: Any, count: int) -> Any:
    """Return ``count`` validation samples, spread evenly, as one batch, or None."""
    dataset = data.datasets.get("val")
    if dataset is None:
        return None
    places: Sequence[int] = range(len(dataset))
    if getattr(data, "target", None) == "video":
        places = one_clip_each([dataset.name(i) for i in places])
    count = min(count, len(places))
    picked = [places[i * len(places) // count] for i in range(count)]
    return data.collate_eval([dataset[SampleKey(0, i)] for i in picked])


def one_clip_each(videos: Sequence[str]) -> list[int]:
    """Return the place of each video's middle clip, given the video of every clip."""
    places: dict[str, list[int]] = {}
    for place, video in enumerate(videos):
        places.setdefault(video, []).append(place)
    return [clips[len(clips) // 2] for clips in places.values()]


def split_batch(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a batch of lists as batches of one image each."""
    return [{k: [v[i]] for k, v in batch.items()} for i in range(len(batch["image"]))]
