"""How long a person waits before anything happens."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

GOALS = {  # seconds
    "import lightning_zoo": 0.05,
    "--help": 0.4,
    "models ls": 0.4,
    "recipes ls": 0.4,
    "recipes lint": 0.4,
    "recipes show resnet50": 0.4,
    "fit --recipe resnet51": 0.4,
}


def startup_benchmark(repeats: int = 7) -> Iterator[dict[str, Any]]:
    """Yield one row a command: median seconds, and for the import what bare Python does not need.

    Args:
        repeats: Fresh processes of each; they take turns.
    """
    commands = {name: [sys.executable, "-m", "lightning_zoo", *name.split()] for name in GOALS}
    commands["import lightning_zoo"] = [sys.executable, "-c", "import lightning_zoo"]
    commands["python"] = [sys.executable, "-c", "pass"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=False)
            times[name].append(time.perf_counter() - start)
    bare = statistics.median(times["python"])
    for name, goal in GOALS.items():
        seconds = statistics.median(times[name])
        if name.startswith("import"):
            seconds -= bare
        row = {"benchmark": "startup", "command": name, "seconds": round(seconds, 4), "goal": goal}
        yield row | {"reached": seconds <= goal}
