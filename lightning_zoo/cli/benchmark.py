from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.cli import new_parser

SUBJECTS = ("startup", "loader", "step")


def run(args: Sequence[str], *, debug: bool) -> int:
    """Measure ourselves."""
    parser = new_parser(
        "benchmark",
        "Measure, as ratios within one run, and print one JSON line a figure:\n"
        "  startup  import and the quick verbs\n"
        "  loader   images a second of one core, against Pillow with the same result\n"
        "  step     what our layer adds to a step of bare Lightning",
    )
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)} (all)"
    )
    parser.add_argument("--root", metavar="DIR", help="photos for the loader (made on the spot)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (5)")
    options = parser.parse_args(list(args))
    for name in options.subjects:
        if name not in SUBJECTS:
            from lightning_zoo.errors import unknown

            raise unknown("benchmark", name, SUBJECTS)
    for name in options.subjects or SUBJECTS:
        for row in _rows(name, options):
            print(json.dumps(row), flush=True)
    return 0


def _rows(name: str, options: Any) -> Iterator[dict[str, Any]]:
    if name == "startup":
        from lightning_zoo.bench.startup import startup_benchmark

        yield from startup_benchmark(options.repeats)
    elif name == "step":
        from lightning_zoo.bench.step import step_benchmark

        yield from step_benchmark(repeats=options.repeats)
    else:
        from lightning_zoo.bench.loader import loader_benchmark

        root = Path(options.root) if options.root else None
        yield from loader_benchmark(root, images=100, repeats=options.repeats)
