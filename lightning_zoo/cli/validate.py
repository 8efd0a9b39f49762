from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.batch import check_devices, counted
from lightning_zoo.cli import new_parser, overrides
from lightning_zoo.recipe import load_recipe
from lightning_zoo.runs import find_run


def run(args: Sequence[str], *, debug: bool, stage: str = "validate") -> int:
    """Measure a run, a checkpoint or published weights."""
    split = "validation" if stage == "validate" else "test"
    parser = new_parser(
        stage,
        f"Measure on the {split} split: a run (folder, 'last' or a recipe's name),\n"
        "a checkpoint, or published weights with a recipe's data.",
        f"  python -m lightning_zoo {stage} runs/last\n"
        f"  python -m lightning_zoo {stage} --recipe resnet50 --weights DEFAULT --check\n"
        "Any key of the recipe is an option too: --data.root DIR --data.workers 8",
        usage=f"python -m lightning_zoo {stage} [RUN] [options] [--KEY VALUE ...]",
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="run or checkpoint")
    parser.add_argument("--recipe", metavar="NAME", help="instead of a run, with --weights")
    parser.add_argument("--weights", metavar="W", help="published name, DEFAULT or a file")
    parser.add_argument(
        "--check", action="store_true", help="compare with the recipe's reference; exit 1 if below"
    )
    parser.add_argument(
        "--per_class",
        action="store_true",
        help="figures of every class too, where the task has them",
    )
    parser.add_argument("--devices", default="auto", metavar="N", help="devices here (auto)")
    parser.add_argument("--out", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options, pairs = overrides.parse(parser, args)
    if options.recipe:
        load_recipe(options.recipe).with_overrides(pairs).check()
    elif options.run and Path(options.run).suffix != ".ckpt":
        find_run(options.run, Path(options.out))
    check_devices(options.devices)

    from lightning_zoo import engine

    result = getattr(engine, stage)(
        options.run,
        pairs,
        recipe=options.recipe,
        weights=options.weights,
        devices=options.devices,
        out=options.out,
        debug=debug,
    )
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) != 0:
        return 0  # the first process speaks for all
    if options.json:
        passed = result.passed if result.expected else None
        found = {"metrics": result.metrics, "expected": result.expected,
                 "tolerance": result.tolerance, "passed": passed,
                 "per_class": list(result.per_class)}  # fmt: skip
        print(json.dumps(_strict(found)))
    else:
        if options.per_class and result.per_class:
            from lightning_zoo.metrics import format_table

            counts = "objects" if "objects" in result.per_class[0] else "pixels"
            rows = [row for row in result.per_class if row[counts]]
            print(format_table(rows))
            if absent := len(result.per_class) - len(rows):
                print(f"no {counts[:-1]} in this data: {counted(absent, 'class', 'es')}")
        width = max(16, *(len(name) + 1 for name in result.metrics))
        for name, value in sorted(result.metrics.items()):
            line = f"{name:<{width}}{value:10.{4 if 'loss' in name else 3}f}"
            if name in result.expected:
                line += f"   reference {result.expected[name]:.3f} +- {result.tolerance:g}"
            print(line)
        if result.skipped:
            print(f"{len(result.skipped)} broken files were left out: {', '.join(result.skipped)}")
    if not options.check:
        return 0
    if not result.expected:
        print("check: the recipe states no reference figures")
        return 1
    print("check: passed" if result.passed else "check: below the reference")
    return 0 if result.passed else 1


def _strict(value: Any) -> Any:
    """Return plain data with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
