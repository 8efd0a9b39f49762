from __future__ import annotations

from collections.abc import Sequence

from lightning_zoo.cli import new_parser

TASKS = ("classification", "detection", "instances", "keypoints", "segmentation", "video")


def run(args: Sequence[str], *, debug: bool) -> int:
    """Show one task from data to pictures."""
    parser = new_parser(
        "demo",
        "Make data on the spot, train on it, draw predictions. Needs no download.\n"
        "Takes one to two minutes on two cores.",
    )
    parser.add_argument(
        "task",
        nargs="?",
        default="instances",
        choices=TASKS,
        metavar="TASK",
        help=f"{', '.join(TASKS)} (instances)",
    )
    parser.add_argument("--out", default="runs", metavar="DIR", help="folder of runs (runs)")
    options = parser.parse_args(list(args))

    from lightning_zoo.engine import demo

    demo(options.task, out=options.out)
    return 0
