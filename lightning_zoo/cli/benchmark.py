from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.cli import new_parser
from lightning_zoo.errors import unknown

SUBJECTS = {
    "startup": "import and the quick verbs",
    "loader": "images a second of one core, against Pillow's",
    "segmentation_loader": "images and masks a second of one core, in the same way",
    "step": "what our layer adds to a step of bare Lightning",
    "ops": "NMS and RoIAlign against torchvision's",
    "video_decode": "clips of a video against decoding all of it",
    "segmentation": "segmentation against torchvision's (half an hour)",
    "video": "networks of clips against torchvision's (minutes)",
    "detection": "detectors against torchvision's (half an hour; Linux)",
    "quantization": "INT8 zoo against torchvision's and fp32 (half an hour)",
    "int8": "INT8 classifiers by engine against fp32 (minutes)",
    "coco_index": "memory of 4 workers on COCO's size (minutes, 8 GB; Linux)",
    "long_run": "memory, files, processes of 5,000 steps (minutes; Linux)",
}
BY_NAME_ALONE = (
    "segmentation", "video", "detection", "quantization", "int8", "coco_index", "long_run",
)  # fmt: skip


def run(args: Sequence[str], *, debug: bool) -> int:
    """Measure ourselves."""
    width = max(map(len, SUBJECTS)) + 2
    rows = "\n".join(f"  {name:<{width}}{text}" for name, text in SUBJECTS.items())
    parser = new_parser(
        "benchmark",
        f"Measure, as ratios within one run, and print one JSON line a figure:\n{rows}\n"
        f"Without a SUBJECT, all but the last {len(BY_NAME_ALONE)} are measured.",
        usage="python -m lightning_zoo benchmark [SUBJECT ...] [options]",
    )
    parser.add_argument("subjects", nargs="*", help=argparse.SUPPRESS)  # the table names them
    parser.add_argument("--root", metavar="DIR", help="photos for the loaders (made on the spot)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (5)")
    parser.add_argument("--models", metavar="A,B", help="of networks: only these")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="of long_run (5000)")
    options = parser.parse_args(list(args))
    for name in options.subjects:
        if name not in SUBJECTS:
            raise unknown("benchmark", name, SUBJECTS)
    for name in options.subjects or [n for n in SUBJECTS if n not in BY_NAME_ALONE]:
        for row in _rows(name, options):
            print(json.dumps(row), flush=True)
    return 0


def _rows(name: str, options: Any) -> Iterator[dict[str, Any]]:
    names = options.models.split(",") if options.models else None
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

        yield from detection_benchmark(options.repeats, names=names)
    elif name == "segmentation":
        from lightning_zoo.bench.segmentation import segmentation_benchmark

        yield from segmentation_benchmark(options.repeats, names=names)
    elif name == "video":
        from lightning_zoo.bench.video import video_benchmark

        yield from video_benchmark(options.repeats, names=names)
    elif name == "quantization":
        from lightning_zoo.bench.quantization import quantization_benchmark

        yield from quantization_benchmark(options.repeats, names=names)
    elif name == "int8":
        from lightning_zoo.bench.int8 import int8_benchmark

        yield from int8_benchmark(options.repeats, names=names)
    elif name == "segmentation_loader":
        from lightning_zoo.bench.segmentation_loader import segmentation_loader_benchmark

        root = Path(options.root) if options.root else None
        yield from segmentation_loader_benchmark(root, repeats=options.repeats)
    elif name == "coco_index":
        from lightning_zoo.bench.coco_index import coco_index_benchmark

        yield from coco_index_benchmark()
    elif name == "long_run":
        from lightning_zoo.bench.long_run import long_run_benchmark

        yield from long_run_benchmark(options.steps)
    elif name == "video_decode":
        from lightning_zoo.bench.video_decode import video_decode_benchmark

        yield from video_decode_benchmark(options.repeats)
    else:
        from lightning_zoo.bench.loader import loader_benchmark

        root = Path(options.root) if options.root else None
        yield from loader_benchmark(root, images=100, repeats=options.repeats)
