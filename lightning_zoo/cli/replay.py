from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lightning_zoo.cli import new_parser
from lightning_zoo.errors import unknown

DEVICES = ("auto", "cpu", "cuda")


def run(args: Sequence[str], *, debug: bool) -> int:
    """Replay a step whose loss was no finite number."""
    parser = new_parser(
        "replay",
        "A run stops where its loss or a gradient is not finite, before the optimizer\n"
        "has seen it, and keeps the batch and the network. This computes that step again\n"
        "and names the first module that makes such values, and the sample and the\n"
        "annotation that do it. The data set is not needed.",
        "  python -m lightning_zoo replay runs/last\n"
        "  python -m lightning_zoo replay runs/last/nonfinite/step_17 --json\n"
        "Exit status: 0 it came again, 1 all is finite now, 2 nothing to replay.",
    )
    parser.add_argument("dir", metavar="DIR", help="the folder, or a run: its newest one")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--device", default="auto", metavar="D", help="cpu or cuda (as the run)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    options = parser.parse_args(list(args))
    if options.device not in DEVICES:
        raise unknown("--device", options.device, DEVICES)
    from lightning_zoo.nonfinite import find_step

    folder = find_step(options.dir, Path(options.runs))

    from lightning_zoo.engine import replay

    found = replay(folder, device=options.device)
    print(json.dumps(found.as_json()) if options.json else found.text())
    return 0 if found.reproduced else 1
