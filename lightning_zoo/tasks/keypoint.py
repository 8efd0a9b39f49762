from __future__ import annotations

from typing import Any

from lightning_zoo.keypoints import get_skeleton
from lightning_zoo.optim import FineTuning, OptimizerCallable, ScheduleCallable
from lightning_zoo.tasks.detection import DetectionTask


class KeypointTask(DetectionTask):
    """Find objects and the keypoints of each: any number of them, of any class.

    Everything but the keypoints is :class:`~lightning_zoo.tasks.detection.DetectionTask`'s.

    Args:
        model: Name of the network.
        num_classes: Number of classes with the background, which is class 0; None takes the data's.
        keypoints: Name of the skeleton, a YAML file with one, or its content (see
            :func:`lightning_zoo.keypoints.get_skeleton`); the data module takes the same.
        weights: See DetectionTask.
        pretrained_backbone: See there.
        trainable_backbone_layers: See there.
        model_args: See there.
        optimizer: See there.
        lr_schedule: See there.
        finetuning: See there.
        norm_weight_decay: See there.
        bias_weight_decay: See there.
        ema_decay: See there.
        ema_every_steps: See there.
        ema_warmup_epochs: See there.
        channels_last: See there.
    """

    monitor = ("val/kp_map", "max")
    headline = ("box_map", "box_map50", "kp_map", "kp_map50")
    needs = "keypoints"
    iou_types = ("bbox", "keypoints")

    def __init__(
        self,
        model: str,
        *,
        num_classes: int | None = None,
        keypoints: str | dict[str, Any] = "coco_person",
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
        self.skeleton = get_skeleton(keypoints)
        self.sigmas = self.skeleton.sigmas
        super().__init__(
            model,
            num_classes=num_classes,
            weights=weights,
            pretrained_backbone=pretrained_backbone,
            trainable_backbone_layers=trainable_backbone_layers,
            model_args={"num_keypoints": len(self.skeleton), **(model_args or {})},
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
