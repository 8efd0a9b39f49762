"""Weights & Biases: online with a key and a network, offline at once without either."""

from __future__ import annotations

import contextlib
import netrc
import os
import secrets
import socket
import urllib.parse
from typing import Any, cast

from lightning.pytorch.loggers import WandbLogger

from lightning_zoo.runs import Run

SECONDS_TO_CONNECT = 3.0


def wandb_logger(run: Run, *, title: str, config: dict[str, Any]) -> WandbLogger:
    """Return the logger of a run; a resumed run continues its W&B run.

    Args:
        run: The run's folder; offline files stand in its ``wandb/``.
        title: Name under which the run is shown.
        config: The resolved recipe.
    """
    import wandb

    state = run.state()
    if state.wandb_id is None:
        state.wandb_id = secrets.token_hex(4)
        run.write_state(state)
    mode = os.environ.get("WANDB_MODE") or ("online" if can_go_online() else "offline")
    # given a run, Lightning's logger leaves out the arguments that W&B has given up
    experiment = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "lightning_zoo"),
        name=title,
        config=config,
        id=state.wandb_id,
        dir=run.path,
        mode=cast(Any, mode),
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
        ),
    )
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=experiment, save_dir=run.path)


def can_go_online() -> bool:
    """Whether there is a key and the server answers; asks no one and waits 3 s at the most."""
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    address = urllib.parse.urlsplit(server)
    host = address.hostname or ""
    if not os.environ.get("WANDB_API_KEY"):
        try:
            if netrc.netrc().authenticators(host) is None:
                return False
        except (OSError, netrc.NetrcParseError):
            return False
    port = address.port or (443 if address.scheme == "https" else 80)
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), timeout=SECONDS_TO_CONNECT).close()
        return True
    return False


def log_artifact(logger: WandbLogger, run: Run, metadata: dict[str, Any]) -> None:
    """Log the best checkpoint, with the resolved recipe, as an artifact of type ``model``."""
    import wandb

    artifact = wandb.Artifact(f"{run.state().recipe}-{logger.version}", "model", metadata=metadata)
    artifact.add_file(str(run.best), name="best.ckpt")
    artifact.add_file(str(run.recipe_file), name="recipe.yaml")
    logger.experiment.log_artifact(artifact, aliases=["best"])
