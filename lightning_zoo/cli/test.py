from __future__ import annotations

from collections.abc import Sequence

from lightning_zoo.cli import validate


def run(args: Sequence[str], *, debug: bool) -> int:
    """Measure on the test split."""
    return validate.run(args, debug=debug, stage="test")
