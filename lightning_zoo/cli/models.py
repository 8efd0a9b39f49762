from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lightning_zoo.batch import counted
from lightning_zoo.cli import new_parser
from lightning_zoo.models.registry import ModelEntry, Preprocessing, get_entry, registry, tasks


def run(args: Sequence[str], *, debug: bool) -> int:
    """List or show models."""
    parser = new_parser("models", "The models of the zoo, their published weights and figures.")
    verbs = parser.add_subparsers(dest="verb", metavar="{ls,show}", required=True)
    ls = verbs.add_parser("ls", help="one line a model", description="One line a model.")
    ls.add_argument("filter", nargs="?", default="", help="part of a name")
    ls.add_argument("--task", choices=tasks(), metavar="TASK", help=", ".join(tasks()))
    ls.add_argument("--json", action="store_true", help="print as JSON")
    show = verbs.add_parser("show", help="all about one", description="All about one model.")
    show.add_argument("name", help="a name that `models ls` lists")
    show.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(list(args))
    if options.verb == "show":
        entry = get_entry(options.name)
        print(json.dumps(as_json(entry), indent=1) if options.json else describe(entry))
        return 0
    found = [e for (t, _), e in registry().items()
             if options.task in (None, t) and options.filter in e.full_name]  # fmt: skip
    if options.json:
        print(json.dumps([as_json(e) for e in found]))
        return 0
    width = max((len(e.full_name) for e in found), default=4)
    for task in dict.fromkeys(e.task for e in found):
        rows = [e for e in found if e.task == task]
        metrics = list(
            dict.fromkeys(k for e in rows for w in e.weights.values() for k in w.metrics)
        )
        head = "  ".join(f"{k:>8}" for k in metrics)
        print(f"{'model':<{width}}  {'task':<14}  {'params':>8}  {head}  weights")
        for e in rows:
            best = e.weights[e.pretrained].metrics if e.pretrained else {}
            cells = {k: f"{best[k]:.2f}" if k in best else "-" for k in metrics}
            figures = "  ".join(f"{cell:>{max(8, len(k))}}" for k, cell in cells.items())
            names = ", ".join(e.weights) or "none published"
            size = f"{e.num_params / 1e6:6.1f} M"
            print(f"{e.full_name:<{width}}  {e.task:<14}  {size}  {figures}  {names}")
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
        pre = None if w.preprocessing is None else asdict(w.preprocessing)
        plain = dict(vars(w), metrics=dict(w.metrics), preprocessing=pre)
        weights[name] = plain | {"build_args": dict(w.build_args)}
    return facts | {"weights": weights}


def steps(pre: Preprocessing) -> str:
    """Return what images or clips go through: ``resize 128 x 171, crop 112, 16 frames at 15/s``."""
    size = " x ".join(map(str, pre.resize)) if isinstance(pre.resize, tuple) else str(pre.resize)
    texts = [f"resize {size}"]
    if pre.crop is not None:
        texts.append(f"crop {pre.crop}")
    if pre.clip_frames is not None:
        texts.append(f"{pre.clip_frames} frames at {pre.frame_rate:g}/s")
    return ", ".join(texts)


def describe(entry: ModelEntry) -> str:
    """Return a model's facts as a page."""
    lines = [
        f"{entry.full_name} ({entry.task})",
        f"  parameters  {entry.num_params:,}",
        f"  {'clips ' if entry.task == 'video' else 'images'}      "
        f"{counted(entry.min_size, 'pixel')} a side at least",
        f"  paper       {entry.paper}",
    ]
    if entry.recipe:
        lines.append(
            f"  recipe      {entry.recipe}: python -m lightning_zoo fit --recipe {entry.recipe}"
        )
    space = "models" if entry.task == "classification" else f"models.{entry.task}"
    arguments = "pretrained=True" if entry.pretrained else ""
    if entry.task == "quantization":
        arguments += ", quantize=True"
    lines.append(
        f"  in Python   from lightning_zoo import models; {space}.{entry.name}({arguments})"
    )
    for name, w in entry.weights.items():
        marks = [m for m, n in (("pretrained=True", entry.pretrained), ("DEFAULT", entry.default))
                 if n == name]  # fmt: skip
        facts = [f"{k} {v}" for k, v in w.metrics.items()]
        if w.preprocessing is not None:
            facts.append(steps(w.preprocessing))
        if w.backend is not None:
            facts.append(f"engine {w.backend}")
        size = "size unknown" if w.file_size_mib is None else f"{w.file_size_mib} MiB"
        lines += [
            f"  weights     {name}" + (f" ({', '.join(marks)})" if marks else ""),
            f"    {'; '.join([*facts, size])}",
            f"    {w.url}",
        ]
    return "\n".join(lines)
