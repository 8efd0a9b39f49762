"""Where a run keeps what a loss that is no finite number was computed from.

``<run>/nonfinite/step_<n>/`` (with ``_rank_<r>`` where there are several ranks) holds:

batch.pt       the batch as the task was given it
state.pt       the network's weights and buffers before the step, random numbers, loss and terms
recipe.yaml    the resolved recipe
facts.json     step, samples, files, class names, rank, device and versions

Nothing here imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_zoo.errors import ZooError
from lightning_zoo.runs import Run, find_run

FOLDER = "nonfinite"
FACTS, BATCH, STATE, RECIPE = "facts.json", "batch.pt", "state.pt", "recipe.yaml"


def folder_of_step(run: Run, step: int, *, rank: int, world_size: int) -> Path:
    """Return the folder for an optimizer step of a run."""
    name = f"step_{step}" if world_size == 1 else f"step_{step}_rank_{rank}"
    return run.path / FOLDER / name


def find_step(what: str | Path, out: Path = Path("runs")) -> Path:
    """Return the folder that is meant by itself, or by its run: the newest there.

    Args:
        what: Such a folder, or a run (its folder, ``last`` or a recipe's name).
        out: Folder of the run folders.

    Raises:
        ZooError: If there is none.
    """
    path = Path(what)
    if (path / FACTS).is_file():
        return path
    if path.is_dir() and not (path / "run.json").is_file() and not (path / FOLDER).is_dir():
        if path.parent.name == FOLDER:
            raise ZooError(f"{path} has no {FACTS}; expected a folder that a run left there")
        if not any(path.glob("*/run.json")):  # a recipe's folder stands for its newest run
            raise ZooError(f"{path} is neither a run nor a folder in its {FOLDER}/")
    run = path if (path / FOLDER).is_dir() else find_run(what, out).path
    kept = [facts.parent for facts in (run / FOLDER).glob(f"*/{FACTS}")]
    if not kept:
        raise ZooError(f"{run} has no folder {FOLDER}/: every loss of that run was finite")
    return max(kept, key=lambda folder: (folder / FACTS).stat().st_mtime_ns)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return a folder's facts.

    Raises:
        ZooError: If they cannot be read.
    """
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"cannot read {path}: {error}") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("step"), int):
        raise ZooError(f"{path} says nothing of a step; expected what a run wrote")
    return facts
