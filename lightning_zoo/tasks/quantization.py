from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_zoo import int8
from lightning_zoo.errors import ZooError
from lightning_zoo.models import get_entry
from lightning_zoo.models.registry import registry
from lightning_zoo.optim import Length, OptimizerCallable, ScheduleCallable
from lightning_zoo.tasks.base import IMAGENET_MEAN, IMAGENET_STD
from lightning_zoo.tasks.classification import Batch, ClassificationTask

Logits = Callable[[Tensor], Tensor]

# Heads that are there for training alone.
AUXILIARY = ("aux1", "aux2", "AuxLogits")


class QuantizationTask(ClassificationTask):
    """Bring a trained classifier to INT8 weights and activations.

    ``ptq`` lets the float network look at training images and notes the range of every activation;
    nothing is trained. ``qat`` trains on with rounding simulated. What is measured is the converted
    network, on the CPU: ``acc@1`` is INT8's; of ``qat``, ``fake_acc@1`` is that of the simulation.

    Paper: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, https://arxiv.org/abs/1712.05877.

    Args:
        model: Name of the network, a classifier.
        num_classes: Number of logits; None takes the number of classes in the data.
        weights: Published name or file of the trained float network; the name of published INT8
            weights (``IMAGENET1K_FBGEMM_V1``) can be measured, and no more. None starts from
            random weights.
        model_args: Further arguments of the network's constructor.
        multilabel: See :class:`~lightning_zoo.tasks.ClassificationTask`.
        method: ``ptq``, quantization after training, or ``qat``, quantization-aware training.
        image_size: Side in pixels of the images that the network is traced with.
        observer_epochs: Epochs of ``qat`` in which the ranges of activations follow the images;
            they stay as they are after that.
        norm_epochs: Epochs of ``qat`` in which the statistics of batch norms follow the images.
        optimizer: Optimizer that waits for its parameters; ``qat`` needs one.
        lr_schedule: Schedule that waits for the run's length; None keeps the rate.
        label_smoothing: Share of the target spread evenly over all classes.
        mean: See :class:`~lightning_zoo.tasks.base.Task`.
        std: See there.
        norm_weight_decay: See there.
        bias_weight_decay: See there.
    """

    def __init__(
        self,
        model: str,
        *,
        num_classes: int | None = None,
        weights: str | None = None,
        model_args: dict[str, Any] | None = None,
        multilabel: bool = False,
        method: Literal["ptq", "qat"] = "ptq",
        image_size: int = 224,
        observer_epochs: int = 5,
        norm_epochs: int = 4,
        optimizer: OptimizerCallable | None = None,
        lr_schedule: ScheduleCallable | None = None,
        label_smoothing: float = 0.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        norm_weight_decay: float | None = None,
        bias_weight_decay: float | None = None,
    ) -> None:
        if method not in ("ptq", "qat"):
            raise ZooError(f"model.method is {method!r}; expected ptq or qat")
        if (optimizer is None) != (method == "ptq"):
            raise ZooError(
                "model.method qat trains and needs model.optimizer"
                if method == "qat"
                else "model.method ptq trains nothing; set model.optimizer to null or method to qat"
            )
        for name, value in (("observer_epochs", observer_epochs), ("norm_epochs", norm_epochs)):
            if value < 1:
                raise ZooError(f"model.{name} is {value}; expected 1 or more")
        # what is measured depends on it, and the base class makes the metrics
        self.method, self.is_published = method, weights in published_int8(model)
        super().__init__(
            f"quantization/{model}" if self.is_published else model,
            num_classes=num_classes,
            weights=weights,
            model_args={**(model_args or {}), **({"quantize": True} if self.is_published else {})},
            multilabel=multilabel,
            optimizer=optimizer or _standstill,
            lr_schedule=lr_schedule,
            label_smoothing=label_smoothing,
            mean=mean,
            std=std,
            norm_weight_decay=norm_weight_decay,
            bias_weight_decay=bias_weight_decay,
        )
        self.observer_epochs, self.norm_epochs = observer_epochs, norm_epochs
        self._int8: Logits | None = None  # a function: no part of the state, and never on a GPU
        if self.is_published:
            return
        network = without_auxiliary_heads(self.model)
        # at its own size alone a network is sure to be traced for what it will be used on
        side = max(image_size, get_entry(model).min_size)
        example = torch.zeros(2, 3, side, side)
        self.model = int8.prepare(network, example, qat=method == "qat")
        if report := getattr(network, "load_report", None):
            object.__setattr__(self.model, "load_report", report)
        if method == "ptq":
            self.model.requires_grad_(False)
            # Lightning counts the steps of an optimizer, and an optimizer wants a parameter
            self.still = nn.Parameter(torch.zeros(()))

    def configure(self, length: Length, *, batch_size: int, lr_scale: float, seed: int) -> None:
        """See :class:`~lightning_zoo.tasks.base.Task`.

        Raises:
            ZooError: If the weights are INT8 already.
        """
        if self.is_published:
            raise ZooError(
                "model.weights names an INT8 file, which can be measured (validate) but not "
                "trained; start from the float network's weights"
            )
        super().configure(length, batch_size=batch_size, lr_scale=lr_scale, seed=seed)

    def configure_optimizers(self) -> Any:
        """Build the optimizer; after training there is nothing for it to move."""
        return _standstill([self.still]) if self.method == "ptq" else super().configure_optimizers()

    def on_fit_start(self) -> None:
        """Refuse what would calibrate each process on its own part of the images."""
        if self.method == "ptq" and self.trainer.world_size > 1:
            raise ZooError("model.method ptq runs in one process; use --devices 1")

    def on_train_start(self) -> None:
        """Freeze what is frozen; a run resumed in mid-epoch has no start of the epoch."""
        self._train_on()

    def on_train_epoch_start(self) -> None:
        """Freeze what no longer moves from this epoch on."""
        self._train_on()

    def _train_on(self) -> None:
        """Bring the network to training mode, but for what this epoch leaves as it is."""
        if self.method == "ptq":
            self.model.eval()
            int8.observe(self.model, True)
            return
        # after validation Lightning puts flags back, and an exported graph wants to be called
        self.model.train()
        int8.observe(self.model, self.current_epoch < self.observer_epochs)
        if self.current_epoch >= self.norm_epochs:
            int8.freeze_norms(self.model)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Forget the converted network: this batch changes it."""
        self._int8 = None
        super().on_train_batch_start(batch, batch_idx)

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch; of ``ptq``, the float network's, which moves nothing."""
        if self.method == "qat":
            return super().training_loss(batch)
        with torch.no_grad():
            loss = self.loss(self.model(self.prepare(batch["image"])), batch["label"])
        return loss + 0 * self.still, {}

    def on_validation_start(self) -> None:
        """Keep the ranges from following images that the network is measured on."""
        super().on_validation_start()
        if not self.is_published:
            int8.observe(self.model, False)

    on_test_start = on_validation_start

    def on_validation_end(self) -> None:
        """Go on with an epoch that was measured in its middle."""
        if self.trainer.state.fn == "fit":
            self._train_on()

    def evaluate(self, batch: Batch) -> None:
        """Count one batch; before anything was observed there is nothing to count."""
        if not self.trainer.sanity_checking:
            super().evaluate(batch)

    def log_results(self, split: str) -> None:
        """Log INT8's figures of a split, and those of the simulation."""
        if not self.trainer.sanity_checking:
            super().log_results(split)

    def networks(self) -> Mapping[str, Logits]:
        """Return what is measured: INT8 and, of ``qat``, the simulation."""
        if self.method == "qat":
            return {"": self.int8_logits, "fake_": self.model}
        return {"": self.int8_logits}

    def int8_logits(self, images: Tensor) -> Tensor:
        """Return INT8's logits of normalised images, computed on the CPU."""
        if self._int8 is None:
            self._int8 = self.model if self.is_published else int8.lower(self.program())
        return self._int8(images.cpu()).to(images.device)

    def program(self) -> nn.Module:
        """Return the network as it is now, converted to INT8.

        Raises:
            ZooError: If it has not seen images.
        """
        if not int8.calibrated(self.model):
            raise ZooError("this network has not seen images yet; run: python -m lightning_zoo fit")
        with torch.inference_mode(False), torch.no_grad():
            return int8.convert(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Return INT8's logits ``(N, num_classes)`` of uint8 images ``(N, 3, H, W)``."""
        return self.int8_logits(self.prepare(images))


def published_int8(model: str) -> tuple[str, ...]:
    """Return the names of a classifier's published INT8 weights."""
    entry = registry().get(("quantization", model))
    return () if entry is None else tuple(entry.weights)


def without_auxiliary_heads(network: nn.Module) -> nn.Module:
    """Remove the heads that are there for training alone, and return the network."""
    for name in AUXILIARY:
        if getattr(network, name, None) is not None:
            setattr(network, name, None)
    return network


def _standstill(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.0)
