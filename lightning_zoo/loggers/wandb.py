"""Weights & Biases: online with a key and a server that answers, offline without either.

A server that is away, slow or broken never ends a run nor holds it up for long. All that is logged
stands in the run's folder as well, from where W&B's own commands send it later.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import secrets
import shlex
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.loggers import Logger, WandbLogger

from lightning_zoo.runs import Run

PROJECT = "lightning_zoo"
SECONDS_TO_START = 3.0
SECONDS_TO_END = 12.0  # for what is left when training ends, figures and pictures
SECONDS_TO_ANSWER = 3.0
# A large checkpoint may take its time as long as the server answers
SECONDS_WITHOUT_ANSWER = 8.0
SECONDS_BETWEEN_LOOKS = 2


class RunLogger(WandbLogger):
    """Lightning's logger, which remembers what the server did not take in."""

    left_out = ""


def wandb_logger(run: Run, *, title: str, config: dict[str, Any]) -> WandbLogger:
    """Return the logger of a run; a resumed run continues its W&B run.

    ``WANDB_MODE``, ``WANDB_PROJECT`` and ``WANDB_INIT_TIMEOUT`` are heeded.

    Args:
        run: The run's folder; the files stand in its ``wandb/``.
        title: Name under which the run is shown.
        config: The resolved recipe.
    """
    # W&B's reports on itself would hold up its end where nobody answers
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    state = run.state()
    if state.wandb_id is None:
        state.wandb_id = secrets.token_hex(4)
        run.write_state(state)
    arguments = {"id": state.wandb_id, "dir": run.path, "name": title, "config": config}
    mode = os.environ.get("WANDB_MODE") or ("online" if has_key(server()) else "offline")
    experiment, reason = _begin_online(arguments) if mode == "online" else (None, "")
    if experiment is None:
        experiment = _begin("offline" if mode == "online" else mode, arguments)
    if reason:
        _say_later(f"did not take this run in ({reason})", Path(experiment.dir).parent)
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    # given a run, Lightning's logger leaves out the arguments that W&B has given up
    return RunLogger(experiment=experiment, save_dir=run.path)


def _begin_online(arguments: dict[str, Any]) -> tuple[Any, str]:
    """Return W&B's run, or None and the reason why its server did not take it in."""
    import wandb

    folder, wandb_id = arguments["dir"], arguments["id"]
    before = _folders(folder, wandb_id)
    try:
        return _begin("online", arguments), ""
    except wandb.Error as error:
        # Until then the run's id is taken. A process of W&B's that somebody else started (a sweep,
        # an outer script) lives on and keeps the id: what follows gets a process of its own
        wandb.teardown()
        os.environ.pop("WANDB_SERVICE", None)
        for made in _folders(folder, wandb_id) - before:
            shutil.rmtree(made, ignore_errors=True)  # it holds no more than the run's name
        return None, " ".join(str(error).split())


def _begin(mode: str, arguments: dict[str, Any]) -> Any:
    import wandb

    limits: dict[str, Any] = {"finish_timeout": SECONDS_TO_END, "finish_timeout_raises": True}
    if mode == "online" and "WANDB_INIT_TIMEOUT" not in os.environ:
        limits["init_timeout"] = SECONDS_TO_START
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        mode=cast(Any, mode),
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            **limits,
        ),
        **arguments,
    )


def server() -> str:
    """Return the address of the W&B server, as W&B's own settings have it."""
    import wandb

    return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)


def has_key(address: str) -> bool:
    """Whether W&B finds a key for a server: in the environment or in ``~/.netrc``; asks no one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(os.environ.get("NETRC"))
        return known.authenticators(urllib.parse.urlsplit(address).netloc) is not None
    return False


def answers(address: str) -> bool:
    """Whether a server answers, and not with an error of its own; waits 3 s at the most."""
    try:
        urllib.request.urlopen(address, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except (OSError, ValueError):
        return False
    return True


def log_artifact(logger: WandbLogger, run: Run, metadata: dict[str, Any]) -> None:
    """Log the best checkpoint, with the resolved recipe, as an artifact of type ``model``.

    A large file takes its time as long as the server answers.
    """
    import wandb

    name = f"{run.state().recipe}-{logger.version}"
    artifact = wandb.Artifact(name, "model", metadata=metadata)
    artifact.add_file(str(run.best), name="best.ckpt")
    artifact.add_file(str(run.recipe_file), name="recipe.yaml")
    if logger.experiment.offline:
        logger.experiment.log_artifact(artifact, aliases=["best"])
        return
    # a run is not lost for the report that it is done: no error passes
    try:
        if not answers(server()):
            raise TimeoutError("no answer")
        _wait(logger.experiment.log_artifact(artifact, aliases=["best"]))
    except Exception as error:
        if isinstance(logger, RunLogger):
            reason = " ".join(str(error).split())
            project = os.environ.get("WANDB_PROJECT", PROJECT)
            words = ["wandb", "artifact", "put", "--type", "model", "--name", f"{project}/{name}"]
            later = shlex.join([*words, os.path.relpath(run.best)])
            logger.left_out = f"the best checkpoint ({reason}; send it later with: {later})"


def _wait(artifact: Any) -> None:
    """Wait until an artifact is sent.

    Raises:
        TimeoutError: If the server no longer answers.
        ValueError: If it refuses.
    """
    from wandb.sdk.artifacts.exceptions import WaitTimeoutError

    last_answer = time.monotonic()
    while time.monotonic() - last_answer < SECONDS_WITHOUT_ANSWER:
        try:
            artifact.wait(timeout=SECONDS_BETWEEN_LOOKS)
            return
        except WaitTimeoutError:
            if answers(server()):
                last_answer = time.monotonic()
    raise TimeoutError("no answer any more")


def finish(logger: Logger) -> None:
    """Close a run where the logger is W&B's; say how to send later what its server did not take."""
    if not isinstance(logger, WandbLogger) or (experiment := logger._experiment) is None:
        return
    left_out = [logger.left_out] if isinstance(logger, RunLogger) and logger.left_out else []
    try:
        experiment.finish()
    except TimeoutError:
        left_out.append("the last figures and pictures")
    if left_out:
        _say_later(f"did not take in {' and '.join(left_out)}", Path(experiment.dir).parent)


def _say_later(what: str, folder: Path) -> None:
    print(  # noqa: T201
        f"W&B      {server()} {what}; nothing is lost, send the run later with: "
        f"wandb sync {shlex.quote(os.path.relpath(folder))}",
        flush=True,
    )


def _folders(path: Path, wandb_id: str) -> set[Path]:
    """Return the folders that W&B has for a run: one for each time that it was begun."""
    return set(path.glob(f"wandb/*run-*-{wandb_id}"))
