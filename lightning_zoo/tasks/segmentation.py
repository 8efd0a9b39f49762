from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.errors import ZooError
from lightning_zoo.metrics import ConfusionMatrix
from lightning_zoo.optim import FineTuning, OptimizerCallable, ScheduleCallable
from lightning_zoo.tasks.base import IMAGENET_MEAN, IMAGENET_STD, Origin, Task, check_model_task

Batch = dict[str, Any]
VOID = 255  # the label of pixels that nobody has to know


class SegmentationTask(Task):
    """Name the class of every pixel.

    In training ``image`` is uint8 ``(N, 3, H, W)`` and ``mask`` uint8 ``(N, H, W)`` with 255 where
    nothing is to be learned. In evaluation both are lists, as images differ in size and padding
    would change the figures.

    Args:
        model: Name of the network, see ``python -m lightning_zoo models ls --task segmentation``.
        num_classes: Number of classes with the background, if there is one; None takes the data's.
        weights: Published name (``COCO_WITH_VOC_LABELS_V1``, ``DEFAULT``) or a file to start from;
            None starts from random weights, or from a pretrained backbone.
        pretrained_backbone: Start the backbone from ImageNet's weights; not with ``weights``.
        aux_loss: Whether a second head learns from the backbone's middle; LR-ASPP has none.
        aux_weight: Weight of that head's loss.
        class_weights: Weight of each class in the cross entropy; None weighs them alike.
        dice_weight: Weight of the dice loss, added to the cross entropy; 0 leaves it out.
        backbone_lr_factor: Factor on the learning rate of the backbone.
        aux_lr_factor: Factor on the learning rate of the second head.
        model_args: Further arguments of the network's constructor.
        optimizer: Optimizer that waits for its parameters.
        lr_schedule: Schedule that waits for the run's length; None keeps the rate.
        finetuning: See :class:`~lightning_zoo.optim.FineTuning`; None trains all of it alike.
        mean: See :class:`~lightning_zoo.tasks.base.Task`.
        std: See there.
        norm_weight_decay: See there.
        bias_weight_decay: See there.
        ema_decay: See there.
        ema_every_steps: See there.
        ema_warmup_epochs: See there.
        channels_last: See there.
    """

    monitor = ("val/miou", "max")
    headline = ("miou", "pixel_acc")
    # What the data has to hold: the data module's ``target``.
    needs = "segmentation"
    counts_background = True

    def __init__(
        self,
        model: str,
        *,
        num_classes: int | None = None,
        weights: str | None = None,
        pretrained_backbone: bool = False,
        aux_loss: bool = False,
        aux_weight: float = 0.5,
        class_weights: Sequence[float] | None = None,
        dice_weight: float = 0.0,
        backbone_lr_factor: float = 1.0,
        aux_lr_factor: float = 10.0,
        model_args: dict[str, Any] | None = None,
        optimizer: OptimizerCallable,
        lr_schedule: ScheduleCallable | None = None,
        finetuning: FineTuning | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        norm_weight_decay: float | None = None,
        bias_weight_decay: float | None = None,
        ema_decay: float | None = None,
        ema_every_steps: int = 1,
        ema_warmup_epochs: int = 0,
        channels_last: bool = False,
    ) -> None:
        check_model_task(model, "segmentation")
        if num_classes is None:
            raise ValueError("num_classes is None and no data set was there to count the classes")
        if not 1 <= num_classes <= VOID:
            raise ZooError(f"num_classes is {num_classes}; expected 1 to {VOID}")
        if class_weights is not None and len(class_weights) != num_classes:
            raise ZooError(
                f"class_weights has {len(class_weights)} weights; expected one for each of the "
                f"{num_classes} classes"
            )
        for name, value in (
            ("aux_weight", aux_weight),
            ("dice_weight", dice_weight),
            ("backbone_lr_factor", backbone_lr_factor),
            ("aux_lr_factor", aux_lr_factor),
        ):
            if value < 0:
                raise ZooError(f"{name} is {value}; expected 0 or more")
        args = dict(model_args or {})
        args["pretrained_backbone"] = pretrained_backbone and weights is None
        if aux_loss:
            args["aux_loss"] = True
        super().__init__(
            Origin(model, num_classes, weights, args),
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
        self.num_classes = num_classes
        self.aux_weight, self.dice_weight = aux_weight, dice_weight
        self.backbone_lr_factor, self.aux_lr_factor = backbone_lr_factor, aux_lr_factor
        per_class = None if class_weights is None else torch.tensor(class_weights).float()
        self.register_buffer("class_weights", per_class, persistent=False)
        self.metrics = torch.nn.ModuleDict(
            {f"metrics_{prefix}": ConfusionMatrix(num_classes) for prefix in self.networks()}
        )
        self.per_class: list[dict[str, Any]] = []

    def lr_factors(self) -> dict[str, float]:
        """Return the factors of the backbone and of the second head, where there is one."""
        factors = {"backbone": self.backbone_lr_factor}
        if getattr(self.model, "aux_classifier", None) is not None:
            factors["aux_classifier"] = self.aux_lr_factor
        return factors

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes, H, W)`` of uint8 images ``(N, 3, H, W)``."""
        return self.model(self.prepare(images))["out"]

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch, the second head's included."""
        x, target = self.prepare(batch["image"]), batch["mask"].long()
        output = self.model(x)
        parts = {"loss_out": self.loss(output["out"], target)}
        loss = parts["loss_out"]
        if "aux" in output:
            parts["loss_aux"] = self.loss(output["aux"], target)
            loss = loss + self.aux_weight * parts["loss_aux"]
        return loss, parts if len(parts) > 1 else {}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return cross entropy, plus dice where it has a weight, over the pixels that count.

        Args:
            logits: Float ``(N, C, H, W)``.
            target: int64 ``(N, H, W)``, 255 where nothing is learned.
        """
        logits = logits.float()
        weights = cast("Tensor | None", self.class_weights)
        loss = cross_entropy(logits, target, weights)
        if self.dice_weight:
            loss = loss + self.dice_weight * dice_loss(logits, target)
        return loss

    def evaluate(self, batch: Batch) -> None:
        """Count one batch; nothing is exchanged between ranks before the epoch's end."""
        for rows in same_size(batch["image"]):
            x = self.prepare(torch.stack([batch["image"][i] for i in rows]))
            masks = torch.stack([batch["mask"][i] for i in rows])
            for prefix, network in self.networks().items():
                logits = network(x)["out"].float()
                confusion = cast(ConfusionMatrix, self.metrics[f"metrics_{prefix}"])
                confusion.update(best_class(logits), masks)
                if not prefix:
                    for one, truth in zip(logits, masks.long(), strict=True):
                        self.val_loss.update(self.loss(one[None], truth[None]), 1)

    def log_results(self, split: str) -> None:
        """Log ``loss``, ``miou`` and ``pixel_acc`` of a split, the last two in per cent."""
        results = {f"{split}/loss": self.val_loss.compute()}
        self.val_loss.reset()
        for prefix in self.networks():
            confusion = cast(ConfusionMatrix, self.metrics[f"metrics_{prefix}"])
            found = confusion.compute()
            results |= {f"{split}/{prefix}{name}": value for name, value in found.items()}
            if not prefix:
                self.per_class = confusion.per_class(self.class_names)
            confusion.reset()
        # the counts are already summed over ranks
        self.log_dict({k: v.float() for k, v in results.items()}, rank_zero_only=False)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Return ``id`` and ``segmentation``: a map of labels, uint8 ``(H, W)``, for each image."""
        maps = [best_class(self(image[None]))[0].to(torch.uint8).cpu() for image in batch["image"]]
        return {"id": batch["id"], "segmentation": maps}


def best_class(logits: Tensor) -> Tensor:
    """Return the class of the highest logit, int64 ``(N, H, W)`` for ``(N, C, H, W)``."""
    return logits.max(dim=1).indices  # argmax takes five times as long on a CPU


def same_size(images: Sequence[Tensor]) -> list[list[int]]:
    """Return the positions of the images, those of one size together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(i)
    return list(groups.values())


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross entropy of the pixels that are not void; 0 where all are.

    Args:
        logits: Float ``(N, C, H, W)``.
        target: int64 ``(N, H, W)``, 255 for void.
        class_weights: Float ``(C,)``; the mean is then the weighted one.
    """
    total = F.cross_entropy(
        logits, target, weight=class_weights, ignore_index=VOID, reduction="sum"
    )
    counted = target != VOID
    if class_weights is None:
        return total / counted.sum().clamp(min=1)
    weight = class_weights[target.where(counted, 0)].where(counted, 0.0).sum()
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one minus the soft dice coefficient, a mean over the classes that the batch shows.

    Paper: Milletari et al., "V-Net", 3DV 2016, https://arxiv.org/abs/1606.04797 (with plain instead
    of squared sums).

    Args:
        logits: Float ``(N, C, H, W)``.
        target: int64 ``(N, H, W)``, 255 for void.
    """
    counted = target != VOID
    probs = logits.softmax(dim=1) * counted[:, None]
    truth = F.one_hot(target.where(counted, 0), logits.shape[1]).movedim(-1, 1)
    truth = (truth * counted[:, None]).to(probs.dtype)
    common, both = (probs * truth).sum(dim=(0, 2, 3)), (probs + truth).sum(dim=(0, 2, 3))
    shown = truth.sum(dim=(0, 2, 3)) > 0
    scores = (2 * common / both.clamp(min=1e-6)) * shown
    return (shown.sum() - scores.sum()) / shown.sum().clamp(min=1)
