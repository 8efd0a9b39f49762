"""Boxes that detectors start from: anchors of R-CNN and RetinaNet, default boxes of SSD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Return the anchors (A, 4) of one cell around (0, 0), in whole pixels, ratio by ratio.

    Args:
        sizes: Square roots of the areas in pixels.
        aspect_ratios: Height over width.
    """
    scales = torch.tensor(sizes, dtype=torch.float32)
    h_ratios = torch.tensor(aspect_ratios, dtype=torch.float32).sqrt()
    heights = (h_ratios[:, None] * scales).flatten()
    widths = ((1 / h_ratios)[:, None] * scales).flatten()
    corners = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    return corners.round()  # halves go to the even neighbour, as in the published models


def grid_anchors(
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[tuple[int, int]],
    cells: Sequence[Tensor],
) -> list[Tensor]:
    """Return the anchors (H * W * A, 4) of each level: row by row, column by column, then by cell.

    Centres lie at stride times index, with no shift by half a cell; nothing is clipped.

    Args:
        grid_sizes: Height and width of each feature map.
        strides: Vertical and horizontal pixels between its positions.
        cells: Anchors (A, 4) of one position in each level; they set device and dtype.
    """
    anchors = []
    for (height, width), (stride_y, stride_x), cell in zip(grid_sizes, strides, cells, strict=True):
        y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride_y
        x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride_x
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
        anchors.append((shifts + cell).view(-1, 4))
    return anchors


def default_box_sizes(
    scales: Sequence[float], aspect_ratios: Sequence[Sequence[float]]
) -> list[Tensor]:
    """Return widths and heights (A, 2) of SSD's default boxes for each map, as shares of the image.

    A map has the square of its scale, the square between its scale and the next, then for each
    ratio the wide box and the tall one.

    Args:
        scales: One for each map and one more.
        aspect_ratios: For each map its ratios beside 1.
    """
    sizes = []
    for scale, larger, ratios in zip(scales[:-1], scales[1:], aspect_ratios, strict=True):
        between = math.sqrt(scale * larger)
        pairs = [(scale, scale), (between, between)]
        for ratio in ratios:
            root = math.sqrt(ratio)
            pairs += [(scale * root, scale / root), (scale / root, scale * root)]
        sizes.append(torch.tensor(pairs, dtype=torch.float32))
    return sizes


def default_boxes(
    grid_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    sizes: Sequence[Tensor],
    *,
    steps: Sequence[int] | None = None,
    clip: bool = True,
) -> Tensor:
    """Return SSD's default boxes (sum of H * W * A, 4) in pixels of the image.

    Args:
        grid_sizes: Height and width of each feature map.
        image_size: Height and width of the image.
        sizes: Widths and heights (A, 2) for each map, from `default_box_sizes`; they set the
            device and dtype.
        steps: Pixels between the centres of each map; None spreads them evenly.
        clip: Whether widths and heights are limited to the image; corners may leave it all the
            same.
    """
    image_h, image_w = image_size
    boxes = []
    for i, ((height, width), size) in enumerate(zip(grid_sizes, sizes, strict=True)):
        rows, columns = (
            (float(height), float(width))
            if steps is None
            else (image_h / steps[i], image_w / steps[i])
        )
        y = (torch.arange(height, device=size.device, dtype=size.dtype) + 0.5) / rows
        x = (torch.arange(width, device=size.device, dtype=size.dtype) + 0.5) / columns
        y, x = torch.meshgrid(y, x, indexing="ij")
        centers = torch.stack([x, y], dim=-1).view(-1, 1, 2)
        half = 0.5 * (size.clamp(0, 1) if clip else size)
        boxes.append(torch.cat([centers - half, centers + half], dim=-1).view(-1, 4))
    scale = torch.tensor([image_w, image_h] * 2, device=sizes[0].device, dtype=sizes[0].dtype)
    return torch.cat(boxes) * scale
