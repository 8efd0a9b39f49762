"""A new head keeps the rows of the classes that the file's head knows by name.

Loading a file for another ``num_classes`` leaves the head out (see ``hub``). Where the classes of
both have names, what the file learned of a common class goes on: its rows of every tensor of the
head, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.models import hub
from lightning_zoo.models.hub import LoadReport
from lightning_zoo.models.registry import (
    NO_CATEGORY,
    NO_CLASS,
    Weights,
    get_entry,
    real_classes,
    registry,
)

SHOWN = 6  # names in a sentence


@dataclass(frozen=True)
class KeptRows:
    """What became of the rows of a head.

    Attributes:
        tensors: Names of the head's tensors: those whose shape follows the number of classes.
        kept: Classes of the data whose rows are the file's.
        new: Classes whose rows start anew; the background is in neither.
        source: Name of the file.
        named: Whether the file's classes have names that are known; where they have not, the head
            is as loading left it.
    """

    tensors: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]
    source: str
    named: bool

    def __str__(self) -> str:
        if not self.named:
            return f"head: {self.source} does not name its classes, so none is kept by name"
        total = len(self.kept) + len(self.new)
        keep = "keeps its rows" if len(self.kept) == 1 else "keep their rows"
        text = f"head: {len(self.kept)} of {total} classes {keep}{_listed(self.kept)}"
        if self.new:
            start = "starts" if len(self.new) == 1 else "start"
            text += f", {len(self.new)} {start} anew{_listed(self.new)}"
        return text


def _listed(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"


def table(report: LoadReport, kept: KeptRows | None = None) -> str:
    """Return for people what became of a network's tensors: counts, and the head's by name.

    Args:
        report: What was loaded.
        kept: What became of the head's rows, where it was looked at.
    """
    plain = len(report.copied) - len(report.reshaped)
    lines = [f"{report.model} from {report.source.name}", f"copied    {plain} tensors"]
    for what in ("reshaped", "new", "dropped"):
        if names := getattr(report, what):
            head = set(kept.tensors) if kept is not None else set()
            shown = [n for n in names if n in head] or list(names[:SHOWN])
            more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
            lines.append(f"{what:<10}{len(names)} tensors: {', '.join(shown)}{more}")
    return "\n".join(lines if kept is None else [*lines, str(kept)])


# ---------------------------------------------------------------------------------------------
# The head


def head_tensors(
    model: str,
    num_classes: int,
    *,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> dict[str, tuple[int, int]]:
    """Return the tensors of a model's head: those whose shape follows the number of classes.

    They are found by comparing the network for ``num_classes`` with the one for one class more.

    Returns:
        For each tensor's name the dimension that counts classes and the rows of one class in it:
        1 for logits, 4 for boxes, the number of anchors for a detector of one stage.
    """
    build = get_entry(model).load_builder()

    def layout(classes: int) -> hub.Layout:
        with hub.structure_only(), torch.device("meta"):
            network = build(weights=weights, num_classes=classes, **(model_args or {}))
        return hub.shapes(network.state_dict())

    asked, probe = layout(num_classes), layout(num_classes + 1)
    found: dict[str, tuple[int, int]] = {}
    for name, size in asked.items():
        for dim, (a, b) in enumerate(zip(size or (), probe[name] or (), strict=True)):
            if a != b:
                found[name] = (dim, b - a)
    return found


def _rows(network: nn.Module, name: str, values: Tensor, dim: int, each: int) -> Tensor:
    """Return a view of a head's tensor ``(classes, rows of one, ...)``.

    Linear layers that give several numbers to a class count classes first: (class, 4 offsets).
    Convolutions give them to each anchor, and count those first: (anchor, class).
    """
    owner = network.get_submodule(name.rpartition(".")[0])
    x = values.movedim(dim, 0)
    classes = len(x) // each
    if isinstance(owner, nn.modules.conv._ConvNd):
        return torch.unflatten(x, 0, (each, classes)).transpose(0, 1)
    return torch.unflatten(x, 0, (classes, each))


# ---------------------------------------------------------------------------------------------
# Names


def match_classes(ours: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """Return positions in ``theirs`` by those in ``ours``, of the classes that are called alike.

    Names are compared without case, spaces, ``_`` and ``-``. A name of several, separated by
    commas, counts by the whole and by the first of them. What is written exactly alike goes first;
    no class is taken twice, and names that stand for no class never match.
    """
    found: dict[int, int] = {}
    for key in (str, _plain, _first):
        places: dict[str, list[int]] = {}
        for place, name in enumerate(theirs):
            if name not in ("", NO_CATEGORY) and place not in found.values():
                places.setdefault(key(name), []).append(place)
        for position, name in enumerate(ours):
            if name in ("", NO_CATEGORY) or position in found:
                continue
            if left := places.get(key(name)):
                found[position] = left.pop(0)
    return dict(sorted(found.items()))


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " _-")


def _first(name: str) -> str:
    return _plain(name.split(",")[0])


def _is_class(name: str) -> bool:
    return name not in NO_CLASS and _plain(name) != "background"


# ---------------------------------------------------------------------------------------------
# The transfer


def keep_class_rows(
    network: nn.Module,
    *,
    model: str,
    weights: str | Path,
    class_names: Sequence[str],
    model_args: Mapping[str, Any] | None = None,
) -> KeptRows:
    """Give the classes that the file knows by name their rows of the head, in place.

    The file's classes are known for published weights and for checkpoints of ours. Where the file
    has as many classes as the network, its head was loaded row by row: rows of common classes are
    put into the new order, the others start anew.

    Args:
        network: Network of ``get_model(model, weights=weights, num_classes=len(class_names))``.
        model: Its name.
        weights: The weights that it was built with.
        class_names: Names of the classes, in the order of the logits.
        model_args: The other arguments that it was built with.
    """
    report: LoadReport = network.load_report  # type: ignore[assignment]
    args = dict(model_args or {})
    heads = head_tensors(model, len(class_names), weights=weights, model_args=args)
    published = _published(model, report.source)
    cached = report.source.parent == hub.checkpoint_dir()
    content = hub.read_file(report.source, cached=cached)
    theirs = _class_names(content) if published is None else published.class_names
    if theirs is None:
        return KeptRows(tuple(heads), (), (), report.source.name, named=False)
    build = get_entry(model).load_builder()
    state = hub.state_dict_of(content, report.source, getattr(build, "rename", None))
    pairs = match_classes(class_names, theirs)
    names = real_classes(class_names)
    if not report.new and names.keys() - pairs.keys():  # their rows hold other classes
        with hub.structure_only(), torch.random.fork_rng(devices=[]):
            fresh = build(weights=weights, num_classes=len(class_names), **args).state_dict()
        for name in heads:
            network.state_dict()[name].copy_(fresh[name])
    own = network.state_dict()
    with torch.no_grad():
        for name, (dim, each) in heads.items():
            if name in state and pairs:
                source = _rows(network, name, state[name], dim, each)[list(pairs.values())]
                rows = _rows(network, name, own[name], dim, each)
                rows[list(pairs)] = source.to(rows)
    kept = tuple(n for i, n in names.items() if i in pairs and _is_class(n))
    new = tuple(n for i, n in names.items() if i not in pairs and _is_class(n))
    return KeptRows(tuple(heads), kept, new, report.source.name, named=True)


def _published(model: str, path: Path) -> Weights | None:
    """Return the published weights that a file holds; a quantizable network's are the float's."""
    entry = get_entry(model)
    entries = [entry, registry().get(("classification", entry.name))]
    known = [w for e in entries if e is not None for w in e.weights.values()]
    return next((w for w in known if w.file_name == path.name), None)


def _class_names(content: Any) -> Sequence[str] | None:
    """Return the names of the classes that a checkpoint of ours tells, None of another file."""
    ours = content.get("lightning_zoo") if isinstance(content, Mapping) else None
    names = ours.get("class_names") if isinstance(ours, Mapping) else None
    return names or None
