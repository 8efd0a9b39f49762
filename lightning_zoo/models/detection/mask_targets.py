"""What a mask head should answer: each box's part of its object's mask, 28 pixels a side.

The values are those of resizing the masks with the image (nearest) and cutting the boxes out of
them by RoIAlign, but the masks stay as they are, in uint8 and at their own resolution: both steps
are linear and separable, so that they make one small matrix for the rows and one for the columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_zoo.models.detection.transform import Size


@torch.no_grad()
def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, size: int, image: Size) -> Tensor:
    """Return the targets ``(K, size, size)`` float32 in [0, 1].

    Args:
        masks: 0 or 1, ``(M, H, W)`` of any dtype, at the resolution of the original image.
        boxes: ``(K, 4)`` in pixels of the resized image.
        objects: ``(K,)`` int64, the mask of each box.
        size: Pixels a side.
        image: Height and width of the resized image.
    """
    boxes = boxes.float()
    height, width = masks.shape[-2:]
    rows = _weights(boxes[:, 1], boxes[:, 3], size, image[0], height)  # (K, size, H)
    columns = _weights(boxes[:, 0], boxes[:, 2], size, image[1], width)  # (K, size, W)
    targets = boxes.new_zeros(len(boxes), size, size)
    counts = torch.bincount(objects, minlength=len(masks)).tolist()
    with torch.autocast(boxes.device.type, enabled=False):
        places = torch.split(objects.argsort(), counts)
        for mask, place in zip(masks, places, strict=True):
            if not len(place):
                continue
            row, column = rows[place], columns[place]
            top, bottom = _span(boxes[place, 1::2] * (height / image[0]), height)
            left, right = _span(boxes[place, 0::2] * (width / image[1]), width)
            part = mask[top:bottom, left:right].float()
            across = row[:, :, top:bottom].flatten(0, 1) @ part
            across = across.view(len(place), size, right - left)
            targets[place] = across @ column[:, :, left:right].transpose(1, 2)
    return targets


def _weights(start: Tensor, end: Tensor, size: int, length: int, original: int) -> Tensor:
    """Return what each of the ``original`` pixels of an axis adds to each cell, (K, size, pixels).

    A cell averages as many evenly spread samples as it spans resized pixels, rounded up; a sample
    lies between two of the ``length`` resized pixels, and each of those is one original pixel.
    """
    side = (end - start).clamp(min=1)[:, None, None]
    count = (side / size).ceil()
    most = -(-length // size) + 1  # boxes are inside the image; rounding may add one
    step = torch.arange(most, device=start.device)
    cell = torch.arange(size, device=start.device)[:, None]
    place = start[:, None, None] + cell * (side / size) + (step + 0.5) * (side / size) / count
    weight = ((step < count) & (place >= -1) & (place <= length)).float() / count
    place = place.clamp(min=0)
    low = place.floor().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    share = torch.where(low == high, 0.0, place - low)
    out = weight.new_zeros(len(start), size, original)
    scale = torch.tensor(original / length, dtype=torch.float32, device=start.device)
    for pixel, part in ((low, 1 - share), (high, share)):
        index = (pixel * scale).floor().long().clamp(max=original - 1)
        out.scatter_add_(2, index, part * weight)
    return out


def _span(places: Tensor, length: int) -> tuple[int, int]:
    """Return the first and the last pixel, exclusive, that these places and neighbours touch."""
    if places.device.type != "cpu":
        return 0, length  # looking would wait for the device
    return max(int(places.min()) - 2, 0), min(int(places.max()) + 4, length)
