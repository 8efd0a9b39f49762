from __future__ import annotations

from collections.abc import Sequence

from lightning_zoo.batch import check_devices
from lightning_zoo.cli import new_parser, overrides
from lightning_zoo.errors import unknown
from lightning_zoo.recipe import load_recipe
from lightning_zoo.recipe.lint import LOGGERS


def run(args: Sequence[str], *, debug: bool) -> int:
    """Train what a recipe says."""
    parser = new_parser(
        "fit",
        "Train what a recipe says; the run lands in runs/<recipe>/<time>/.",
        "Any key of the recipe is an option too, init_args left out:\n"
        "  --data.root DIR  --trainer.max_epochs 3  --model.optimizer.lr 0.01\n"
        "See them with: python -m lightning_zoo recipes show NAME",
        usage="python -m lightning_zoo fit --recipe NAME [options] [--KEY VALUE ...]",
    )
    parser.add_argument("--recipe", required=True, metavar="NAME", help="recipe's name or file")
    parser.add_argument("--smoke", action="store_true", help="two steps on generated data")
    parser.add_argument(
        "--resume", metavar="WHAT", help="auto (newest unfinished run), a run or a checkpoint"
    )
    parser.add_argument("--devices", default="auto", metavar="N", help="devices here (auto)")
    parser.add_argument("--logger", metavar="A,B", help=f"of {', '.join(LOGGERS)}")
    parser.add_argument(
        "--lr_rule", default="fixed", choices=["fixed", "linear"],
        help="keep the step's images, or one pass a step and scale the rate",
    )  # fmt: skip
    parser.add_argument("--out", default="runs", metavar="DIR", help="folder of runs (runs)")
    options, pairs = overrides.parse(parser, args)
    loggers = options.logger.split(",") if options.logger else None
    for name in loggers or ():
        if name not in LOGGERS:
            raise unknown("--logger", name, LOGGERS)
    check_devices(options.devices)
    recipe = load_recipe(options.recipe)
    overrides.check_early(recipe, pairs)

    from lightning_zoo.engine import fit

    fit(
        recipe,
        pairs,
        smoke=options.smoke,
        resume=options.resume,
        devices=options.devices,
        loggers=loggers,
        lr_rule=options.lr_rule,
        out=options.out,
        debug=debug,
    )
    return 0
