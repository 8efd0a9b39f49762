from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from lightning_zoo.batch import counted
from lightning_zoo.cli import Parser, new_parser
from lightning_zoo.errors import unknown

TASKS = ("classification", "detection", "segmentation", "video")
TARGETS = ("coco", "yolo")


def run(args: Sequence[str], *, debug: bool) -> int:
    """Check, show or convert one's own data."""
    parser = new_parser(
        "data",
        "Your own data: its format is recognised by looking (COCO, YOLO, Pascal VOC,\n"
        "class folders, CSV, mask folders, video folders).",
        "  python -m lightning_zoo data check my_data\n"
        "  python -m lightning_zoo data show my_data --n 16 --augmented\n"
        "  python -m lightning_zoo data convert my_data my_coco --to coco\n"
        "data VERB --help shows the options, data formats the layouts that are known.",
    )
    verbs = parser.add_subparsers(
        dest="verb", metavar="{check,show,convert,formats}", required=True
    )
    check = _verb(verbs, "check", "read every file once and list what is wrong",
                  "Exit status: 0 fit to train, 1 errors (with --strict warnings too),\n"
                  "2 the data cannot be read at all.")  # fmt: skip
    check.add_argument("--json", action="store_true", help="print all findings as JSON")
    check.add_argument("--strict", action="store_true", help="exit 1 at warnings too")
    check.add_argument("--no-files", action="store_true", help="look at the labels alone")
    check.add_argument("--workers", type=int, metavar="N", help="threads that read (cores)")
    show = _verb(verbs, "show", "draw labels, and a training batch, into a PNG file",
                 "Pictures are chosen at random, the classes taking turns.")  # fmt: skip
    show.add_argument("--n", type=int, default=16, metavar="N", help="pictures (16)")
    show.add_argument("--split", metavar="S", help="train, val or test (all)")
    show.add_argument("--class", dest="name", metavar="NAME", help="those with this class")
    show.add_argument("--out", metavar="FILE", help="(NAME_labels.png here)")
    show.add_argument("--augmented", action="store_true", help="finetune's batch as well")
    show.add_argument("--recipe", metavar="NAME", help="the batch of this recipe as well")
    show.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice (0)")
    convert = _verb(verbs, "convert", "write the data in another format",
                    "Images are copied; what the format cannot hold is named.")  # fmt: skip
    convert.add_argument("out", metavar="OUT", help="folder to write, empty or not there yet")
    convert.add_argument("--to", required=True, metavar="FORMAT", help="coco or yolo")
    convert.add_argument("--link", action="store_true", help="link images, do not copy them")
    verbs.add_parser(
        "formats", help="list the formats and their layouts", description="List the formats."
    )
    options = parser.parse_args(list(args))
    if options.verb == "formats":
        return _formats()
    if options.task is not None and options.task not in TASKS:
        raise unknown("--task", options.task, TASKS)
    actions = {"check": _check, "show": _show, "convert": _convert}
    return actions[options.verb](options)


def _formats() -> int:
    from lightning_zoo.formats import FORMATS

    width = max(map(len, FORMATS))
    for name, text in FORMATS.items():
        print(f"{name:<{width}}  {text}")
    return 0


def _verb(verbs: Any, name: str, short: str, text: str) -> Parser:
    """Add a verb with the options that say how data is read."""
    operands = "ROOT OUT --to FORMAT" if name == "convert" else "ROOT"
    parser: Parser = verbs.add_parser(
        name,
        usage=f"python -m lightning_zoo data {name} {operands} [options]",
        help=short,
        description=f"{short[0].upper()}{short[1:]}.\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("root", metavar="ROOT", help="folder of the data, or its labels' file")
    parser.add_argument("--format", default="auto", metavar="F", help="its format (recognised)")
    parser.add_argument("--task", metavar="T", help=", ".join(TASKS))
    parser.add_argument("--annotations", metavar="FILE", help="the one label file to read")
    parser.add_argument(
        "--val_share", type=float, default=0.2, metavar="S", help="where val is missing (0.2)"
    )
    parser.add_argument(
        "--split_seed", type=int, default=0, metavar="N", help="seed of that split (0)"
    )
    return parser


def _reading(options: Any) -> dict[str, Any]:
    return {
        name: getattr(options, name)
        for name in ("format", "task", "annotations", "val_share", "split_seed")
    }


def _check(options: Any) -> int:
    from lightning_zoo.data_check import check_data

    report = check_data(
        options.root,
        files=not options.no_files,
        workers=options.workers,
        progress=not options.json,
        **_reading(options),
    )
    print(json.dumps(report.as_json()) if options.json else report.text())
    return report.status(strict=options.strict)


def _show(options: Any) -> int:
    from lightning_zoo.data_check import show_data

    paths = show_data(
        options.root,
        n=options.n,
        split=options.split,
        class_name=options.name,
        out=options.out,
        augmented=options.augmented,
        recipe=options.recipe,
        seed=options.seed,
        **_reading(options),
    )
    for path in paths:
        print(path)
    return 0


def _convert(options: Any) -> int:
    if options.to not in TARGETS:
        raise unknown("--to", options.to, TARGETS)
    from lightning_zoo.formats import read_data
    from lightning_zoo.formats.convert import convert, what_is_lost

    index = read_data(options.root, **_reading(options))
    out = convert(index, options.out, to=options.to, link=options.link)
    for decision in index.decisions:
        print(decision)
    for split in index.splits:
        objects = sum(len(item.objects) for item in index.of(split))
        print(f"{split:<6}{counted(len(index.of(split)), 'image')}, {counted(objects, 'object')}")
    for sentence in what_is_lost(index, options.to):
        print(f"lost: {sentence}")
    left_out = sum(problem.severity != "note" for problem in index.problems)
    if left_out:
        print(f"{counted(left_out, 'problem')} in the labels; see: "
              f"python -m lightning_zoo data check {options.root}")  # fmt: skip
    print(f"written: {out}; next: python -m lightning_zoo data check {options.out}")
    return 0
