from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.metrics import VideoAccuracy
from lightning_zoo.optim import FineTuning, OptimizerCallable, ScheduleCallable
from lightning_zoo.tasks.base import Origin, Task, check_model_task

Batch = dict[str, Any]
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class VideoTask(Task):
    """Classify clips ``(N, 3, T, H, W)``; a video's score is the mean of its clips' softmax.

    Args:
        model: Name of the network, see ``python -m lightning_zoo models ls --task video``.
        num_classes: Number of logits; None takes the number of classes in the data.
        weights: Published name (``KINETICS400_V1``, ``DEFAULT``) or a file to start from; None
            starts from random weights.
        model_args: Further arguments of the network's constructor.
        optimizer: Optimizer that waits for its parameters.
        lr_schedule: Schedule that waits for the run's length; None keeps the rate.
        finetuning: See :class:`~lightning_zoo.optim.FineTuning`; None trains all of it alike.
        label_smoothing: Share of the target spread evenly over all classes.
        mean: See :class:`~lightning_zoo.tasks.base.Task`; Kinetics' by default.
        std: See there; Kinetics' by default.
        norm_weight_decay: See there.
        bias_weight_decay: See there.
        ema_decay: See there.
        ema_every_steps: See there.
        ema_warmup_epochs: See there.
        channels_last: Whether network and clips use the channels-last memory format of volumes.
    """

    monitor = ("val/acc@1", "max")
    unit = "clip"
    # What the data has to hold: the data module's ``target``.
    needs = "video"
    channels_last_format = torch.channels_last_3d

    def __init__(
        self,
        model: str,
        *,
        num_classes: int | None = None,
        weights: str | None = None,
        model_args: dict[str, Any] | None = None,
        optimizer: OptimizerCallable,
        lr_schedule: ScheduleCallable | None = None,
        finetuning: FineTuning | None = None,
        label_smoothing: float = 0.0,
        mean: tuple[float, float, float] = KINETICS_MEAN,
        std: tuple[float, float, float] = KINETICS_STD,
        norm_weight_decay: float | None = None,
        bias_weight_decay: float | None = None,
        ema_decay: float | None = None,
        ema_every_steps: int = 1,
        ema_warmup_epochs: int = 0,
        channels_last: bool = False,
    ) -> None:
        check_model_task(model, "video")
        if num_classes is None:
            raise ValueError("num_classes is None and no data set was there to count the classes")
        super().__init__(
            Origin(model, num_classes, weights, model_args or {}),
            optimizer=optimizer,
            lr_schedule=lr_schedule,
            finetuning=finetuning,
            mean=mean,
            std=std,
            norm_weight_decay=norm_weight_decay,
            bias_weight_decay=bias_weight_decay,
            ema_decay=ema_decay,
            ema_every_steps=ema_every_steps,
            ema_warmup_epochs=ema_warmup_epochs,
            channels_last=channels_last,
        )
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        # with five classes or fewer, every clip has its label among the five best
        topk = (1, 5) if num_classes > 5 else (1,)
        self.metrics = torch.nn.ModuleDict(
            {f"metrics_{prefix}": VideoAccuracy(topk) for prefix in self.networks()}
        )

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of uint8 clips ``(N, 3, T, H, W)``."""
        return self.model(self.prepare(clips))

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch of clips."""
        logits = self(batch["video"])
        return F.cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing), {}

    def evaluate(self, batch: Batch) -> None:
        """Count one batch; nothing is exchanged between ranks before the epoch's end."""
        x, labels = self.prepare(batch["video"]), batch["label"]
        for prefix, network in self.networks().items():
            logits = network(x).float()
            metric = cast(VideoAccuracy, self.metrics[f"metrics_{prefix}"])
            metric.update(logits.softmax(dim=1), labels, batch["id"], batch["clip"])
            if not prefix:
                self.val_loss.update(F.cross_entropy(logits, labels), len(x))

    def log_results(self, split: str) -> None:
        """Log ``loss``, ``clip_acc@1`` of clips and ``acc@1`` of videos of a split; @5 too."""
        results = {f"{split}/loss": self.val_loss.compute()}
        self.val_loss.reset()
        for prefix in self.networks():
            metric = cast(VideoAccuracy, self.metrics[f"metrics_{prefix}"])
            found = metric.compute()
            results |= {f"{split}/{prefix}{name}": value for name, value in found.items()}
            metric.reset()
        # the metrics are already joined over ranks
        self.log_dict({k: v.float() for k, v in results.items()}, rank_zero_only=False)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Return ``id``, ``clip`` and the probabilities ``(N, num_classes)``, a row a clip."""
        probs = self(batch["video"]).float().softmax(dim=1)
        return {"id": batch["id"], "clip": batch["clip"], "probs": probs}
