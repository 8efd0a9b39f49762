"""Measuring how long functions take, side by side."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import torch

Work = Callable[[], object]
K = TypeVar("K", bound=Hashable)


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[int]:
    """Let torch have so many threads, None for as many as it has, and say how many."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


def timed(
    sides: Mapping[K, Work], rounds: int, *, seconds: float = math.inf, least: int = 1
) -> dict[K, list[float]]:
    """Return the seconds of every pass; the functions take turns, another first in each round.

    Args:
        sides: What is measured, after one pass of each that does not count.
        rounds: Passes of each.
        seconds: After so many seconds in all there is no further round.
        least: But these many there are.
    """
    for function in sides.values():
        function()
    found: dict[K, list[float]] = {side: [] for side in sides}
    order = list(sides)
    begin = time.perf_counter()
    for n in range(rounds):
        if n >= least and time.perf_counter() - begin > seconds:
            break
        for side in order:
            start = time.perf_counter()
            sides[side]()
            found[side].append(time.perf_counter() - start)
        order = [*order[1:], order[0]]
    return found


def interleaved(sides: Mapping[K, Work], repeats: int) -> dict[K, float]:
    """Return the least seconds of each function; they take turns."""
    return {side: min(passes) for side, passes in timed(sides, repeats).items()}
