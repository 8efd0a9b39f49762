from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.cli import new_parser
from lightning_zoo.errors import unknown

SUBJECTS = {
    "startup": "import and the quick verbs",
    "loader": "images a second of one core, against Pillow with the same result",
    "step": "what our layer adds to a step of bare Lightning",
    "ops": "NMS and RoIAlign against torchvision, where it is installed",
    "detection": "detectors at 800 x 1066 against torchvision's (half an hour; Linux)",
    "coco_index": "memory of 4 workers on a file of COCO's size (minutes, 8 GB; Linux)",
}
BY_NAME_ALONE = ("detection", "coco_index")


def run(args: Sequence[str], *, debug: bool) -> int:
    """Measure ourselves."""
    rows = "\n".join(f"  {name:<11}{text}" for name, text in SUBJECTS.items())
    parser = new_parser(
        "benchmark",
        f"Measure, as ratios within one run, and print one JSON line a figure:\n{rows}",
    )
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="which; without one, all but the last two"
    )
    parser.add_argument("--root", metavar="DIR", help="photos for the loader (made on the spot)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (5)")
    parser.add_argument("--models", metavar="A,B", help="detection: only these")
    options = parser.parse_args(list(args))
    for name in options.subjects:
        if name not in SUBJECTS:
            raise unknown("benchmark", name, SUBJECTS)
    for name in options.subjects or [n for n in SUBJECTS if n not in BY_NAME_ALONE]:
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
    elif name == "ops":
        from lightning_zoo.bench.ops import ops_benchmark

        yield from ops_benchmark(options.repeats)
    elif name == "detection":
        from lightning_zoo.bench.detection import detection_benchmark

        names = options.models.split(",") if options.models else None
        yield from detection_benchmark(options.repeats, names=names)
    elif name == "coco_index":
        from lightning_zoo.bench.coco_index import coco_index_benchmark

        yield from coco_index_benchmark()
    else:
        from lightning_zoo.bench.loader import loader_benchmark

        root = Path(options.root) if options.root else None
        yield from loader_benchmark(root, images=100, repeats=options.repeats)
