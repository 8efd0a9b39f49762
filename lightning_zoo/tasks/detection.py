from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_zoo.metrics import CocoMetric, NamedMeans
from lightning_zoo.models.detection.mask_rcnn import MaskRCNN
from lightning_zoo.optim import FineTuning, OptimizerCallable, ScheduleCallable
from lightning_zoo.tasks.base import Origin, Task, check_model_task

Batch = dict[str, Any]


class DetectionTask(Task):
    """Find objects: boxes with classes and scores, and masks where the network has a mask head.

    The batch holds images of any size, ``image`` a list of uint8 ``(3, H, W)`` and ``target`` a
    list of dictionaries; the network normalises, resizes and pads them itself.

    Args:
        model: Name of the network, see ``python -m lightning_zoo models ls --task detection``.
        num_classes: Number of classes with the background, which is class 0; None takes the data's.
        weights: Published name (``COCO_V1``, ``DEFAULT``) or a file to start from; None starts
            from random weights, or from a pretrained backbone.
        pretrained_backbone: Start the backbone from ImageNet's weights; not with ``weights``.
        trainable_backbone_layers: Stages of a pretrained backbone that train, counted from the
            output; None takes the network's default.
        model_args: Further arguments of the network's constructor (``min_size``, ``max_size``,
            ``box_score_thresh`` ...).
        optimizer: Optimizer that waits for its parameters.
        lr_schedule: Schedule that waits for the run's length; None keeps the rate.
        finetuning: See :class:`~lightning_zoo.optim.FineTuning`; None trains all of it alike.
        norm_weight_decay: See :class:`~lightning_zoo.tasks.base.Task`.
        bias_weight_decay: See there.
        ema_decay: See there.
        ema_every_steps: See there.
        ema_warmup_epochs: See there.
        channels_last: See there.
    """

    monitor = ("val/box_map", "max")
    headline: tuple[str, ...] = ("box_map", "box_map50")
    # What the targets of the data have to hold: the data module's ``target`` argument.
    needs: Literal["boxes", "masks", "keypoints"] = "boxes"
    iou_types: tuple[str, ...] = ("bbox",)
    sigmas: tuple[float, ...] | None = None  # of keypoints

    def __init__(
        self,
        model: str,
        *,
        num_classes: int | None = None,
        weights: str | None = None,
        pretrained_backbone: bool = False,
        trainable_backbone_layers: int | None = None,
        model_args: dict[str, Any] | None = None,
        optimizer: OptimizerCallable,
        lr_schedule: ScheduleCallable | None = None,
        finetuning: FineTuning | None = None,
        norm_weight_decay: float | None = None,
        bias_weight_decay: float | None = None,
        ema_decay: float | None = None,
        ema_every_steps: int = 1,
        ema_warmup_epochs: int = 0,
        channels_last: bool = False,
    ) -> None:
        check_model_task(model, "detection")
        if num_classes is None:
            raise ValueError("num_classes is None and no data set was there to count the classes")
        args = dict(model_args or {})
        if pretrained_backbone or weights is not None or args.get("weights_backbone") is not None:
            # what starts from nothing trains as a whole
            args["trainable_backbone_layers"] = trainable_backbone_layers
        args["pretrained_backbone"] = pretrained_backbone and weights is None
        super().__init__(
            Origin(model, num_classes, weights, args),
            optimizer=optimizer,
            lr_schedule=lr_schedule,
            finetuning=finetuning,
            norm_weight_decay=norm_weight_decay,
            bias_weight_decay=bias_weight_decay,
            ema_decay=ema_decay,
            ema_every_steps=ema_every_steps,
            ema_warmup_epochs=ema_warmup_epochs,
            channels_last=channels_last,
        )
        self.num_classes = num_classes
        if isinstance(self.model, MaskRCNN):
            self.needs, self.iou_types = "masks", ("bbox", "segm")
            self.monitor = ("val/mask_map", "max")
            self.headline = ("box_map", "box_map50", "mask_map", "mask_map50")
        # one for the raw weights, one for the averaged ones; they live on the CPU
        self.metrics = {
            prefix: CocoMetric(self.iou_types, (), sigmas=self.sigmas) for prefix in self.networks()
        }
        self.val_losses = NamedMeans()
        self.per_class: list[dict[str, Any]] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return the objects found in uint8 images, a list of ``(3, H, W)``."""
        return self.model(images)

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of one batch, and each of them."""
        losses = self.model(batch["image"], batch["target"])
        return torch.stack(list(losses.values())).sum(), losses

    def evaluate(self, batch: Batch) -> None:
        """Count one batch; nothing is exchanged between ranks before the epoch's end."""
        images, targets = batch["image"], batch["target"]
        for prefix, network in self.networks().items():
            losses, found = network(images, targets, with_losses=True)
            self.metrics[prefix].update(found, targets)
            if not prefix:
                self.val_losses.update(losses, len(images))

    def log_results(self, split: str) -> None:
        """Log ``loss``, each of its terms, and COCO's figures (``box_map`` ...) of a split."""
        losses = self.val_losses.compute()
        self.val_losses.reset()
        results = {f"{split}/{name}": value for name, value in losses.items()}
        results[f"{split}/loss"] = sum(losses.values())
        for prefix, metric in self.metrics.items():
            metric.class_names = self.class_names
            found = metric.compute()
            results |= {f"{split}/{prefix}{name}": value for name, value in found.items()}
            if not prefix:
                self.per_class = metric.per_class()
            metric.reset()
        # everything is already summed over ranks
        self.log_dict({k: torch.tensor(v) for k, v in results.items()}, rank_zero_only=False)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Return ``id`` and the ``detections`` of one batch, on the CPU."""
        found = self(batch["image"])
        on_cpu = [{name: value.cpu() for name, value in one.items()} for one in found]
        return {"id": batch["id"], "detections": on_cpu}
