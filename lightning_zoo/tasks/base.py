"""What every task shares: normalising on the device, optimizer and schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_zoo.batch import counted
from lightning_zoo.errors import NotFiniteError, ZooError
from lightning_zoo.metrics import SampleMean
from lightning_zoo.models import get_entry, get_model, hub
from lightning_zoo.models.transfer import KeptRows, head_tensors, keep_class_rows, table
from lightning_zoo.optim import (
    LR_FACTOR,
    FineTuning,
    Length,
    OptimizerCallable,
    ScheduleCallable,
    Thaw,
    averaged_copy,
    param_groups,
    reference_decay,
)
from lightning_zoo.tasks.finite import (
    BuffersBefore,
    Evidence,
    all_finite,
    listed,
    not_finite,
    plain_ids,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Origin:
    """What a task's network is built from.

    Attributes:
        model: Name of the network.
        num_classes: Its classes.
        weights: Published name or file that it starts from; None for none.
        model_args: Further arguments of its constructor.
    """

    model: str
    num_classes: int
    weights: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return the network."""
        return get_model(
            self.model, weights=self.weights, num_classes=self.num_classes, **self.model_args
        )


class Task(LightningModule):
    """One network, what it minimises and what it is measured by.

    Args:
        origin: What the network that is trained is built from.
        optimizer: Optimizer that waits for its parameters.
        lr_schedule: Schedule that waits for the run's length; None keeps the rate.
        finetuning: How what the weights brought learns; None: as all the rest does.
        mean: Per-channel mean of RGB values in [0, 1] that images are normalised with.
        std: Per-channel standard deviation.
        norm_weight_decay: Weight decay of normalisation layers; None leaves the optimizer's.
        bias_weight_decay: Weight decay of other layers' biases; None leaves the optimizer's.
        ema_decay: Decay of the averaged weights in the reference scripts' units (see
            :func:`lightning_zoo.optim.reference_decay`); None keeps no average.
        ema_every_steps: Optimizer steps between two updates of the average.
        ema_warmup_epochs: Epochs in which the average just follows the weights.
        channels_last: Whether network and images use the channels-last memory format.
    """

    # Metric that says which epoch was best, and whether high or low is good.
    monitor = ("val/loss", "min")
    # Metrics that the console's table shows beside the loss; empty: all there are.
    headline: tuple[str, ...] = ()
    # What a batch counts.
    unit: str = "image"
    # Whether the background is a class like the others.
    counts_background = False
    channels_last_format: torch.memory_format = torch.channels_last
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        origin: Origin,
        *,
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
        super().__init__()
        self.memory_format = self.channels_last_format if channels_last else torch.contiguous_format
        network = origin.build()
        self.model = network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.origin, self.finetuning = origin, finetuning
        if finetuning is not None:
            finetuning.set_momentum(self.model)
        self.optimizer, self.lr_schedule = optimizer, lr_schedule
        self.norm_weight_decay, self.bias_weight_decay = norm_weight_decay, bias_weight_decay
        self.ema_decay, self.ema_every_steps = ema_decay, ema_every_steps
        self.ema_warmup_epochs = ema_warmup_epochs
        # (x / 255 - mean) / std, as one subtraction and one product on uint8 values
        self.register_buffer("mean", torch.tensor(mean) * 255, persistent=False)
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255), persistent=False)
        self.ema = averaged_copy(self.model, 0.0) if ema_decay is not None else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        self.length = Length(1, 1)
        self.lr_scale = 1.0
        self.seed = 0
        # Names of the classes by label, for tables; the engine fills them in from the data
        self.class_names: Sequence[str] = ()
        # The epoch's loss so far; a torchmetrics metric would cost more than the rest of our layer
        self.loss_sum: Tensor | None = None
        self.loss_count = 0
        self.val_loss = SampleMean()
        # Of fine-tuning: the parameters that are new, what holds the others, what the head kept
        self.head: tuple[str, ...] | None = None
        self.thaw: Thaw | None = None
        self.kept_rows: KeptRows | None = None
        self.is_resumed = hub.is_structure_only()
        # Of the forward pass that runs: what to keep of it if its loss is no finite number
        self.evidence: Evidence | None = None
        self.buffers_before = BuffersBefore()
        self.draw_seed: int | None = None
        self.ids_of_step: list[Any] = []  # the samples of each forward pass so far

    def configure(self, length: Length, *, batch_size: int, lr_scale: float, seed: int) -> None:
        """Tell the task about the run it is part of; called once, before the trainer starts.

        Args:
            length: Optimizer steps of an epoch, and epochs.
            batch_size: Images of one optimizer step, on all devices.
            lr_scale: Factor on the recipe's learning rate.
            seed: Seed of the run.
        """
        self.length, self.lr_scale, self.seed = length, lr_scale, seed
        if self.ema is not None and self.ema_decay is not None:
            decay = reference_decay(
                self.ema_decay,
                batch_size=batch_size,
                every_steps=self.ema_every_steps,
                epochs=length.epochs,
            )
            self.ema.multi_avg_fn = averaged_copy(nn.Identity(), decay).multi_avg_fn
        if self.finetuning is not None and not self.is_resumed:
            self._begin_finetuning(self.finetuning)

    def _begin_finetuning(self, finetuning: FineTuning) -> None:
        """Give known classes their rows, and find what is new."""
        origin, loaded = self.origin, hub.from_file(self.model)
        if not loaded:
            return
        if origin.weights is not None and finetuning.keep_known_classes and self.class_names:
            self.kept_rows = keep_class_rows(
                self.model,
                model=origin.model,
                weights=origin.weights,
                class_names=self.class_names,
                model_args=origin.model_args,
            )
            if self.ema is not None:
                self.ema.module.load_state_dict(self.model.state_dict())
        names = [name for name, _ in self.model.named_parameters()]
        head = [name for name in names if name not in loaded]
        if not head:  # the file brought that too
            found = head_tensors(
                origin.model,
                origin.num_classes,
                weights=origin.weights,
                model_args=origin.model_args,
            )
            head = [name for name in names if name in found]
        self._finetune(finetuning, head)

    def _finetune(self, finetuning: FineTuning, head: Sequence[str]) -> None:
        self.head = tuple(head)
        steps = finetuning.frozen_steps(self.length)
        self.thaw = Thaw(self.model, self.head, steps, freeze_norms=finetuning.freeze_norms)

    def explain_finetuning(self) -> list[str]:
        """Return sentences on what fine-tuning does, for people; none of a run that goes on."""
        if self.finetuning is None or self.is_resumed:
            return []
        if self.head is None or self.thaw is None:
            if (momentum := self.finetuning.norm_momentum) is not None:
                return [f"random; batch norms follow the data with a momentum of {momentum:g}"]
            return ["finetuning has no effect: the network starts from random weights"]
        report = getattr(self.model, "load_report", None)
        lines = [] if report is None else table(report, self.kept_rows).splitlines()
        wait = f"stands still for {counted(self.thaw.steps, 'step')}, then " * bool(self.thaw.steps)
        rate = f"learns at {self.finetuning.backbone_lr_factor:g} of the head's rate"
        lines.append(f"the rest {wait}{rate}")
        if self.finetuning.stage_factor != 1:
            factor = f"{self.finetuning.stage_factor:g}"
            lines.append(f"(times {factor} for each stage towards the input)")
        if self.finetuning.freeze_norms:
            lines.append("(its batch norms stay as they are)")
        return lines

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the schedule that steps with it."""
        groups = param_groups(
            self.model,
            norm_weight_decay=self.norm_weight_decay,
            bias_weight_decay=self.bias_weight_decay,
            lr_factors=self.lr_factors(),
            layers=(
                self.finetuning.layers(self.model, self.head)
                if self.finetuning is not None and self.head is not None
                else ()
            ),
        )
        optimizer = self.optimizer(groups)
        for group in optimizer.param_groups:
            group["lr"] *= self.lr_scale * group.pop(LR_FACTOR, 1.0)
        if self.lr_schedule is None:
            return optimizer
        schedule = self.lr_schedule(self.length)
        scheduler = LambdaLR(optimizer, schedule.factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }

    def lr_factors(self) -> dict[str, float]:
        """Return the factor on the learning rate by part of the network; parts left out have 1."""
        return {}

    def prepare(self, images: Tensor) -> Tensor:
        """Return uint8 images ``(N, 3, ...)`` as normalised float32 ones."""
        per_channel = (1, 3, *[1] * (images.ndim - 2))
        x = (images.float() - self.mean.view(per_channel)) * self.scale.view(per_channel)
        return x.contiguous(memory_format=self.memory_format)

    def training_loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of one batch, and its terms by name; none where it has one alone."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the mean loss of one batch, and record it.

        Raises:
            NotFiniteError: If it is no finite number; optimizer, averaged weights and schedule have
                not seen it, and the network's buffers are as they were.
        """
        self.buffers_before.keep(self.model)
        loss, terms = self.training_loss(batch)
        self.evidence = Evidence(batch, batch_idx, loss.detach(), terms)
        # a GPU is waited for here, once a forward pass; the backward pass is not begun before
        if not math.isfinite(loss.item()):
            self.buffers_before.put_back()
            raise self._not_finite("loss")
        self.record_loss(loss, len(batch["id"]), terms)
        return loss

    def on_after_backward(self) -> None:
        """Look at the gradients of one batch, where that makes no GPU wait.

        There a step with such gradients shows in the next loss, and no checkpoint is written of the
        weights that it made. Those that overflow in float16 are the scaler's to deal with.

        Raises:
            NotFiniteError: If one is not finite.
        """
        if self.device.type == "cpu" and self.evidence is not None:
            groups = self.trainer.optimizers[0].param_groups
            parameters = [p for group in groups for p in group["params"]]
            if not all_finite([p.grad for p in parameters if p.grad is not None]):
                named = ((name, p.grad) for name, p in self.model.named_parameters())
                self.evidence.parameters = not_finite(named)
                self.buffers_before.put_back()
                raise self._not_finite("gradient")
        self.evidence = None

    def _not_finite(self, what: str) -> NotFiniteError:
        evidence = self.evidence
        assert evidence is not None
        evidence.what, evidence.seed = what, self.draw_seed
        evidence.earlier = [plain_ids(ids) for ids in self.ids_of_step[:-1]]
        evidence.epoch, evidence.step = self.current_epoch, self.trainer.global_step
        error = NotFiniteError(evidence.text(self.unit))
        error.evidence = evidence
        return error

    def evaluate(self, batch: Any) -> None:
        """Count one batch of validation or test."""
        raise NotImplementedError

    def log_results(self, split: str) -> None:
        """Log what was counted under ``<split>/``, and start anew."""
        raise NotImplementedError

    def on_validation_start(self) -> None:
        """Measure on every process what the first one saves: norms have seen other images there."""
        if self.trainer.state.fn == "fit" and self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count one batch."""
        self.evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of validation."""
        self.log_results("val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count one batch."""
        self.evaluate(batch)

    def on_test_epoch_end(self) -> None:
        """Log the same figures as validation, under ``test/``."""
        self.log_results("test")

    def networks(self) -> Mapping[str, Callable[..., Any]]:
        """Return the networks to evaluate, raw and averaged, by their metrics' prefix."""
        if self.ema is None:
            return {"": self.model}
        return {"": self.model, "ema_": self.ema.module}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw dropout and mixing from seed, epoch and chunk of images alone.

        A chunk is the images of one forward pass; which device takes it, and when, does not matter.
        So a resumed run draws the same numbers, and so does one on another number of devices.
        """
        chunk = batch_idx * self.trainer.world_size + self.global_rank
        key = (self.seed * 1_000_003 + self.current_epoch) * 1_000_000_007 + chunk
        self.draw_seed = key % 2**63
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.ids_of_step = []
        self.ids_of_step.append(batch["id"])
        # torch.manual_seed takes a millisecond: it queues a call for every kind of device there is
        torch.default_generator.manual_seed(self.draw_seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(self.draw_seed)
        if self.thaw is not None:
            self.thaw.prepare(self.trainer.global_step, toggle=self.trainer.world_size == 1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Forget the gradients of what stands still, before they are clipped."""
        if self.thaw is not None:
            self.thaw.drop(self.trainer.global_step)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Step, then let the averaged weights follow."""
        step = self.trainer.global_step  # from 0; Lightning counts it when this hook is over
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.ema is None:
            return
        if step % self.length.steps_per_epoch % self.ema_every_steps == 0:
            self.ema.update_parameters(self.model)
            if epoch < self.ema_warmup_epochs:
                self.ema.n_averaged.fill_(0)  # the next update copies again

    def record_loss(
        self, loss: Tensor, samples: int, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        """Count a training batch's mean loss, and log it at the steps that loggers write.

        Args:
            loss: Mean loss of the batch, a scalar.
            samples: Images of the batch.
            parts: Terms of the loss by name, logged as ``train/<name>``.
        """
        if self.loss_sum is None or self.loss_sum.device != loss.device:
            start = torch.zeros((), dtype=torch.float64) if self.loss_sum is None else self.loss_sum
            self.loss_sum = start.to(loss.device)
        self.loss_sum.add_(loss.detach(), alpha=samples)
        self.loss_count += samples
        # Lightning's log() takes longer than all the rest of our layer, so not at every step
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            figures = {"train/loss": loss.detach(), "lr": torch.tensor(self.current_lr())}
            figures |= {f"train/{name}": part.detach() for name, part in (parts or {}).items()}
            for name, figure in figures.items():
                self.log(name, figure, batch_size=samples, logger=False)
            self._write(figures, self.trainer.global_step)

    def _write(self, figures: Mapping[str, Tensor], step: int) -> None:
        """Hand figures to the loggers at once.

        Lightning would hand them over after the hooks in which checkpoints are saved, so that a run
        killed in between would miss them for good.
        """
        numbers = {name: float(value) for name, value in figures.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics({**numbers, "epoch": self.current_epoch}, step)
            logger.save()

    def _epoch_loss_of_all_ranks(self) -> Tensor:
        total = 0.0 if self.loss_sum is None else float(self.loss_sum)
        mine = torch.tensor([total, self.loss_count], dtype=torch.float64, device=self.device)
        return self.trainer.strategy.reduce(mine, reduce_op="sum")

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean training loss."""
        total, samples = self._epoch_loss_of_all_ranks()
        mean = (total / samples).float()
        self.log("train/loss_epoch", mean, logger=False)
        self._write({"train/loss_epoch": mean}, self.trainer.global_step - 1)
        self.loss_sum, self.loss_count = None, 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the epoch's loss so far, summed over ranks, and what is new in fine-tuning.

        Raises:
            NotFiniteError: If a weight is not finite: the checkpoint before stays the last.
        """
        if not all_finite([p.detach() for p in self.parameters() if p.is_floating_point()]):
            raise NotFiniteError(
                f"the weights are not finite after step {self.trainer.global_step} and no "
                f"checkpoint is written of them ({listed(not_finite(self.named_parameters()))}); "
                "lower --model.optimizer.lr, or go on from the last checkpoint with --resume auto"
            )
        checkpoint["epoch_loss"] = self._epoch_loss_of_all_ranks().cpu()
        if self.head is not None:
            checkpoint["finetuning"] = {"head": list(self.head)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the epoch's loss up again, on one rank, and go on with fine-tuning."""
        if "finetuning" in checkpoint and self.finetuning is not None:
            self._finetune(self.finetuning, checkpoint["finetuning"]["head"])
        if "epoch_loss" in checkpoint and self._trainer is not None and self.global_rank == 0:
            total, samples = checkpoint["epoch_loss"]
            self.loss_sum, self.loss_count = total.clone(), int(samples)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule; ours never look at a metric."""
        scheduler.step()

    def current_lr(self) -> float:
        """Return the learning rate of the first parameter group."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return float(optimizer.param_groups[0]["lr"])


def check_model_task(name: str, task: str) -> None:
    """Refuse a network of another task, in a sentence that names the one it has."""
    entry = get_entry(name)
    if entry.task != task:
        raise ZooError(f"{name} is a {entry.task} model; expected one for {task}")
