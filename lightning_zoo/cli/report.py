from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from lightning_zoo.cli import new_parser
from lightning_zoo.runs import find_run


def run(args: Sequence[str], *, debug: bool) -> int:
    """Write one page of a run."""
    parser = new_parser(
        "report",
        "Write one HTML page of a run (a folder, 'last' or a recipe's name): curves,\n"
        "figures of each class, precision and recall, confusions, the worst images,\n"
        "the data, recipe and environment. It needs no server and no network. Detectors\n"
        "and classifiers of several labels get the best score of each class, which is\n"
        "kept in the run's checkpoints; predict and export take it from there.",
        "  python -m lightning_zoo report runs/last\n"
        "  python -m lightning_zoo report finetune_resnet18 --out report.html",
    )
    parser.add_argument("run", metavar="RUN", help="the run")
    parser.add_argument("--out", metavar="FILE", help="the page (report.html in the run's folder)")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--json", action="store_true", help="print path and figures as JSON")
    options = parser.parse_args(list(args))
    if Path(options.run).suffix != ".ckpt":
        find_run(options.run, Path(options.runs))

    from lightning_zoo.report import write_report

    report = write_report(options.run, out=options.out, runs=options.runs, debug=debug)
    if options.json:
        metrics = {k: None if math.isnan(v) else v for k, v in report.metrics.items()}
        print(json.dumps({"report": str(report.path), "metrics": metrics,
                          "thresholds": report.thresholds}, ensure_ascii=False))  # fmt: skip
        return 0
    if report.thresholds:
        print("threshold of each class, kept in the run's checkpoints:")
        width = max(map(len, report.thresholds))
        for name, value in report.thresholds.items():
            print(f"  {name:<{width}}  {value:.3f}")
    print(f"report: {report.path}")
    return 0
