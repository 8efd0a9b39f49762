from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_zoo.ops import multiscale_roi_align


class MultiScaleRoIAlign(nn.Module):
    """Cut boxes out of a pyramid of feature maps, each out of the level that fits its size.

    Args:
        featmap_names: Names of the maps to take, from high resolution to low.
        output_size: Height and width of a cut, or one number for both.
        sampling_ratio: Samples per output cell in each direction; 0 or less for as many as it
            covers positions.
        canonical_scale: Side in pixels of the box that is cut out of ``canonical_level``.
        canonical_level: Logarithm of that level's stride.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names = list(featmap_names)
        height, width = (
            (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        )
        self.output_size = (height, width)
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level

    def forward(
        self,
        features: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Return ``(sum of K, C, *output_size)`` for the boxes ``(K, 4)`` of each image.

        The stride of a map ``(N, C, H, W)`` is the power of 2 that fits ``image_shapes`` best.
        """
        maps = [features[name] for name in self.featmap_names if name in features]
        height = max(shape[0] for shape in image_shapes)
        scales = [2.0 ** round(math.log2(m.shape[-2] / height)) for m in maps]
        return multiscale_roi_align(
            maps,
            list(boxes),
            self.output_size,
            scales,
            sampling_ratio=self.sampling_ratio,
            canonical_scale=self.canonical_scale,
            canonical_level=self.canonical_level,
        )
