"""A step whose loss was no finite number, once more: which module, which sample, which annotation.

>>> import lightning_zoo as lz
>>> found = lz.replay("runs/last")
>>> found.module, found.samples
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_zoo import int8, nonfinite
from lightning_zoo.engine.replay.suspects import (
    Oddity,
    culprits,
    look,
    part_of,
    size_of,
    with_objects,
)
from lightning_zoo.engine.replay.tracing import Trace, largest
from lightning_zoo.engine.session import build_task, hush
from lightning_zoo.errors import ZooError
from lightning_zoo.models import plain_files
from lightning_zoo.recipe import load_recipe
from lightning_zoo.tasks.finite import BuffersBefore, listed, not_finite


@dataclass(frozen=True)
class Sample:
    """A sample of the batch that the loss comes from.

    Attributes:
        position: Its position in the batch.
        id: Its id.
        file: Its file within the data's root, where the run knew it.
        items: Positions of the objects that do it, where it has several and some do.
    """

    position: int
    id: str | int
    file: str
    items: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReplayResult:
    """What a replay found.

    Attributes:
        folder: What was replayed.
        what: ``"loss"``, or ``"gradient"`` where the loss was finite.
        epoch: Epoch, from 0.
        step: Optimizer steps made before it.
        rank: The rank that kept it.
        kept_loss: The loss of the run.
        loss: The loss now.
        is_same: Whether loss and terms are the same to the last bit.
        reproduced: Whether loss or gradient is not finite again.
        terms: The terms of the loss now; empty where it has one alone.
        module: The first module that makes values that are not finite out of such that are; ``""``
            for the network itself, None for none.
        module_type: Its class.
        direction: ``"forward"`` or ``"backward"``, where there is a module.
        input_is_finite: Whether the network was given finite values.
        parameters: Parameters that were not finite before the step.
        gradients: Parameters whose gradients are not finite.
        largest_weight: Name and size of the largest weight before the step.
        samples: The samples that do it alone; empty where all do, or none.
        every_sample: Whether every sample does it alone.
        oddities: What is odd about the batch.
        notes: What else there is to know.
    """

    folder: Path
    what: str
    epoch: int
    step: int
    rank: int
    kept_loss: float
    loss: float
    is_same: bool
    reproduced: bool
    terms: dict[str, float]
    module: str | None
    module_type: str | None
    direction: str | None
    input_is_finite: bool
    parameters: tuple[str, ...]
    gradients: tuple[str, ...]
    largest_weight: tuple[str, float] | None
    samples: tuple[Sample, ...]
    every_sample: bool
    oddities: tuple[Oddity, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return it for people, a few lines."""
        same = "the same to the last bit" if self.is_same else "not the same"
        lines = [
            f"step     {self.step} of epoch {self.epoch}, rank {self.rank}: {self.folder}",
            f"loss     {self.kept_loss:.9g}; replayed {self.loss:.9g}: {same}",
        ]
        if bad := [f"{n} {v:g}" for n, v in self.terms.items() if v - v != 0]:
            lines.append(f"terms    {', '.join(bad)}")
        if self.parameters:
            lines.append(f"weights  not finite before the step: {listed(self.parameters)}")
        lines.append(f"module   {self._where()}")
        if self.gradients:
            lines.append(f"gradient not finite of {listed(self.gradients)}")
        for sample in self.samples:
            objects = f", object {listed(sample.items)}" if sample.items else ""
            lines.append(f"sample   {sample.position} of the batch: {sample.file}{objects}")
        if self.every_sample:
            lines.append("sample   every one of the batch does it alone")
        for odd in self.oddities:
            lines.append(f"odd      {_odd_text(odd)}")
        lines += [f"note     {note}" for note in self.notes]
        lines.append(f"next     {self._advice()}")
        return "\n".join(lines)

    def _where(self) -> str:
        if not self.reproduced:
            return "none: all values are finite now"
        if not self.input_is_finite:
            return "none: what the network is given is not finite"
        if self.module is None:
            if self.what == "gradient":
                return "none: the gradient is not finite between the loss and the network's output"
            return "none: the network's output is finite, and the loss of it is not"
        name = f"{self.module or 'the network'} ({self.module_type})"
        if self.direction == "forward":
            return f"{name}: its output is not finite, its inputs are"
        return f"{name}: its gradient is not finite, that of its output is"

    def _advice(self) -> str:
        if not self.reproduced:
            return "go on with: python -m lightning_zoo fit ... --resume auto"
        if self.parameters:
            return (
                "the weights were lost before; lower --model.optimizer.lr and go on from the last "
                "checkpoint with --resume auto"
            )
        if self.samples:
            files = ", ".join(sample.file for sample in self.samples)
            return f"mend or remove {files}, then go on with --resume auto"
        name, size = self.largest_weight or ("", 0.0)
        return (
            f"the largest weight is {size:.3g} ({name}); lower --model.optimizer.lr or set "
            "--trainer.gradient_clip_val"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; losses are texts, for JSON has no nan."""
        found = asdict(self)
        found["folder"] = str(self.folder)
        for name in ("loss", "kept_loss"):
            found[name] = str(found[name])
        found["terms"] = {name: str(value) for name, value in self.terms.items()}
        for odd in found["oddities"]:
            odd["box"] = None if odd["box"] is None else [str(value) for value in odd["box"]]
        return found


def _odd_text(odd: Oddity) -> str:
    if odd.item is None or odd.box is None:
        return f"sample {odd.sample}: {odd.text}"
    box = ", ".join(f"{value:g}" for value in odd.box)
    return f"sample {odd.sample}, object {odd.item} (box [{box}], label {odd.label}): {odd.text}"


def replay(what: str | Path, *, out: str | Path = "runs", device: str = "auto") -> ReplayResult:
    """Compute a step again whose loss or gradient was not finite, and find where it comes from.

    No data set is needed: the batch was kept.

    Args:
        what: A folder ``<run>/nonfinite/step_<n>``, or a run, for its newest one.
        out: Folder of the run folders.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: the kind that the run had, where it is there.

    Raises:
        ZooError: If there is nothing to replay, or it cannot be read.
    """
    hush()
    folder = nonfinite.find_step(what, Path(out))
    with isolate_rng(), _threads():
        step = _Step(folder, device)
        return step.investigate()


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    """Put threads and the precision of products back at the end."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


class _Step:
    """One step that was kept: the task as it was before it, and its batch."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.facts = folder, nonfinite.read_facts(folder)
        try:
            self._load(device)
        except ZooError:
            raise
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines() or [""]
            raise ZooError(
                f"{folder} does not hold what a run keeps ({type(error).__name__}: {reason[0]})"
            ) from None

    def _load(self, device: str) -> None:
        facts, state = self.facts, _read(self.folder / nonfinite.STATE)
        recipe = load_recipe(self.folder / nonfinite.RECIPE).check()
        task, _ = build_task(
            recipe, num_classes=recipe.get("model.num_classes"), structure_only=True
        )
        network = task.model
        network.load_state_dict(state["state_dict"])
        network.train("" not in state["evaluating"])
        if state["norms_frozen"]:
            int8.freeze_norms(network)
        evaluating, still = set(state["evaluating"]), set(state["still"])
        for name, module in network.named_modules():
            module.training = name not in evaluating
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in still)
        kind = str(facts["device"]) if device == "auto" else device
        if kind == "cuda" and not torch.cuda.is_available():
            if device != "auto":
                raise ZooError("--device is cuda, and this machine has no such GPU")
            kind = "cpu"
        self.precision = str(facts["precision"])
        self.device = torch.device(kind)
        self.task = task.to(self.device)
        if self.precision == "64-true":
            self.task.double()
        elif self.precision in ("16-true", "bf16-true"):
            self.task = HalfPrecision(self.precision).convert_module(self.task)  # type: ignore[arg-type]
        torch.set_num_threads(int(facts["threads"]))
        torch.set_float32_matmul_precision(str(facts["matmul_precision"]))
        self.task.class_names = facts["class_names"]
        self.state, self.rng = state, state["rng"]
        self.batch = move_data_to_device(_read(self.folder / nonfinite.BATCH)["batch"], self.device)
        self.gradients = facts["what"] == "gradient"
        self.before = BuffersBefore()
        self.before.keep(self.task.model)
        size_of(self.batch)

    def _context(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision.endswith("-mixed"):
            dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.half
            return torch.autocast(self.device.type, dtype=dtype, cache_enabled=False)
        if self.precision == "64-true":
            return DoublePrecision().forward_context()
        if self.precision in ("16-true", "bf16-true"):
            return HalfPrecision(self.precision).forward_context()  # type: ignore[arg-type]
        return contextlib.nullcontext()

    def run(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms; gradients are left in the network."""
        self.before.put_back()
        self.task.zero_grad()
        torch.set_rng_state(self.rng["cpu"])
        if self.device.type == "cuda" and "cuda" in self.rng:
            torch.cuda.set_rng_state(self.rng["cuda"])
        with torch.enable_grad(), self._context():
            loss, terms = self.task.training_loss(batch)
        if self.gradients and bool(loss.isfinite()):
            (loss / self.facts["accumulate"]).backward()
        return loss.detach(), {name: value.detach() for name, value in terms.items()}

    def grads(self) -> tuple[str, ...]:
        """Return the names of the parameters whose gradients are not finite."""
        return not_finite((name, p.grad) for name, p in self.task.model.named_parameters())

    def is_bad(self, batch: Mapping[str, Any]) -> bool | None:
        """Whether a batch does it; None where it cannot be computed at all."""
        try:
            loss, _ = self.run(batch)
        except (ValueError, RuntimeError, IndexError):
            return None
        return not bool(loss.isfinite()) or (self.gradients and bool(self.grads()))

    def samples_are_bad(self, keep: Sequence[int]) -> bool | None:
        """The same of some of the samples; a single one twice, where batch norm wants two."""
        if not keep:
            return False
        found = self.is_bad(part_of(self.batch, keep))
        if found is None and len(keep) == 1:
            found = self.is_bad(part_of(self.batch, [*keep, *keep]))
        return found

    def investigate(self) -> ReplayResult:
        """Replay the step, then take it apart."""
        facts, network = self.facts, self.task.model
        named = list(network.named_parameters())
        parameters = not_finite(named)
        loss, terms = self.run(self.batch)
        gradients = self.grads() if self.gradients else ()
        reproduced = not bool(loss.isfinite()) or bool(gradients)
        kept = {"": self.state["loss"], **self.state["terms"]}
        now = {"": loss, **terms}
        is_same = kept.keys() == now.keys() and all(
            same_bits(kept[name], value) for name, value in now.items()
        )
        with Trace(network, backward=self.gradients) as trace:
            self.run(self.batch)
            first = trace.first_backward() if self.gradients else trace.first_forward()
        positions: list[int] = []
        every = False
        if reproduced and not parameters:
            count = size_of(self.batch)
            positions = culprits(count, self.samples_are_bad)
            every = not positions and all(self.samples_are_bad([i]) for i in range(min(count, 4)))
        return ReplayResult(
            folder=self.folder,
            what=facts["what"],
            epoch=facts["epoch"],
            step=facts["step"],
            rank=facts["rank"],
            kept_loss=float(self.state["loss"]),
            loss=float(loss),
            is_same=is_same,
            reproduced=reproduced,
            terms={name: float(value) for name, value in terms.items()},
            module=first if reproduced else None,
            module_type=(
                type(network.get_submodule(first)).__name__
                if reproduced and first is not None
                else None
            ),
            direction=(
                ("backward" if self.gradients else "forward")
                if reproduced and first is not None
                else None
            ),
            input_is_finite=trace.input_is_finite,
            parameters=parameters,
            gradients=gradients,
            largest_weight=largest(named) if not parameters else None,
            samples=tuple(self._sample(i) for i in positions),
            every_sample=every,
            oddities=tuple(
                look(
                    self.batch,
                    self.task.num_classes,
                    multilabel=getattr(self.task, "multilabel", False),
                )
            ),
            notes=tuple(self._notes(is_same, reproduced)),
        )

    def _sample(self, position: int) -> Sample:
        """Return a sample that does it alone, with those of its objects that do."""
        facts = self.facts
        items: tuple[int, ...] = ()
        targets = self.batch.get("target")
        if isinstance(targets, list) and len(targets[position]["boxes"]) > 1:
            alone = part_of(self.batch, [position])
            items = tuple(
                culprits(
                    len(targets[position]["boxes"]),
                    lambda keep: self.is_bad(with_objects(alone, 0, keep)),
                )
            )
        return Sample(position, facts["ids"][position], facts["files"][position], items)

    def _notes(self, is_same: bool, reproduced: bool) -> Iterator[str]:
        facts = self.facts
        if not is_same:
            if str(facts["device"]) != self.device.type:
                yield f"the run was on {facts['device']}, the replay on {self.device.type}"
            if facts["torch"] != torch.__version__:
                yield f"the run had torch {facts['torch']}, here is {torch.__version__}"
            if facts["joined_norms"]:
                yield f"batch norm was joined over {facts['world_size']} ranks"
        if not reproduced and self.gradients:
            if facts["world_size"] > 1:
                yield "gradients are summed over ranks: replay the other ranks' folders too"
            elif facts["earlier"]:
                yield "gradients of the step's earlier batches were added to this one's"
        if facts["earlier"]:
            earlier = [one for ids in facts["earlier"] for one in ids]
            yield f"earlier in the same step: {listed(earlier)}"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two scalars are the same to the last bit; nan equals itself."""
    a, b = a.cpu(), b.cpu()
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(((a == b) & (a.signbit() == b.signbit()) | (a.isnan() & b.isnan())).all())


def _read(path: Path) -> Any:
    """Return what was kept, read without running code that it may hold.

    Raises:
        ZooError: If the file is missing or damaged.
    """
    return plain_files.read(path, remedy="replay another step of the run")
