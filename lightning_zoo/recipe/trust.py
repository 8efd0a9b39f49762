"""What a recipe may name without being trusted, and the flag that lets it name more.

A recipe is data that came from somewhere: what it names is imported and called. Without
:func:`trust` only these are, and importing any of them does nothing beside defining classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from lightning_zoo.errors import ZooError


@dataclass(frozen=True)
class Slot:
    """One place of a recipe that takes a class.

    Attributes:
        kind: What the class is, for texts.
        homes: Packages whose classes are taken there; of our own also their modules.
        base: Module and name of the class that it has to derive from, ``""`` where any does.
    """

    kind: str
    homes: tuple[str, ...]
    base: tuple[str, str] = ("", "")

    def takes(self, class_path: str) -> bool:
        """Whether a class stands where this slot's classes stand; a bare name is one of ours."""
        package = class_path.rpartition(".")[0]
        return any(
            package == home
            or (home.startswith("lightning_zoo.") and package.startswith(f"{home}."))
            for home in self.homes
        )


TASK = Slot("a task", ("lightning_zoo.tasks",), ("lightning_zoo.tasks.base", "Task"))
DATA = Slot(
    "a data module",
    ("lightning_zoo.datamodules",),
    ("lightning_zoo.datamodules.base", "ZooDataModule"),
)
OPTIMIZER = Slot("an optimizer", ("torch.optim",), ("torch.optim", "Optimizer"))
SCHEDULE = Slot(
    "a schedule", ("lightning_zoo.optim",), ("lightning_zoo.optim.schedules", "Schedule")
)
FINETUNING = Slot(
    "FineTuning", ("lightning_zoo.optim",), ("lightning_zoo.optim.finetuning", "FineTuning")
)
TRANSFORM = Slot(
    "a transform",
    ("albumentations", "albumentations.pytorch"),
    ("albumentations.core.serialization", "Serializable"),
)
PART = Slot(
    "a part of a network",
    ("torch.nn", "lightning_zoo.models", "lightning_zoo.layers"),
    ("torch.nn", "Module"),
)
TRAINER = Slot("the trainer", ("lightning.pytorch.trainer.trainer",))  # no recipe names it
SLOTS = (TASK, DATA, OPTIMIZER, SCHEDULE, FINETUNING, TRANSFORM, PART)

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)


@contextlib.contextmanager
def trust() -> Iterator[None]:
    """Let recipes name classes of any installed package; their code is imported and runs.

    What ``--trust`` does on the command line:

    >>> with lightning_zoo.trust():
    ...     lightning_zoo.fit("mine.yaml")
    """
    token = _trusting.set(True)
    try:
        yield
    finally:
        _trusting.reset(token)


def is_trusting() -> bool:
    """Whether recipes may name classes of any package now."""
    return _trusting.get()


def check(class_path: str, slots: tuple[Slot, ...]) -> None:
    """Refuse a class that stands elsewhere than those of ``slots``, unless recipes are trusted.

    Args:
        class_path: A dotted name, or the bare name of a class of ours.
        slots: What the place takes.

    Raises:
        ZooError: If it is refused; the text names the flag.
    """
    parts = class_path.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ZooError(f"class_path {class_path!r} is no name of a class")
    if len(parts) == 1 or is_trusting() or any(slot.takes(class_path) for slot in slots):
        return
    homes = dict.fromkeys(home for slot in slots for home in slot.homes)
    kind = f" as {slots[0].kind}" if len(slots) == 1 else ""
    raise ZooError(
        f"class_path {class_path!r} is outside what recipes may use{kind}; expected a class of "
        f"{', '.join(homes)} (--trust lets a recipe name others: its code is imported and runs)"
    )


def foreign(config: Any) -> list[str]:
    """Return the class paths in a recipe that only ``--trust`` allows, each once."""
    found: dict[str, None] = {}
    todo = [config]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            name = node.get("class_path")
            if isinstance(name, str) and "." in name and not any(s.takes(name) for s in SLOTS):
                found[name] = None
            todo += node.values()
        elif isinstance(node, list):
            todo += node
    return sorted(found)
