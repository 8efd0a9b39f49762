from __future__ import annotations

from collections.abc import Sequence

from lightning_zoo.cli import new_parser, overrides
from lightning_zoo.launch import launch_script


def run(args: Sequence[str], *, debug: bool) -> int:
    """Print how to start a recipe on several GPUs or machines."""
    parser = new_parser(
        "launch",
        "Print the commands that train a recipe on several GPUs or machines.",
        "Any key of the recipe is an option too, as for fit.\n"
        "  launch --recipe vgg16 --nodes 2 --gpus 4 --slurm > job.sh && sbatch job.sh",
        usage="python -m lightning_zoo launch --recipe NAME [options] [--KEY VALUE]",
    )
    parser.add_argument("--recipe", required=True, metavar="NAME", help="recipe's name or file")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (1)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="GPUs of each (1)")
    parser.add_argument("--slurm", action="store_true", help="a file for sbatch, not torchrun")
    parser.add_argument("--host", metavar="NAME", help="without SLURM: the first machine")
    parser.add_argument("--time", metavar="T", help="SLURM: limit of the job, such as 24:00:00")
    parser.add_argument("--partition", metavar="P", help="SLURM: partition")
    parser.add_argument("--account", metavar="A", help="SLURM: account")
    parser.add_argument("--cpus", type=int, metavar="N", help="SLURM: cores (workers + 1)")
    parser.add_argument("--resume", metavar="WHAT", help="as for fit (with SLURM: auto)")
    parser.add_argument("--logger", metavar="A,B", help="as for fit")
    parser.add_argument("--lr_rule", default="fixed", metavar="RULE", help="as for fit")
    parser.add_argument("--out", metavar="DIR", help="folder of runs")
    options, pairs = overrides.parse(parser, args)
    script = launch_script(
        options.recipe,
        pairs,
        nodes=options.nodes,
        gpus=options.gpus,
        slurm=options.slurm,
        host=options.host,
        time=options.time,
        partition=options.partition,
        account=options.account,
        cpus=options.cpus,
        resume=options.resume,
        loggers=options.logger.split(",") if options.logger else None,
        lr_rule=options.lr_rule,
        out=options.out,
    )
    print(script, end="")
    return 0
