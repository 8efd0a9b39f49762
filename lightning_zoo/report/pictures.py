"""Pictures within the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.datamodules.coco_dataset import CocoDataset
from lightning_zoo.datamodules.samplers import SampleKey

MOST_BYTES = 60_000  # of one picture: two dozen leave room for the rest of 3 MB
QUALITIES = (88, 75, 60, 40, 20)


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return a picture as text, a JPEG of at most about 60 kB.

    Args:
        image: uint8 RGB (H, W, 3).
    """
    content = b""
    for quality in QUALITIES:
        file = io.BytesIO()
        # colours at full resolution: thin coloured lines are what it is about
        subsampling = 0 if quality > QUALITIES[2] else 2
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
        content = file.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def sample_of(dataset: Any, name: Any) -> tuple[dict[str, Any], str]:
    """Return the sample with an ``id``, and its file; of a video, the clip in its middle."""
    if isinstance(dataset, CocoDataset):
        numbers = dataset.index.image_ids[dataset.images]
        places = np.flatnonzero(numbers == name).tolist()
    else:
        places = [i for i in range(len(dataset)) if dataset.name(i) == name]
    place = places[len(places) // 2]
    return dataset[SampleKey(0, place)], dataset.name(place)
