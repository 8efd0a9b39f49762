from __future__ import annotations


def make_divisible(channels: float, divisor: int = 8, minimum: int | None = None) -> int:
    """Round a width to the nearest multiple of ``divisor``, but never down by more than 10 %.

    Args:
        channels: The width wanted, a fraction after scaling.
        divisor: What the result is a multiple of.
        minimum: Smallest result; ``divisor`` where it is left out.
    """
    rounded = int(channels + divisor / 2) // divisor * divisor
    rounded = max(divisor if minimum is None else minimum, rounded)
    return rounded + divisor if rounded < 0.9 * channels else rounded
