"""Boxes that detectors start from, laid over the feature maps of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.models.detection.transform import ImageList
from lightning_zoo.ops import cell_anchors, default_box_sizes, default_boxes, grid_anchors

CACHED_SHAPES = 64


class _Cache(nn.Module):
    """Keeps the boxes of the latest shapes, so that most batches find theirs ready."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[object, Tensor] = {}

    def _make(
        self, image_size: tuple[int, int], grid_sizes: list[tuple[int, int]], device: torch.device
    ) -> Tensor:
        raise NotImplementedError

    def forward(self, images: ImageList, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the boxes of each image, all the same, in the pixels of the padded batch."""
        height, width = images.tensors.shape[-2:]
        device = feature_maps[0].device
        grids = [(f.shape[-2], f.shape[-1]) for f in feature_maps]
        key = (height, width, *grids, device)
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # training may use them later
                boxes = self._make((height, width), grids, device)
            if len(self._kept) >= CACHED_SHAPES:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = boxes
        return [self._kept[key]] * len(images.image_sizes)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_kept": {}}  # copies and saved modules begin empty


class AnchorGenerator(_Cache):
    """Anchors of R-CNN and RetinaNet.

    Args:
        sizes: For each feature map, the square roots of the anchors' areas in pixels.
        aspect_ratios: For each feature map, height over width.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[int]] = ((128, 256, 512),),
        aspect_ratios: Sequence[Sequence[float]] = ((0.5, 1.0, 2.0),),
    ) -> None:
        super().__init__()
        if not isinstance(sizes[0], Sequence):
            sizes = tuple((size,) for size in sizes)
        if not isinstance(aspect_ratios[0], Sequence):
            aspect_ratios = (aspect_ratios,) * len(sizes)
        if len(sizes) != len(aspect_ratios):
            raise ZooError(
                f"anchors have sizes of {len(sizes)} feature maps and aspect ratios of "
                f"{len(aspect_ratios)}; expected as many"
            )
        self.sizes = tuple(tuple(level) for level in sizes)
        self.aspect_ratios = tuple(tuple(level) for level in aspect_ratios)

    def num_anchors_per_location(self) -> list[int]:
        """Return the number of anchors at one position of each feature map."""
        return [len(s) * len(r) for s, r in zip(self.sizes, self.aspect_ratios, strict=True)]

    def _make(
        self, image_size: tuple[int, int], grid_sizes: list[tuple[int, int]], device: torch.device
    ) -> Tensor:
        if len(grid_sizes) != len(self.sizes):
            raise ZooError(
                f"the anchor generator has sizes for {len(self.sizes)} feature maps but the "
                f"backbone gives {len(grid_sizes)}; pass sizes and aspect ratios for each map"
            )
        strides = [(image_size[0] // h, image_size[1] // w) for h, w in grid_sizes]
        cells = [
            cell_anchors(sizes, ratios).to(device)
            for sizes, ratios in zip(self.sizes, self.aspect_ratios, strict=True)
        ]
        return torch.cat(grid_anchors(grid_sizes, strides, cells))


class DefaultBoxGenerator(_Cache):
    """Default boxes of SSD.

    Args:
        aspect_ratios: For each feature map, the ratios beside 1; each stands for itself and its
            reciprocal.
        min_ratio: Scale of the first map as a share of the image, where ``scales`` is left out.
        max_ratio: Scale of the last map, likewise.
        scales: One for each map and one more, as shares of the image.
        steps: Pixels between the centres in each map; None spreads them evenly.
        clip: Limit widths and heights to the image.
    """

    def __init__(
        self,
        aspect_ratios: Sequence[Sequence[int]],
        min_ratio: float = 0.15,
        max_ratio: float = 0.9,
        scales: Sequence[float] | None = None,
        steps: Sequence[int] | None = None,
        clip: bool = True,
    ) -> None:
        super().__init__()
        num_maps = len(aspect_ratios)
        if scales is None:
            span = (max_ratio - min_ratio) / max(num_maps - 1, 1)
            scales = [*(min_ratio + span * i for i in range(num_maps)), 1.0]
        if len(scales) != num_maps + 1 or (steps is not None and len(steps) != num_maps):
            raise ZooError(
                f"default boxes of {num_maps} feature maps take {num_maps + 1} scales and "
                f"{num_maps} steps; got scales={scales!r}, steps={steps!r}"
            )
        self.aspect_ratios = [list(ratios) for ratios in aspect_ratios]
        self.scales = list(scales)
        self.steps = None if steps is None else list(steps)
        self.clip = clip

    def num_anchors_per_location(self) -> list[int]:
        """Return the number of boxes at one position of each feature map."""
        return [2 + 2 * len(ratios) for ratios in self.aspect_ratios]

    def _make(
        self, image_size: tuple[int, int], grid_sizes: list[tuple[int, int]], device: torch.device
    ) -> Tensor:
        sizes = [size.to(device) for size in default_box_sizes(self.scales, self.aspect_ratios)]
        return default_boxes(grid_sizes, image_size, sizes, steps=self.steps, clip=self.clip)
