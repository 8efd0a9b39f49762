"""Exponential moving average of the weights, by the rule of torchvision's reference scripts."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_copy(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of ``model`` whose parameters and buffers follow it with factor ``decay``.

    The copy's first update takes the weights as they are.
    """
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def reference_decay(decay: float, *, batch_size: int, every_steps: int, epochs: int) -> float:
    """Return the decay of one update, from a decay stated for a run of ``epochs`` epochs.

    The reference scripts state a decay that is independent of batch size, update interval and
    length of the run: ``1 - decay`` is multiplied by ``batch_size * every_steps / epochs``, at most
    to 1.

    Args:
        decay: The recipe's figure, 0.99998 for instance.
        batch_size: Images of one optimizer step, on all devices.
        every_steps: Optimizer steps between two updates.
        epochs: Epochs of the run.
    """
    return 1.0 - min(1.0, (1.0 - decay) * batch_size * every_steps / epochs)
