from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_zoo.cli import new_parser, overrides
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import get_entry, list_models
from lightning_zoo.runs import find_run


def run(args: Sequence[str], *, debug: bool) -> int:
    """Bring a classifier to INT8 and measure it."""
    parser = new_parser(
        "quantize",
        "Bring a trained classifier to INT8: calibrate it on training images or,\n"
        "with --qat, train on with rounding simulated; then measure it beside fp32.",
        "  python -m lightning_zoo quantize runs/last --qat --trainer.max_epochs 4\n"
        "  python -m lightning_zoo quantize resnet18 --data data/imagenet\n"
        "  python -m lightning_zoo quantize quantization/resnet18 --data data/imagenet\n"
        "Any key of an INT8 recipe is an option too; see: recipes show resnet18_int8",
        usage="python -m lightning_zoo quantize RUN_OR_MODEL [--qat] [--KEY VALUE ...]",
    )
    parser.add_argument(
        "what", metavar="RUN_OR_MODEL", help="a run (of INT8: measured), a checkpoint or a model"
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the data (that of the run)")
    parser.add_argument("--qat", action="store_true", help="train on with rounding simulated")
    parser.add_argument(
        "--weights", default="DEFAULT", metavar="W", help="with a model: published name or a file"
    )
    parser.add_argument(
        "--images", type=int, default=1024, metavar="N", help="images to calibrate with (1024)"
    )
    parser.add_argument("--engines", metavar="A,B", help="engines to measure (all that work here)")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads of the latencies (1)"
    )
    parser.add_argument("--out", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options, pairs = overrides.parse(parser, args)
    if options.data is not None:
        if any(key == "data.root" for key, _ in pairs):
            raise ZooError("--data and --data.root say the same; give one of them")
        pairs = [("data.root", options.data), *pairs]

    models = list_models()
    for option in ("threads", "images"):
        if getattr(options, option) < 1:
            value = getattr(options, option)
            raise ZooError(f"--{option} is {value}; expected a whole number of at least 1")
    if options.what.startswith("quantization/"):
        get_entry(options.what)
    elif options.what not in models and Path(options.what).suffix != ".ckpt":
        find_run(options.what, Path(options.out), models)

    from lightning_zoo import engine

    # what is said on the way goes elsewhere, so that the JSON stands alone
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        result = engine.quantize(
            options.what,
            pairs,
            qat=options.qat,
            weights=options.weights,
            images=options.images,
            engines=options.engines.split(",") if options.engines else None,
            threads=options.threads,
            out=options.out,
            debug=debug,
        )
    if options.json:
        print(json.dumps(result.as_json()))
        return 0
    print(f"\n{result.table()}")
    if result.program is not None:
        print(f"program  {result.program}: lightning_zoo.int8.load reads it, torch.export.load too")
        print(f"next: python -m lightning_zoo predict {result.run} PHOTOS --out out/")
    return 0
