from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lightning_zoo.cli import new_parser
from lightning_zoo.models.registry import ModelEntry, get_entry, registry, tasks


def run(args: Sequence[str], *, debug: bool) -> int:
    """List or show models."""
    parser = new_parser("models", "The models of the zoo, their published weights and figures.")
    verbs = parser.add_subparsers(dest="verb", metavar="{ls,show}", required=True)
    ls = verbs.add_parser("ls", help="one line a model", description="One line a model.")
    ls.add_argument("filter", nargs="?", default="", help="part of a name")
    ls.add_argument("--task", choices=tasks(), help=", ".join(tasks()))
    ls.add_argument("--json", action="store_true", help="print as JSON")
    show = verbs.add_parser("show", help="all about one", description="All about one model.")
    show.add_argument("name", help="a name that `models ls` lists")
    show.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(list(args))
    if options.verb == "show":
        entry = get_entry(options.name)
        print(json.dumps(as_json(entry), indent=1) if options.json else describe(entry))
        return 0
    found = [e for (t, n), e in registry().items()
             if options.task in (None, t) and options.filter in n]  # fmt: skip
    if options.json:
        print(json.dumps([as_json(e) for e in found]))
        return 0
    width = max((len(e.name) for e in found), default=4)
    print(f"{'model':<{width}}  {'task':<14}  {'params':>8}  {'acc@1':>6}  {'acc@5':>6}  weights")
    for e in found:
        best = e.weights[e.pretrained].metrics if e.pretrained else {}
        figures = "  ".join(
            f"{best[k]:6.2f}" if k in best else "     -" for k in ("acc@1", "acc@5")
        )
        names = ", ".join(e.weights) or "none published"
        print(f"{e.name:<{width}}  {e.task:<14}  {e.num_params / 1e6:6.1f} M  {figures}  {names}")
    if not found:
        print(
            f"no model has {options.filter!r} in its name; see: python -m lightning_zoo models ls"
        )
    return 0


def as_json(entry: ModelEntry) -> dict[str, Any]:
    """Return a model's facts as plain data."""
    facts = {k: v for k, v in vars(entry).items() if k != "weights"}
    weights = {}
    for name, w in entry.weights.items():
        plain = dict(vars(w), metrics=dict(w.metrics), preprocessing=asdict(w.preprocessing))
        weights[name] = plain | {"build_args": dict(w.build_args)}
    return facts | {"weights": weights}


def describe(entry: ModelEntry) -> str:
    """Return a model's facts as a page."""
    lines = [
        f"{entry.name} ({entry.task})",
        f"  parameters  {entry.num_params:,}",
        f"  images      {entry.min_size} pixels a side at least",
        f"  paper       {entry.paper}",
        f"  recipe      {entry.recipe}: python -m lightning_zoo fit --recipe {entry.recipe}",
        f"  in Python   from lightning_zoo import models; models.{entry.name}(pretrained=True)",
    ]
    for name, w in entry.weights.items():
        marks = [m for m, n in (("pretrained=True", entry.pretrained), ("DEFAULT", entry.default))
                 if n == name]  # fmt: skip
        figures = ", ".join(f"{k} {v}" for k, v in w.metrics.items())
        pre = w.preprocessing
        lines += [
            f"  weights     {name}" + (f" ({', '.join(marks)})" if marks else ""),
            f"    {figures}; resize {pre.resize}, crop {pre.crop}; {w.file_size_mib} MiB",
            f"    {w.url}",
        ]
    return "\n".join(lines)
