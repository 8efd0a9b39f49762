"""Runs on several ranks, forked from one interpreter that has imported everything already.

A fresh interpreter takes seconds to import torch and Lightning, a fork milliseconds. Run as a
program, it reads one job a line from stdin and answers with a line; :class:`RankForks` is the other
end, and is to be closed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

WITHIN = 240.0  # seconds in which every job ends on machines that others share


class RankForks:
    """Starts jobs on one or more ranks that believe a launcher started them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.count = folder, 0
        root = Path(__file__).parents[2]
        self.program = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )

    def run(self, work: str, world: int, nodes: int = 1, **what: Any) -> list[dict[str, Any]]:
        """Return what each rank found; see :func:`fit` and :func:`validate` for ``what``.

        Args:
            work: Name of one of them.
            world: Number of ranks.
            nodes: Number of machines that they believe to be on.
        """
        self.count += 1
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        stem = str(self.folder / f"job{self.count}")
        job = {"work": work, "world": world, "nodes": nodes, "port": port, "stem": stem, **what}
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(json.dumps(job) + "\n")
        self.program.stdin.flush()
        statuses = json.loads(self.program.stdout.readline())
        logs = "\n".join(Path(f"{stem}_{rank}.log").read_text() for rank in range(world))
        assert statuses == [0] * world, logs
        return [json.loads(Path(f"{stem}_{rank}.json").read_text()) for rank in range(world)]

    def close(self) -> None:
        """End the program."""
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.close()
        self.program.wait(timeout=30)
        self.program.stdout.close()


# --- in the program -------------------------------------------------------------------------------


def keep_norms_still() -> None:
    """Let batch norms use their running values, as batch statistics differ between ranks."""
    from torch.nn import functional as F
    from torch.nn.modules.batchnorm import _BatchNorm

    def forward(self: Any, x: Any) -> Any:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    _BatchNorm.forward = forward  # type: ignore[method-assign]


def fit(job: dict[str, Any]) -> dict[str, Any]:
    """Train ``recipe`` into ``out``; return the run and the loss of each chunk of images."""
    import lightning_zoo as lz
    from lightning_zoo.tasks.base import Task

    keep_norms_still()
    losses: list[tuple[list[int], float]] = []
    began, recorded = Task.on_train_batch_start, Task.record_loss
    place: list[int] = []

    def begin(self: Any, batch: Any, batch_idx: int) -> None:
        chunk = batch_idx * self.trainer.world_size + self.global_rank
        place[:] = [self.current_epoch, chunk]
        began(self, batch, batch_idx)

    def record(self: Any, loss: Any, *args: Any, **kwargs: Any) -> None:
        losses.append((list(place), float(loss)))
        recorded(self, loss, *args, **kwargs)

    Task.on_train_batch_start, Task.record_loss = begin, record  # type: ignore[method-assign]
    result = lz.fit(job["recipe"], out=job["out"])
    return {"run": str(result.run), "losses": losses}


def validate(job: dict[str, Any]) -> dict[str, Any]:
    """Measure ``checkpoint``; return the figures and the samples that this rank saw."""
    import lightning_zoo as lz
    from lightning_zoo.tasks.base import Task

    seen: list[str] = []

    def watched(task: Any) -> Any:
        evaluate = task.evaluate

        def inner(self: Any, batch: Any) -> None:
            clips = batch["clip"].tolist() if "clip" in batch else [0] * len(batch["id"])
            seen.extend(f"{name} {clip}" for name, clip in zip(batch["id"], clips, strict=True))
            evaluate(self, batch)

        return inner

    todo = [Task]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if "evaluate" in vars(cls):
            cls.evaluate = watched(cls)  # type: ignore[method-assign]
    result = lz.validate(job["checkpoint"])
    return {"metrics": result.metrics, "per_class": list(result.per_class), "seen": seen}


def be_rank(job: dict[str, Any], rank: int) -> int:
    """Do a job as one rank; return the exit status."""
    log = os.open(f"{job['stem']}_{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if job["world"] > 1:
        here = job["world"] // job["nodes"]
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank % here), "WORLD_SIZE": str(job["world"]),
            "LOCAL_WORLD_SIZE": str(here), "GROUP_RANK": str(rank // here),
            "GROUP_WORLD_SIZE": str(job["nodes"]), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(job["port"]), "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
    try:
        found = {"fit": fit, "validate": validate}[job["work"]](job)
        Path(f"{job['stem']}_{rank}.json").write_text(json.dumps(found))
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def wait_for(children: list[int]) -> list[int]:
    """Return the statuses of the ranks; those that hang are killed."""
    deadline = time.monotonic() + WITHIN
    statuses: dict[int, int] = {}
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses and (done := os.waitpid(child, os.WNOHANG))[0]:
                statuses[child] = os.waitstatus_to_exitcode(done[1])
        if time.monotonic() > deadline or any(statuses.values()):
            deadline = 0.0
            for child in set(children) - set(statuses):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [statuses[child] for child in children]


def main() -> None:
    """Serve jobs until stdin ends."""
    import torch

    import lightning_zoo.engine  # noqa: F401  # all that a job needs, imported once

    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for rank in range(job["world"]):
            child = os.fork()
            if child == 0:
                os._exit(be_rank(job, rank))
            children.append(child)
        print(json.dumps(wait_for(children)), flush=True)


if __name__ == "__main__":
    main()
