"""Weights & Biases: online with a key and a network, offline at once without either."""

from __future__ import annotations

import contextlib
import netrc
import os
import socket
import urllib.parse
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from lightning_zoo.runs import Run

SECONDS_TO_CONNECT = 3.0


def wandb_logger(run: Run, *, title: str) -> WandbLogger:
    """Return the logger of a run; a resumed run continues its W&B run.

    Args:
        run: The run's folder; offline files stand in its ``wandb/``.
        title: Name under which the run is shown.
    """
    import wandb
    from wandb.util import generate_id

    state = run.state()
    if state.wandb_id is None:
        state.wandb_id = generate_id()
        run.write_state(state)
    mode = os.environ.get("WANDB_MODE") or ("online" if can_go_online() else "offline")
    return WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "lightning_zoo"),
        name=title,
        id=state.wandb_id,
        save_dir=run.path,
        mode=mode,
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
        ),
    )


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
