from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.layers.conv_norm_act import ConvNormAct


class LastLevelMaxPool(nn.Module):
    """Add a level that takes every second pixel of the last one, called ``pool``."""

    names = ("pool",)

    def forward(self, outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """Return the further levels, from the pyramid's outputs and inputs."""
        return [outputs[-1][:, :, ::2, ::2]]


class LastLevelP6P7(nn.Module):
    """Add two levels by convolutions of stride 2, called ``p6`` and ``p7``.

    Args:
        in_channels: Channels of the level below; where they are the pyramid's own, P6 is made of
            its last output, otherwise of the backbone's last map.
        out_channels: Channels of the new levels.
    """

    names = ("p6", "p7")

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        for module in (self.p6, self.p7):
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.use_p5 = in_channels == out_channels

    def forward(self, outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """Return the further levels, from the pyramid's outputs and inputs."""
        p6 = self.p6(outputs[-1] if self.use_p5 else inputs[-1])
        return [p6, self.p7(F.relu(p6))]


class FeaturePyramidNetwork(nn.Module):
    """Give every resolution of a backbone the semantics of the coarsest.

    Paper: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
    https://arxiv.org/abs/1612.03144.

    Args:
        in_channels_list: Channels of the backbone's maps, from high resolution to low.
        out_channels: Channels of every output.
        extra_blocks: Makes further levels, see :class:`LastLevelMaxPool`; its ``names`` are theirs.
        norm_layer: Makes a norm from the number of channels; left out, the convolutions have none.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: LastLevelMaxPool | LastLevelP6P7 | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": None}
        self.inner_blocks = nn.ModuleList()
        self.layer_blocks = nn.ModuleList()
        for in_channels in in_channels_list:
            self.inner_blocks.append(ConvNormAct(in_channels, out_channels, 1, **options))
            self.layer_blocks.append(ConvNormAct(out_channels, out_channels, 3, **options))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.extra_blocks = extra_blocks

    def forward(self, features: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        """Return maps ``(N, out_channels, H, W)`` under the names of those that come in.

        The sizes of the maps ``(N, C, H, W)`` are kept; those of the extra levels come after them.
        """
        inputs = list(features.values())
        last = self.inner_blocks[-1](inputs[-1])
        outputs = [self.layer_blocks[-1](last)]
        for i in range(len(inputs) - 2, -1, -1):
            lateral = self.inner_blocks[i](inputs[i])
            last = lateral.add_(F.interpolate(last, size=lateral.shape[-2:], mode="nearest"))
            outputs.insert(0, self.layer_blocks[i](last))
        names = list(features)
        if self.extra_blocks is not None:
            outputs += self.extra_blocks(outputs, inputs)
            names += self.extra_blocks.names
        return OrderedDict(zip(names, outputs, strict=True))
