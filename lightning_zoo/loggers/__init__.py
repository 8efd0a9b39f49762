"""Where figures go: always ``metrics.csv``; W&B and TensorBoard where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_zoo.loggers.metrics_csv import MetricsCsv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch.loggers import Logger

    from lightning_zoo.runs import Run

__all__ = ["MetricsCsv", "build_loggers"]


def build_loggers(
    names: Sequence[str], run: Run, *, title: str, config: dict[str, Any]
) -> list[Logger]:
    """Return the loggers of a run; the CSV file is kept whatever is asked for.

    Args:
        names: ``csv``, ``wandb``, ``tensorboard``.
        run: The run's folder, where all of them write.
        title: Name under which the run is shown.
        config: What the run was made with: the resolved recipe.
    """
    loggers: list[Logger] = [MetricsCsv(run.path / "metrics.csv")]
    if "tensorboard" in names:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(run.path, name="tensorboard", version=""))
        loggers[-1].log_hyperparams(config)
    if "wandb" in names:
        from lightning_zoo.loggers.wandb import wandb_logger

        loggers.append(wandb_logger(run, title=title, config=config))
    return loggers
