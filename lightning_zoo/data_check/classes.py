"""Findings in the classes: unused, rare, or in one split alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lightning_zoo.batch import counted
from lightning_zoo.formats.class_folders import alike
from lightning_zoo.formats.index import DataIndex, Problem

ONE_CLASS = "one class"  # what readers call it too
ALIKE = "classes with nearly the same name"
FEW = 10  # examples of a class in training
UNBALANCED, BADLY_UNBALANCED = 10.0, 100.0  # commonest by rarest class

Counts = Mapping[str, list[int]]  # of each split: how often each class occurs

UNITS = {"classification": "image", "detection": "object", "segmentation": "mask", "video": "video"}


def check_classes(index: DataIndex, counts: Counts) -> Iterator[Problem]:
    """Yield what is wrong with the classes.

    Args:
        index: The data.
        counts: Of each split, the objects, images, videos or masks that have each class.
    """
    unit = UNITS[index.task]
    told = {problem.kind for problem in index.problems}
    alone = len(index.classes) == 1 and index.task != "detection" and not index.multilabel
    if alone and ONE_CLASS not in told:
        yield Problem("error", ONE_CLASS, index.classes[0], "there is nothing to tell it from",
                      "add examples of another class, such as what it is not")  # fmt: skip
    if ALIKE not in told:
        yield from alike(index.classes)
    train, evaluation = counts.get("train"), [s for s in index.splits if s != "train"]
    if not any(train or ()):
        yield Problem("error", "nothing to learn", "train", f"no {unit} of any class is in train",
                      "label some, or mend the labels that could not be read")  # fmt: skip
        return
    for label, name in enumerate(index.classes):
        by_split = {split: counts[split][label] for split in index.splits}
        if not any(by_split.values()):
            yield Problem("warning", "class that is never used", name, f"no {unit} has it",
                          "remove it from the classes, or label some")  # fmt: skip
            continue
        if train is None:
            continue
        if not train[label]:
            has = ", ".join(f"{n} in {split}" for split, n in by_split.items() if n)
            yield Problem("warning", "class that training lacks", name,
                          f"{has}, none in train", "move some to train")  # fmt: skip
            continue
        if train[label] < FEW:
            yield Problem("warning", "class with few examples", name,
                          f"{counted(train[label], unit)} in train",
                          f"label more, at least {FEW}, better 100")  # fmt: skip
        for split in evaluation:
            if not by_split[split]:
                yield Problem("note", f"class that {split} lacks", name,
                              f"{counted(train[label], unit)} in train, none in {split}",
                              f"{split} cannot measure it: move some there")  # fmt: skip
    yield from _balance(index, train or [], unit)


def balance(counts: list[int]) -> float | None:
    """Return how often the commonest class occurs for one of the rarest, of those that do."""
    used = [count for count in counts if count]
    return max(used) / min(used) if len(used) > 1 else None


def _balance(index: DataIndex, train: list[int], unit: str) -> Iterator[Problem]:
    ratio = balance(train)
    if ratio is None or ratio < UNBALANCED:
        return
    most = max(range(len(train)), key=lambda i: train[i])
    least = min((i for i in range(len(train)) if train[i]), key=lambda i: train[i])
    yield Problem(
        "warning" if ratio >= BADLY_UNBALANCED else "note", "unbalanced classes", "train",
        f"{counted(train[most], unit)} of {index.classes[most]!r} and {train[least]} of "
        f"{index.classes[least]!r}: {ratio:.0f} to 1",
        "look at the figures of each class (validate --per_class); label more of the rare ones",
    )  # fmt: skip
