from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_zoo.batch import check_devices
from lightning_zoo.cli import new_parser, overrides
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.models.registry import get_entry
from lightning_zoo.recipe.lint import LOGGERS

# Options that say a recipe's key in a word.
SHORT = {
    "epochs": "trainer.max_epochs",
    "lr": "model.optimizer.lr",
    "freeze_epochs": "model.finetuning.freeze_epochs",
}


def run(args: Sequence[str], *, debug: bool) -> int:
    """Train a model of the zoo on one's own data."""
    parser = new_parser(
        "finetune",
        "Train a model on your folder of images, boxes, masks or videos; then a report.\n"
        "Any key of a recipe is an option too: --data.augmentation null",
        usage="python -m lightning_zoo finetune --model NAME --data DIR [options]",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="see: models ls")
    add("--data", required=True, metavar="DIR", help="the folder; see: data check DIR")
    add("--weights", metavar="W", help="DEFAULT, none, a file or a run to start from")
    add("--epochs", type=int, metavar="N", help="passes over the data (chosen)")
    add("--lr", type=float, metavar="X", help="learning rate of the head (chosen)")
    add("--find-lr", action="store_true", help="try rising rates first, take the best")
    add("--batch", metavar="N", help="images of a step, or auto to try (chosen)")
    add("--freeze_epochs", type=float, metavar="N", help="epochs of the new head alone (1)")
    add("--format", default="auto", metavar="F", help="of the data (recognised)")
    add("--val_share", type=float, default=0.2, metavar="S", help="where no split is there")
    add("--split_seed", type=int, default=0, metavar="N", help="seed of that split (0)")
    add("--resume", metavar="WHAT", help="auto (newest unfinished run), or a run")
    add("--devices", default="auto", metavar="N", help="devices here (auto)")
    add("--logger", metavar="A,B", help=f"of {', '.join(LOGGERS)}")
    add("--dry-run", action="store_true", help="print the recipe, and train nothing")
    add("--no-report", action="store_true", help="leave out the report")
    add("--out", default="runs", metavar="DIR", help="folder of runs (runs)")
    options, pairs = overrides.parse(parser, args)
    loggers = options.logger.split(",") if options.logger else None
    for name in loggers or ():
        if name not in LOGGERS:
            raise unknown("--logger", name, LOGGERS)
    check_devices(options.devices)
    get_entry(options.model)
    given = [(key, getattr(options, name)) for name, key in SHORT.items()]
    given = [(key, value) for key, value in given if value is not None]
    batch: Literal["auto"] | None = None
    if options.batch == "auto":
        batch = "auto"
    elif options.batch is not None:
        if not options.batch.isdigit() or int(options.batch) < 1:
            raise ZooError(f"--batch is {options.batch!r}; expected a number of images, or auto")
        given += [("batch.size", int(options.batch)), ("batch.per_device", int(options.batch))]
    said = {key for key, _ in pairs}
    for key, _ in given:
        if key in said:
            raise ZooError(f"--{key} is given twice, once by its short name; give one of them")
    if options.find_lr and "model.optimizer.lr" in {*said, *(key for key, _ in given)}:
        raise ZooError("--find-lr looks for the rate that --lr gives; leave one of them out")
    if options.epochs is not None and options.epochs < 1:
        raise ZooError(f"--epochs is {options.epochs}; expected a whole number of at least 1")
    pairs = [*given, *pairs]
    if not Path(options.data).exists():
        raise ZooError(
            f"no folder {options.data!r} (--data); see: python -m lightning_zoo data check --help"
        )

    from lightning_zoo import engine

    if options.dry_run:
        from lightning_zoo.runs import dump

        plan = engine.plan_finetune(
            options.model, options.data, pairs, weights=options.weights, format=options.format,
            val_share=options.val_share, split_seed=options.split_seed, devices=options.devices,
        )  # fmt: skip
        print(plan.text(), file=sys.stderr)
        print("".join(f"# {line}\n" for line in plan.recipe.header) + dump(plan.recipe.config))
        return 0
    result = engine.finetune(
        options.model, options.data, pairs, weights=options.weights, format=options.format,
        val_share=options.val_share, split_seed=options.split_seed, batch=batch,
        find_lr=options.find_lr, resume=options.resume, devices=options.devices, loggers=loggers,
        report=not options.no_report, out=options.out, debug=debug,
    )  # fmt: skip
    print(f"next: python -m lightning_zoo validate {result.run}")
    print(f"      python -m lightning_zoo predict {result.run} PHOTOS --out out/")
    print(f"      python -m lightning_zoo export {result.run} --format onnx --check")
    return 0
