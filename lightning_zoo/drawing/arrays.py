"""What drawing and loggers read objects with: arrays of any kind, masks of any kind, names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ClassNames = Sequence[str] | Mapping[int, str]


def as_array(value: Any) -> NDArray[Any]:
    """Return a numpy array of a tensor on any device, or of anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value  # numpy knows no bfloat16
    return np.asarray(value)


def decode_mask(masks: Any, place: int) -> NDArray[np.bool_]:
    """Return one of several masks as bool ``(H, W)``.

    Args:
        masks: ``(N, 1, H, W)`` or ``(N, H, W)``: probabilities, of which those above 0.5 count, or
            0 and 1; or N run-length encoded masks.
        place: Which of the N.
    """
    if isinstance(masks[place], Mapping):
        from pycocotools import mask as coco_mask

        with warnings.catch_warnings():
            # its arrays know nothing of numpy 2's copy argument (pycocotools 2.0.11)
            warnings.simplefilter("ignore", DeprecationWarning)
            return coco_mask.decode(dict(masks[place])) > 0
    mask = as_array(masks[place])
    mask = mask[0] if mask.ndim == 3 else mask
    return mask > (0.5 if np.issubdtype(mask.dtype, np.floating) else 0)


def class_name(class_names: ClassNames, label: int) -> str:
    """Return the name of a label; its number where it has none."""
    if isinstance(class_names, Mapping):
        return class_names.get(label, str(label))
    return class_names[label] if 0 <= label < len(class_names) else str(label)
