from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAveragePrecision

from lightning_zoo.metrics import TopKAccuracy
from lightning_zoo.optim import FineTuning, OptimizerCallable, ScheduleCallable
from lightning_zoo.tasks.base import IMAGENET_MEAN, IMAGENET_STD, Origin, Task, check_model_task
from lightning_zoo.transforms.mixing import Mixing

Batch = dict[str, Any]


class ClassificationTask(Task):
    """Classify images ``(N, 3, H, W)`` with one label each, or with several.

    Args:
        model: Name of the network, see ``python -m lightning_zoo models ls``.
        num_classes: Number of logits; None takes the number of classes in the data.
        weights: Published name (``IMAGENET1K_V1``, ``DEFAULT``) or a file to start from; None
            starts from random weights.
        model_args: Further arguments of the network's constructor.
        multilabel: Whether an image may have any number of labels (binary cross entropy, mean
            average precision) rather than exactly one (cross entropy, accuracy).
        optimizer: Optimizer that waits for its parameters.
        lr_schedule: Schedule that waits for the run's length; None keeps the rate.
        finetuning: See :class:`~lightning_zoo.optim.FineTuning`; None trains all of it alike.
        label_smoothing: Share of the target spread evenly over all classes.
        aux_weight: Weight of each auxiliary head's loss (GoogLeNet 0.3, Inception v3 0.4).
        mixup_alpha: Parameter of mixup's beta distribution; 0 turns it off.
        cutmix_alpha: Parameter of cutmix's beta distribution; 0 turns it off. With both on, each
            batch takes one of the two at random.
        mean: See :class:`~lightning_zoo.tasks.base.Task`.
        std: See there.
        norm_weight_decay: See there.
        bias_weight_decay: See there.
        ema_decay: See there.
        ema_every_steps: See there.
        ema_warmup_epochs: See there.
        channels_last: See there.
    """

    monitor = ("val/acc@1", "max")

    def __init__(
        self,
        model: str,
        *,
        num_classes: int | None = None,
        weights: str | None = None,
        model_args: dict[str, Any] | None = None,
        multilabel: bool = False,
        optimizer: OptimizerCallable,
        lr_schedule: ScheduleCallable | None = None,
        finetuning: FineTuning | None = None,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.3,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        norm_weight_decay: float | None = None,
        bias_weight_decay: float | None = None,
        ema_decay: float | None = None,
        ema_every_steps: int = 1,
        ema_warmup_epochs: int = 0,
        channels_last: bool = False,
    ) -> None:
        check_model_task(model.removeprefix("quantization/"), "classification")
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
        self.num_classes, self.multilabel = num_classes, multilabel
        self.label_smoothing, self.aux_weight = label_smoothing, aux_weight
        self.mixing = (
            Mixing(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha, num_classes=num_classes)
            if mixup_alpha or cutmix_alpha
            else None
        )
        if multilabel:
            self.monitor = ("val/map", "max")
        # one set of metrics for the raw weights, one for the averaged ones
        self.metrics = torch.nn.ModuleDict(
            {f"metrics_{prefix}": self.new_metric() for prefix in self.networks()}
        )

    def _metric(self, prefix: str) -> Metric:
        return cast(Metric, self.metrics[f"metrics_{prefix}"])

    def new_metric(self) -> Metric:
        """Return a metric that takes logits and labels: accuracies, or mean average precision."""
        if self.multilabel:
            return MultilabelAveragePrecision(num_labels=self.num_classes)
        # with five classes or fewer, every sample has its label among the five best
        return TopKAccuracy((1, 5) if self.num_classes > 5 else (1,))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of uint8 images ``(N, 3, H, W)``."""
        return self.model(self.prepare(images))

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch, auxiliary heads included."""
        x, target = self.prepare(batch["image"]), batch["label"]
        if "erase" in batch:
            x = erase(x, batch["erase"])
        if self.mixing is not None:
            x, target = self.mixing(x, target)
        output = self.model(x)
        # GoogLeNet and Inception return the logits first, then those of their auxiliary heads
        logits, *aux = output if isinstance(output, tuple) else (output,)
        loss = self.loss(logits, target)
        for head in aux:
            if head is not None:
                loss = loss + self.aux_weight * self.loss(head, target)
        return loss, {}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss; labels are int64 ``(N,)`` or float32 ``(N, num_classes)``."""
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def evaluate(self, batch: Batch) -> None:
        """Count one batch; nothing is exchanged between ranks before the epoch's end."""
        x, target = self.prepare(batch["image"]), batch["label"]
        for prefix, network in self.networks().items():
            logits = network(x).float()
            labels = target.long() if self.multilabel else target
            self._metric(prefix).update(logits, labels)
            if not prefix:
                loss = (
                    self.loss(logits, target)
                    if self.multilabel
                    else F.cross_entropy(logits, target)
                )
                self.val_loss.update(loss, len(x))

    def log_results(self, split: str) -> None:
        """Log ``loss``, ``acc@1`` and ``acc@5`` of a split; averaged weights add ``ema_...``."""
        results = {f"{split}/loss": self.val_loss.compute()}
        self.val_loss.reset()
        for prefix in self.networks():
            metric = self._metric(prefix)
            found = metric.compute()
            named = {"map": 100 * found} if self.multilabel else found
            results |= {f"{split}/{prefix}{name}": value for name, value in named.items()}
            metric.reset()
        # the metrics are already summed over ranks
        self.log_dict({k: v.float() for k, v in results.items()}, rank_zero_only=False)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Return ``id`` and the probabilities ``(N, num_classes)`` of one batch."""
        logits = self(batch["image"]).float()
        probs = logits.sigmoid() if self.multilabel else logits.softmax(dim=1)
        return {"id": batch["id"], "probs": probs}


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set one rectangle of each image to zero, the mean colour of normalised images.

    Args:
        images: Float ``(N, 3, H, W)``, normalised.
        boxes: int64 ``(N, 4)`` of ``y0, x0, height, width`` in pixels; no height erases nothing.
    """
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    y0, x0, height, width = boxes[:, :, None].unbind(1)  # each (N, 1)
    inside_y = (rows >= y0) & (rows < y0 + height)  # (N, H)
    inside_x = (columns >= x0) & (columns < x0 + width)  # (N, W)
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return images.masked_fill(inside, 0.0)
