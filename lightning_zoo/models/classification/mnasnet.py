"""MNASNet: inverted residuals found by search with a phone's latency in the reward.

Paper: Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", CVPR 2019,
https://arxiv.org/abs/1807.11626 (its B1 variant, without squeeze-and-excitation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import init_mobile_, make_divisible
from lightning_zoo.models.hub import register_model

# The paper's TensorFlow code keeps 0.9997 of a running statistic; PyTorch counts the other part.
BN_MOMENTUM = 1 - 0.9997


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=BN_MOMENTUM)


class InvertedResidual(nn.Module):
    """Widen with 1x1, filter each channel, narrow with 1x1 (without activation).

    Args:
        in_ch: Channels in.
        out_ch: Channels out.
        kernel_size: Side of the depthwise kernel, 3 or 5.
        stride: 1 or 2.
        expansion_factor: Channels inside, as a multiple of ``in_ch``.
    """

    def __init__(
        self, in_ch: int, out_ch: int, kernel_size: int, stride: int, expansion_factor: int
    ) -> None:
        super().__init__()
        mid = in_ch * expansion_factor
        self.apply_residual = in_ch == out_ch and stride == 1
        self.layers = nn.Sequential(
            nn.Conv2d(in_ch, mid, 1, bias=False),
            _norm(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, mid, kernel_size, stride, kernel_size // 2, groups=mid, bias=False),
            _norm(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, out_ch, 1, bias=False),
            _norm(out_ch),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, out_ch, H', W')``."""
        return self.layers(x) + x if self.apply_residual else self.layers(x)


def _stack(
    in_ch: int, out_ch: int, kernel_size: int, stride: int, expansion_factor: int, repeats: int
) -> nn.Sequential:
    first = InvertedResidual(in_ch, out_ch, kernel_size, stride, expansion_factor)
    rest = [
        InvertedResidual(out_ch, out_ch, kernel_size, 1, expansion_factor)
        for _ in range(repeats - 1)
    ]
    return nn.Sequential(first, *rest)


def _stem(widths: list[int]) -> list[nn.Module]:
    """Return layers 0 to 8, which the version of a checkpoint decides about."""
    return [
        nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
        _norm(widths[0]),
        nn.ReLU(inplace=True),
        nn.Conv2d(widths[0], widths[0], 3, 1, 1, groups=widths[0], bias=False),
        _norm(widths[0]),
        nn.ReLU(inplace=True),
        nn.Conv2d(widths[0], widths[1], 1, bias=False),
        _norm(widths[1]),
        _stack(widths[1], widths[2], 3, 2, 3, 3),
    ]


class MNASNet(nn.Module):
    """Image classifier.

    Args:
        alpha: Factor on every width but the last, 1280.
        num_classes: Number of logits.
        dropout: Probability of dropping a feature before the last layer.

    Version 1 of this network did not scale its stem (widths 32 and 16). A state dict of that
    version rebuilds layers 0 to 8, and the network is saved as version 1 from then on. The version
    stands in the state dict's metadata; where a plain dict has lost it, the stem's width tells.
    """

    _version = 2

    def __init__(self, alpha: float, *, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        if alpha <= 0:
            raise ZooError(f"alpha is {alpha}; expected a positive factor")
        self.alpha = alpha
        self.num_classes = num_classes
        widths = self._widths(version=2)
        self.layers = nn.Sequential(
            *_stem(widths),
            _stack(widths[2], widths[3], 5, 2, 3, 3),
            _stack(widths[3], widths[4], 5, 2, 6, 3),
            _stack(widths[4], widths[5], 3, 1, 6, 2),
            _stack(widths[5], widths[6], 5, 2, 6, 4),
            _stack(widths[6], widths[7], 3, 1, 6, 1),
            nn.Conv2d(widths[7], 1280, 1, bias=False),
            _norm(1280),
            nn.ReLU(inplace=True),
        )
        linear = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(nn.Dropout(p=dropout, inplace=True), linear)
        init_mobile_(self.layers)
        nn.init.kaiming_uniform_(linear.weight, mode="fan_out", nonlinearity="sigmoid")
        nn.init.zeros_(linear.bias)

    def _widths(self, version: int) -> list[int]:
        widths = [make_divisible(w * self.alpha) for w in (32, 16, 24, 40, 80, 96, 192, 320)]
        return [32, 16, *widths[2:]] if version == 1 else widths

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = self.layers(images)  # (N, 1280, H / 32, W / 32)
        return self.classifier(x.mean(dim=(2, 3)))

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        *args: Any,
    ) -> None:
        version = local_metadata.get("version")
        if version is None:
            stem = state_dict.get(f"{prefix}layers.0.weight")
            old = stem is not None and len(stem) == 32 != self._widths(version=2)[0]
            version = 1 if old else 2
        if version not in (1, 2):
            raise ZooError(f"state dict of MNASNet has version {version}; expected 1 or 2")
        # With alpha 1 both versions look the same.
        if version != self._version and self._widths(1) != self._widths(2):
            like = next(self.parameters())
            for i, layer in enumerate(_stem(self._widths(version))):
                self.layers[i] = layer.to(like).train(self.training)
            self._version = version
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@register_model
def mnasnet0_5(**kwargs: Any) -> MNASNet:
    """MNASNet of half the width."""
    return MNASNet(0.5, **kwargs)


@register_model
def mnasnet0_75(**kwargs: Any) -> MNASNet:
    """MNASNet of three quarters of the width."""
    return MNASNet(0.75, **kwargs)


@register_model
def mnasnet1_0(**kwargs: Any) -> MNASNet:
    """MNASNet."""
    return MNASNet(1.0, **kwargs)


@register_model
def mnasnet1_3(**kwargs: Any) -> MNASNet:
    """MNASNet of 1.3 times the width."""
    return MNASNet(1.3, **kwargs)
