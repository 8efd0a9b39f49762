"""Networks against torchvision's, where it is installed: the same weights, inputs and threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.models.registry import get_entry, registry
from lightning_zoo.timing import Work, interleaved, torch_threads

GOAL = 1.0


def published(task: str) -> list[str]:
    """Return the models of a task that have published weights."""
    return [name for (t, name), entry in registry().items() if t == task and entry.weights]


def has_torchvision() -> bool:
    """Whether there is something to compare with."""
    return importlib.util.find_spec("torchvision") is not None


def both_sides(
    build: Callable[[str], Any],
    work: Callable[[Any], Work],
    *,
    memory_format: torch.memory_format = torch.channels_last,
) -> dict[str, Work]:
    """Return what is measured: both sides, with weights as they come and as channels-last.

    Args:
        build: Returns the network of a side, ``ours`` or ``torchvision``.
        work: Returns a function that lets a network do something.
        memory_format: Of the weights; that of a network of clips is another.
    """
    ours = build("ours")
    state = ours.state_dict()
    sides = {}
    for side in ["ours", "torchvision"] if has_torchvision() else ["ours"]:
        for ending, order in (("", torch.contiguous_format), ("_channels_last", memory_format)):
            model = build(side)
            model.load_state_dict(state)
            sides[side + ending] = work(model.to(memory_format=order))
    return sides


def row(
    subject: str, what: str, name: str, best: dict[str, float], unit: str, goal: float
) -> dict[str, Any]:
    """Return a row: ``ratio`` as both come, ``ratio_of_best`` each in its better memory format."""
    found: dict[str, Any] = {"benchmark": subject, "what": what, "model": name}
    found |= {f"{side}_{unit}": round(value, 3) for side, value in best.items()}
    if "torchvision" in best:
        ratio = best["ours"] / best["torchvision"]
        found |= {"ratio": round(ratio, 3), "goal": goal, "reached": ratio <= goal}
    if "torchvision_channels_last" in best:
        ours, theirs = (
            min(value for side, value in best.items() if side.startswith(who))
            for who in ("ours", "torchvision")
        )
        found["ratio_of_best"] = round(ours / theirs, 3)
    return found


@dataclass(frozen=True)
class Subject:
    """What is measured of the networks of a task.

    Attributes:
        task: ``segmentation`` or ``video``.
        build_args: Arguments of a constructor of either side, from the model's name.
        evaluation: Shape of what is evaluated, ``(N, 3, H, W)`` or ``(N, 3, T, H, W)``.
        training: Shape of a batch of training.
        loss: The loss of what a network returned for a batch.
        memory_format: Channels-last for these shapes.
    """

    task: str
    build_args: Callable[[str], dict[str, Any]]
    evaluation: tuple[int, ...]
    training: tuple[int, ...]
    loss: Callable[[Any], Tensor]
    memory_format: torch.memory_format


def benchmark(
    subject: Subject, repeats: int, *, threads: int | None, names: list[str] | None
) -> Iterator[dict[str, Any]]:
    """Yield two rows a network: seconds of an evaluation and of a training step."""
    with torch_threads(threads) as count:
        for name in names or published(subject.task):
            for what, work in (("evaluation", evaluation), ("training step", training_step)):
                sides = both_sides(
                    lambda side, name=name: build(subject, side, name),  # type: ignore[misc]
                    lambda model, work=work: work(subject, model),  # type: ignore[misc]
                    memory_format=subject.memory_format,
                )
                best = interleaved(sides, repeats)
                shape = subject.evaluation if work is evaluation else subject.training
                facts = {"shape": list(shape), "threads": count}
                yield row(subject.task, what, name, best, "s", GOAL) | facts


def build(subject: Subject, side: str, name: str) -> Any:
    """Return a network of one side, with random weights."""
    args = subject.build_args(name)
    if side == "ours":
        if subject.task == "segmentation":
            args["pretrained_backbone"] = False
        return get_entry(name, subject.task).load_builder()(**args)
    import torchvision

    if subject.task == "segmentation":
        args["weights_backbone"] = None
    return getattr(getattr(torchvision.models, subject.task), name)(weights=None, **args)


def evaluation(subject: Subject, model: Any) -> Work:
    """Return a function that evaluates one batch."""
    model.eval()
    batch = torch.randn(subject.evaluation, generator=torch.Generator().manual_seed(0))

    def find() -> None:
        with torch.inference_mode():
            model(batch)

    return find


def training_step(subject: Subject, model: Any) -> Work:
    """Return a function that does one step of training."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    batch = torch.randn(subject.training, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        loss = subject.loss(model(batch))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step
