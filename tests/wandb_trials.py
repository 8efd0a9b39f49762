"""Trains with W&B in one fork each, against servers named on standard input; says how it went.

What takes seconds to import is imported once, before anything is forked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import wandb
import wandb.sdk.launch.inputs.internal  # which W&B imports when a run begins

import lightning_zoo as lz
from lightning_zoo.engine import fit as fit_module  # noqa: F401
from lightning_zoo.loggers import wandb as ours
from lightning_zoo.tasks import ClassificationTask

CHANGES: dict[str, Any] = {
    "data.workers": 0,
    "data.albumentations": None,
    "data.train_crop": 32,
    "data.eval_resize": 32,
    "data.eval_crop": 32,
    "model.model": "squeezenet1_1",
    "batch": {"size": 4, "per_device": 4},
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 1,
    "run.pictures": 2,
}


class Clock:
    """Adds up the seconds that some functions take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, name: str, owner: Any, function: str) -> None:
        real = getattr(owner, function)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            try:
                return real(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

        setattr(owner, function, timed)


def stumble(task: Any, *args: Any) -> None:
    """End training by an error."""
    if task.global_step == 2:
        raise RuntimeError(f"something went wrong in {__file__}")


def die(task: Any, *args: Any) -> None:
    """End training without a word."""
    if task.global_step == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def trial(
    folder: Path, data: Path, loggers: list[str], variables: dict[str, str], end: str | None
) -> None:
    """Train, and leave ``result.json``; an ``end`` comes in the middle of training."""
    if end is not None:
        ClassificationTask.on_train_batch_end = {"raise": stumble, "kill": die}[end]  # type: ignore[method-assign]
    os.environ.update(variables)
    clock, printed = Clock(), io.StringIO()
    clock.watch("start", ours, "wandb_logger")
    clock.watch("in vain", ours, "_begin_online")
    clock.watch("end", sys.modules["lightning_zoo.callbacks.pictures"], "log_artifact")
    clock.watch("end", wandb.Run, "finish")
    with contextlib.redirect_stdout(printed):
        result = lz.fit(
            "finetune_resnet18",
            {**CHANGES, "data.root": str(data)},
            out=folder / "runs",
            loggers=loggers,
        )
    weights = torch.load(result.best, weights_only=True)["state_dict"]
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    (folder / "result.json").write_text(
        json.dumps(
            {
                "run": str(result.run),
                "weights": digest.hexdigest(),
                "seconds": clock.seconds,
                "printed": printed.getvalue(),
                "done": time.monotonic(),
            }
        )
    )


def main() -> None:
    """Fork the trials that standard input lists, some at a time; print what each came to."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    left, running, found = list(asked["trials"]), {}, {}
    while left or running:
        while left and len(running) < asked["at_once"]:
            one = left.pop(0)
            folder = Path(one["folder"])
            folder.mkdir(parents=True)
            if (pid := os.fork()) == 0:
                sys.stdout.flush()
                err = os.open(folder / "stderr", os.O_CREAT | os.O_WRONLY)
                os.dup2(err, 2)
                os.dup2(err, 1)
                # no way leads past _exit: the first to end as a program does would empty a folder
                # that all share
                status = 1
                try:
                    trial(
                        folder,
                        Path(asked["data"]),
                        one["loggers"],
                        one["variables"],
                        one.get("end"),
                    )
                    wandb.teardown()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                os._exit(status)
            running[pid] = one
        pid, status = os.wait()
        ended = time.monotonic()
        one = running.pop(pid)
        answer = {"status": os.waitstatus_to_exitcode(status)}
        path = Path(one["folder"]) / "result.json"
        if path.is_file():
            answer |= json.loads(path.read_text())
            answer["seconds"]["exit"] = ended - answer.pop("done")
        answer["stderr"] = (Path(one["folder"]) / "stderr").read_text()
        found[one["name"]] = answer
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
