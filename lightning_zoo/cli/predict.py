from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_zoo.cli import new_parser
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import list_models
from lightning_zoo.runs import find_run


def run(args: Sequence[str], *, debug: bool) -> int:
    """Use a model on photos or videos."""
    parser = new_parser(
        "predict",
        "Classify photos or videos, find objects in photos, or name the class of every\n"
        "pixel, with a run (folder, 'last' or a recipe's name), a checkpoint or a model\n"
        "of the zoo. Unreadable files are named, the rest goes on (exit 1).",
        "  python -m lightning_zoo predict runs/last photos/ --out out/\n"
        "  python -m lightning_zoo predict resnet50 dog.jpg\n"
        "  python -m lightning_zoo predict maskrcnn_resnet50_fpn street.jpg --out out/\n"
        "  python -m lightning_zoo predict r3d_18 skiing.mp4 --out out/",
    )
    parser.add_argument("what", metavar="RUN_OR_MODEL", help="what predicts")
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE", help="images or videos, and folders of them"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for pictures and predictions.json")
    parser.add_argument("--weights", default="DEFAULT", metavar="W", help="with a model (DEFAULT)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="S",
        help="detectors: score from which an object counts (0.5)",
    )  # fmt: skip
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--json", action="store_true", help="print the predictions as JSON")
    options = parser.parse_args(list(args))
    models = list_models()
    if options.what not in models and Path(options.what).suffix != ".ckpt":
        find_run(options.what, Path(options.runs), models)

    from lightning_zoo.engine import predict

    broken: list[str] = []
    found = predict(
        options.what,
        options.inputs,
        out=options.out,
        weights=options.weights,
        threshold=options.threshold,
        runs=options.runs,
        debug=debug,
        broken=broken,
    )
    if options.json:
        print(json.dumps([p.as_json() for p in found], ensure_ascii=False))
    else:
        width = min(60, max((len(p.file) for p in found), default=0))
        for p in found:
            print(f"{p.file:<{width}}  {p.summary()}")
    if options.out and found and not options.json:
        print(f"pictures: {options.out}/grid.png and one for each file")
    for sentence in broken:
        print(f"skipped: {sentence}", file=sys.stderr)
    if broken and not found:
        raise ZooError(f"none of the {len(broken)} files could be read")
    return 1 if broken else 0
