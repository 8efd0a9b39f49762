"""Which process of how many this one is, where a launcher started it: torchrun or SLURM's srun.

Nothing here imports torch, so that a command line can ask before it loads anything.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from lightning_zoo.errors import ZooError

# Names under which a SLURM job is no job of ours but a person's shell.
SHELLS = ("bash", "interactive")
# Ports for the first process to listen on: above the system's, below those lent to connections.
PORTS = range(10_000, 30_000)
NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: Number of this process among all, from 0.
        local_rank: Number of this process on its machine, from 0.
        size: Number of all processes.
        local_size: Number of processes on each machine.
        node: Number of this machine, from 0.
        nodes: Number of machines.
    """

    rank: int
    local_rank: int
    size: int
    local_size: int
    node: int
    nodes: int


def launched() -> World | None:
    """Return this process's place, None where no launcher started it or it is alone.

    Read are torchrun's variables. A process that Lightning started beside the first one has
    ``LOCAL_RANK`` and ``WORLD_SIZE`` but no ``RANK``: it is no launcher's.

    Raises:
        ZooError: If variables are missing or do not fit together, or machines differ in processes.
    """
    if "RANK" not in os.environ or _number("WORLD_SIZE", "1") <= 1:
        return None
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise ZooError(
            f"RANK and WORLD_SIZE are set and {' and '.join(missing)} not; start the processes "
            "with torchrun, see: python -m lightning_zoo launch --help"
        )
    rank, local_rank, size, local_size = (_number(name) for name in NEEDED)
    if local_size < 1:
        raise ZooError(f"LOCAL_WORLD_SIZE is {local_size}; expected a whole number of at least 1")
    nodes = _number("GROUP_WORLD_SIZE", str(-(-size // local_size)))
    if nodes * local_size != size:
        raise ZooError(
            f"{size} processes on {nodes} machines and {local_size} of them on this one: start as "
            "many on every machine"
        )
    node = _number("GROUP_RANK", str(rank // local_size))
    if not (0 <= local_rank < local_size and 0 <= node < nodes) or (
        rank != node * local_size + local_rank
    ):
        raise ZooError(
            f"RANK {rank} is no process {local_rank} of {local_size} on machine {node} of {nodes} "
            "(LOCAL_RANK, GROUP_RANK); start the processes with torchrun, see: "
            "python -m lightning_zoo launch --help"
        )
    return World(rank, local_rank, size, local_size, node, nodes)


def adopt_slurm() -> None:
    """Set torchrun's variables from SLURM's, in a process that ``srun`` started with others.

    Nothing happens where torchrun's are there already, in a batch script itself and in a shell.
    Processes are numbered machine by machine, whatever the job's distribution was.

    Raises:
        ZooError: If SLURM's variables cannot be understood.
    """
    env = os.environ
    # a batch script has SLURM_PROCID and SLURM_NTASKS too; only a job step has its number
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID", ""))
    if "RANK" in env or "SLURM_PROCID" not in env or not step.isdecimal():
        return
    if env.get("SLURM_JOB_NAME") in SHELLS or "SLURM_PTY_PORT" in env:
        return
    size = _number("SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS", "1")
    if size <= 1:
        return
    node, local_rank = _number("SLURM_NODEID"), _number("SLURM_LOCALID")
    tasks = _tasks_per_node(size)
    if not 0 <= node < len(tasks):
        raise ZooError(f"SLURM_NODEID is {node} in a job step on {len(tasks)} machines")
    job = _number("SLURM_JOB_ID", env.get("SLURM_JOBID", "0"))
    hosts = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    # two steps of one job may run side by side
    env.setdefault("MASTER_PORT", str(PORTS[(job + 97 * int(step)) % len(PORTS)]))
    env.setdefault("MASTER_ADDR", first_host(hosts))
    env["LOCAL_RANK"] = str(local_rank)
    env["WORLD_SIZE"] = str(size)
    env["LOCAL_WORLD_SIZE"] = str(tasks[node])
    env["GROUP_RANK"] = str(node)
    env["GROUP_WORLD_SIZE"] = str(len(tasks))
    # by this name Lightning knows torchrun's variables; as SLURM's own it would take SIGUSR1
    env["TORCHELASTIC_RUN_ID"] = f"slurm_{job}"
    env["RANK"] = str(sum(tasks[:node]) + local_rank)


def first_host(hosts: str) -> str:
    """Return the first of SLURM's list of hosts: ``node01`` of ``node[01-03,07],gpu5``."""
    first = re.split(r",(?![^\[]*\])", hosts.strip())[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _tasks_per_node(size: int) -> list[int]:
    """Return the processes of each machine from SLURM's ``8(x3),4``."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    text = os.environ.get(name) or os.environ.get("SLURM_TASKS_PER_NODE")
    if text is None:
        nodes = max(1, _number("SLURM_NNODES", "1"))
        return [size // nodes + (n < size % nodes) for n in range(nodes)]
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise ZooError(f"{name} is {text!r}; expected a list like 8(x3),4")
        found += [int(match[1])] * int(match[2] or 1)
    if sum(found) != size:
        raise ZooError(f"{name} is {text!r}, of {size} processes of the job step")
    return found


def _number(name: str, default: str | None = None) -> int:
    text = os.environ.get(name, default)
    if text is None or not text.strip().isdecimal():
        raise ZooError(f"{name} is {text!r}; expected a whole number, as a launcher sets it")
    return int(text)
