from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.drawing.grid import Tile


def classification_tile(
    image: NDArray[np.uint8],
    probs: Sequence[float],
    class_names: Sequence[str],
    truth: Sequence[int] | None = None,
    *,
    multilabel: bool = False,
) -> Tile:
    """Return an image with its most probable class, and the true one where it is known.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        probs: Probability of each class.
        class_names: Name of each class.
        truth: Indices of the true classes; None where nobody knows.
        multilabel: Whether every class above one half counts as predicted.
    """
    order = sorted(range(len(probs)), key=lambda i: -probs[i])
    found = [i for i in order if probs[i] > 0.5] if multilabel else order[:1]
    names = ", ".join(f"{class_names[i]} {100 * probs[i]:.0f} %" for i in found) or "nothing"
    if truth is None:
        rest = [i for i in order if i not in found][:2]
        return Tile(image, [names, *(f"{class_names[i]} {100 * probs[i]:.0f} %" for i in rest)])
    true_names = ", ".join(class_names[i] for i in truth) or "nothing"
    return Tile(image, [names, f"truth: {true_names}"], right=set(found) == set(truth))
