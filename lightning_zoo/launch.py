"""The command lines that start a recipe on several GPUs or machines: torchrun's, or a SLURM job.

Nothing here imports torch, and nothing is started: what is printed can be read, kept and changed.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.batch import BatchPlan, counted, plan_batches
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.recipe.lint import LOGGERS
from lightning_zoo.recipe.trust import is_trusting
from lightning_zoo.recipe.yaml_lines import parse_scalar

# Seconds between SLURM's signal and the end of the job's time: one step and one checkpoint.
NOTICE = 120
PORT = 29500
# Those of a data module where a recipe leaves them out.
WORKERS = 4
WIDTH = 100
# What sbatch takes for --time: minutes, hours:minutes:seconds, days-hours and so on.
TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,@%+/-]*")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(:\d{1,5})?")

# srun does not take the job's number of cores over by itself.
SRUN = ("srun", '--cpus-per-task="$SLURM_CPUS_PER_TASK"')

JOB = """\
#!/bin/bash
# {title}; submit this file with sbatch
# {arithmetic}
{directives}

{command}
status=$?
# stopped with a checkpoint by USR1, as the time is up: the same job goes on later. After TERM it
# does not: scancel sends that, and SLURM itself queues a job anew that had to make room
if [ "$status" -eq 138 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def launch_script(
    recipe: str | Path,
    overrides: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
    *,
    nodes: int = 1,
    gpus: int = 1,
    slurm: bool = False,
    host: str | None = None,
    time: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    cpus: int | None = None,
    resume: str | Path | None = None,
    loggers: Sequence[str] | None = None,
    lr_rule: str = "fixed",
    out: str | Path | None = None,
) -> str:
    """Return the shell script that trains a recipe on several GPUs or machines.

    Args:
        recipe: A recipe's name or file.
        overrides: Keys of the recipe to replace.
        nodes: Number of machines.
        gpus: GPUs of each machine, one process a GPU.
        slurm: Return a file for ``sbatch``, whose job is queued anew until the run has finished.
        host: Without ``slurm``, on several machines: the first one's name, ``gpu01`` or
            ``gpu01:29500``.
        time: With ``slurm``: the job's limit, ``24:00:00``.
        partition: With ``slurm``: the partition, or several with commas.
        account: With ``slurm``: the account.
        cpus: With ``slurm``: CPU cores of each process; None: the recipe's workers and one.
        resume: As for :func:`lightning_zoo.fit`; None is ``"auto"`` with ``slurm``.
        loggers: As for :func:`lightning_zoo.fit`.
        lr_rule: As for :func:`lightning_zoo.fit`.
        out: Folder of the run folders; None is ``runs``, with ``slurm`` a folder of the job in it,
            so that a job which goes on finds its own run.

    Raises:
        ZooError: If the recipe, the batch on so many devices or an option is wrong.
    """
    for option, value in (("--nodes", nodes), ("--gpus", gpus), ("--cpus", cpus)):
        if value is not None and value < 1:
            raise ZooError(f"{option} is {value}; expected a whole number of at least 1")
    if out is not None and not str(out).strip():
        raise ZooError(f"--out is {str(out)!r}; expected a folder of runs, or leave it out")
    pairs = list(overrides.items()) if isinstance(overrides, Mapping) else list(overrides)
    chosen = load_recipe(recipe).with_overrides(pairs).check()
    stated = chosen.get("trainer.num_nodes", nodes)
    if stated != nodes:
        raise ZooError(
            f"trainer.num_nodes is {stated} and --nodes {nodes}; leave trainer.num_nodes out, the "
            "launcher says it"
        )
    for logger in loggers or ():
        if logger not in LOGGERS:
            raise unknown("--logger", logger, LOGGERS)
    batch = chosen.config["batch"]
    plan = plan_batches(batch["size"], batch["per_device"], nodes * gpus, lr_rule=lr_rule)

    fit = ["fit", "--recipe", str(recipe)]
    for key, value in pairs:
        fit.append(f"--{key}={_as_yaml(value)}")
    if loggers is not None:
        fit += ["--logger", ",".join(loggers)]
    if lr_rule != "fixed":
        fit += ["--lr_rule", lr_rule]
    if out is not None:
        fit += ["--out", str(out)]
    if resume is not None or slurm:
        fit += ["--resume", str(resume or "auto")]
    if is_trusting():
        fit.append("--trust")
    words = [shlex.quote(word) for word in fit]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", chosen.name)  # stands in a comment: one word
    title = f"{name} on {counted(nodes, 'machine')} x {counted(gpus, 'GPU')}"
    arithmetic = _explain(chosen, plan)
    if not slurm:
        theirs = {"time": time, "partition": partition, "account": account, "cpus": cpus}
        for option in (option for option, given in theirs.items() if given is not None):
            raise ZooError(f"--{option} is SLURM's; add --slurm")
        return _by_hand(words, nodes, gpus, host, f"# {title}\n# {arithmetic}\n")
    if host is not None:
        raise ZooError("--host is for machines without SLURM; leave it out with --slurm")
    if out is None:
        words += ["--out", '"runs/job_$SLURM_JOB_ID"']
    directives = {
        "job-name": name,
        "nodes": nodes,
        "ntasks-per-node": gpus,
        "gpus-per-node": gpus,
        "cpus-per-task": cpus or int(chosen.get("data.workers", WORKERS)) + 1,
        "time": _matching("--time", time, TIME, "as for sbatch: 24:00:00, 2-12 or minutes"),
        "partition": _matching("--partition", partition, WORD, "a partition's name"),
        "account": _matching("--account", account, WORD, "an account's name"),
        "output": "%x-%j.log",
        "open-mode": "append",  # a job that goes on writes on in the same file
        "signal": f"USR1@{NOTICE}",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in directives.items() if value is not None]
    return JOB.format(
        title=title,
        arithmetic=arithmetic,
        directives="\n".join([*lines, "#SBATCH --requeue"]),
        command=_wrapped([*SRUN, _python(), "-m", "lightning_zoo", *words]),
    )


def _by_hand(words: list[str], nodes: int, gpus: int, host: str | None, head: str) -> str:
    """Return torchrun's command line, for several machines one each."""
    command = ["-m", "lightning_zoo", *words]
    if nodes == 1:
        if host is not None:
            raise ZooError("--host names the first of several machines; leave it out with one")
        if gpus == 1:
            return f"{head}{_wrapped([_python(), *command])}\n"
        start = [*_torchrun(), "--standalone", "--nproc-per-node", str(gpus)]
        return f"{head}{_wrapped([*start, *command])}\n"
    if host is None:
        raise ZooError(
            f"--nodes {nodes} needs --host NAME, the first machine's name as the others know it, "
            "or --slurm"
        )
    first, _, port = str(_matching("--host", host, HOST, "NAME or NAME:PORT")).partition(":")
    text = head
    for node in range(nodes):
        start = [
            *_torchrun(), "--nnodes", str(nodes), "--node-rank", str(node),
            "--nproc-per-node", str(gpus), "--master-addr", first,
            "--master-port", port or str(PORT),
        ]  # fmt: skip
        where = f" ({first})" if node == 0 else ""
        text += f"\n# on machine {node}{where}:\n{_wrapped([*start, *command])}\n"
    return text


def _explain(recipe: Recipe, plan: BatchPlan) -> str:
    reference = recipe.get("reference", {}) or {}
    known = {k: reference[k] for k in ("devices", "per_device") if k in reference}
    unit = "clip" if recipe.task == "video" else "image"
    return plan.explain(known if len(known) == 2 else None, unit=unit)


def _as_yaml(value: Any) -> str:
    """Return the text that an option's reader takes for this very value."""
    if isinstance(value, str) and parse_scalar(value) == value:
        return value
    text = json.dumps(value, ensure_ascii=False)
    for word, meant in (("Infinity", ".inf"), ("NaN", ".nan")):
        if text.lstrip("-") == word:
            text = text.replace(word, meant)
    return text


def _matching(option: str, text: str | None, pattern: re.Pattern[str], meant: str) -> str | None:
    if text is not None and not pattern.fullmatch(text):
        raise ZooError(f"{option} is {text!r}; expected {meant}")
    return text


def _python() -> str:
    """Return this interpreter as a shell finds it: ``python`` where that is the same one."""
    found = shutil.which("python")
    return "python" if found == sys.executable else shlex.quote(sys.executable)


def _torchrun() -> list[str]:
    found = shutil.which("torchrun")
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return ["torchrun"]
    return [_python(), "-m", "torch.distributed.run"]


def _wrapped(words: Sequence[str]) -> str:
    """Join words of a shell's command into lines that end with a backslash."""
    lines = [words[0]]
    for word, following in zip(words[1:], [*words[2:], ""], strict=True):
        # an option begins a line where its value would not stand on the same one
        value = "" if following.startswith("-") else following
        together = f"{word} {value}" if word.startswith("-") and "=" not in word else word
        if len(lines[-1]) + len(together) > WIDTH - 4:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)
