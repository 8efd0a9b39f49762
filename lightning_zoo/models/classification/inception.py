"""Inception v3: convolutions factorised into smaller and into asymmetric ones.

Paper: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
https://arxiv.org/abs/1512.00567.
Differs from the paper: the layout and the weights are those of TensorFlow's model, whose
auxiliary head has two convolutions and a batch norm after each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import BasicConv2d, imagenet_to_half_range, truncated_normal_
from lightning_zoo.models.hub import register_model


class InceptionOutputs(NamedTuple):
    """What the network returns in training: ``(N, num_classes)`` each."""

    logits: Tensor
    aux_logits: Tensor


class InceptionA(nn.Module):
    """Branches 1x1, 5x5, double 3x3 and pooling, side by side: 35x35 pixels in the paper.

    Args:
        in_channels: Channels in.
        pool_features: Channels of the pooling branch; the block gives 224 more.
        conv_block: Makes a convolution with norm and activation, like :class:`BasicConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        pool_features: int,
        conv_block: Callable[..., nn.Module] = BasicConv2d,
    ) -> None:
        super().__init__()
        self.branch1x1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch5x5_1 = conv_block(in_channels, 48, kernel_size=1)
        self.branch5x5_2 = conv_block(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv_block(96, 96, kernel_size=3, padding=1)
        self.branch_pool = conv_block(in_channels, pool_features, kernel_size=1)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` concatenates."""
        branch5x5 = self.branch5x5_2(self.branch5x5_1(x))
        branch3x3dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        branch_pool = self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1))
        return [self.branch1x1(x), branch5x5, branch3x3dbl, branch_pool]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 224 + pool_features, H, W)``."""
        return torch.cat(self.branches(x), 1)


class InceptionB(nn.Module):
    """Halve 35x35 pixels to 17x17; the input itself is pooled as the third branch.

    Args:
        in_channels: Channels in; the block gives 480 more.
        conv_block: See :class:`InceptionA`.
    """

    def __init__(
        self, in_channels: int, conv_block: Callable[..., nn.Module] = BasicConv2d
    ) -> None:
        super().__init__()
        self.branch3x3 = conv_block(in_channels, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv_block(96, 96, kernel_size=3, stride=2)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` concatenates."""
        branch3x3dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), branch3x3dbl, F.max_pool2d(x, 3, stride=2)]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 480 + in_channels, (H - 1) // 2, (W - 1) // 2)``."""
        return torch.cat(self.branches(x), 1)


class InceptionC(nn.Module):
    """7x7 convolutions, factorised into 1x7 and 7x1: 17x17 pixels in the paper.

    Args:
        in_channels: Channels in; 768 come out.
        channels_7x7: Channels inside the factorised branches.
        conv_block: See :class:`InceptionA`.
    """

    def __init__(
        self,
        in_channels: int,
        channels_7x7: int,
        conv_block: Callable[..., nn.Module] = BasicConv2d,
    ) -> None:
        super().__init__()
        c7, row, column = channels_7x7, {"kernel_size": (1, 7)}, {"kernel_size": (7, 1)}
        self.branch1x1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch7x7_1 = conv_block(in_channels, c7, kernel_size=1)
        self.branch7x7_2 = conv_block(c7, c7, padding=(0, 3), **row)
        self.branch7x7_3 = conv_block(c7, 192, padding=(3, 0), **column)
        self.branch7x7dbl_1 = conv_block(in_channels, c7, kernel_size=1)
        self.branch7x7dbl_2 = conv_block(c7, c7, padding=(3, 0), **column)
        self.branch7x7dbl_3 = conv_block(c7, c7, padding=(0, 3), **row)
        self.branch7x7dbl_4 = conv_block(c7, c7, padding=(3, 0), **column)
        self.branch7x7dbl_5 = conv_block(c7, 192, padding=(0, 3), **row)
        self.branch_pool = conv_block(in_channels, 192, kernel_size=1)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` concatenates."""
        branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        branch7x7dbl = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branch7x7dbl = self.branch7x7dbl_5(self.branch7x7dbl_4(branch7x7dbl))
        branch_pool = self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1))
        return [self.branch1x1(x), branch7x7, branch7x7dbl, branch_pool]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 768, H, W)``."""
        return torch.cat(self.branches(x), 1)


class InceptionD(nn.Module):
    """Halve 17x17 pixels to 8x8; the input itself is pooled as the third branch.

    Args:
        in_channels: Channels in; the block gives 512 more.
        conv_block: See :class:`InceptionA`.
    """

    def __init__(
        self, in_channels: int, conv_block: Callable[..., nn.Module] = BasicConv2d
    ) -> None:
        super().__init__()
        self.branch3x3_1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch3x3_2 = conv_block(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch7x7x3_2 = conv_block(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = conv_block(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = conv_block(192, 192, kernel_size=3, stride=2)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` concatenates."""
        branch3x3 = self.branch3x3_2(self.branch3x3_1(x))
        branch7x7x3 = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return [branch3x3, self.branch7x7x3_4(branch7x7x3), F.max_pool2d(x, 3, stride=2)]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 512 + in_channels, (H - 1) // 2, (W - 1) // 2)``."""
        return torch.cat(self.branches(x), 1)


class InceptionE(nn.Module):
    """1x3 and 3x1 side by side instead of one after the other: 8x8 pixels in the paper.

    Args:
        in_channels: Channels in; 2048 come out.
        conv_block: See :class:`InceptionA`.
    """

    def __init__(
        self, in_channels: int, conv_block: Callable[..., nn.Module] = BasicConv2d
    ) -> None:
        super().__init__()
        self.branch1x1 = conv_block(in_channels, 320, kernel_size=1)
        self.branch3x3_1 = conv_block(in_channels, 384, kernel_size=1)
        self.branch3x3_2a = conv_block(384, 384, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = conv_block(384, 384, kernel_size=(3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = conv_block(in_channels, 448, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = conv_block(384, 384, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = conv_block(384, 384, kernel_size=(3, 1), padding=(1, 0))
        self.branch_pool = conv_block(in_channels, 192, kernel_size=1)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` concatenates."""
        branch3x3 = self.branch3x3_1(x)
        branch3x3 = self.join(1, [self.branch3x3_2a(branch3x3), self.branch3x3_2b(branch3x3)])
        dbl = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        dbl = self.join(2, [self.branch3x3dbl_3a(dbl), self.branch3x3dbl_3b(dbl)])
        branch_pool = self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1))
        return [self.branch1x1(x), branch3x3, dbl, branch_pool]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 2048, H, W)``."""
        return self.join(3, self.branches(x))

    def join(self, i: int, tensors: list[Tensor]) -> Tensor:
        """Concatenate the channels of two forks (1 and 2) or of all branches (3)."""
        return torch.cat(tensors, 1)


class InceptionAux(nn.Module):
    """Auxiliary classifier on the 17x17 map, trained with a loss of its own.

    Args:
        in_channels: Channels in.
        num_classes: Number of logits.
        conv_block: See :class:`InceptionA`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_block: Callable[..., nn.Module] = BasicConv2d,
    ) -> None:
        super().__init__()
        self.conv0 = conv_block(in_channels, 128, kernel_size=1)
        self.conv1 = conv_block(128, 768, kernel_size=5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``."""
        x = F.avg_pool2d(x, 5, stride=3)  # (N, C, 5, 5) for images of 299x299
        x = self.conv1(self.conv0(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


INCEPTION_BLOCKS: tuple[Callable[..., nn.Module], ...] = (
    BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    InceptionAux,
)


class Inception3(nn.Module):
    """Image classifier; smallest images 75x75, made for 299x299.

    Args:
        num_classes: Number of logits.
        aux_logits: Whether there is an auxiliary head, whose logits training returns.
        transform_input: Turn ImageNet-normalised images into ones in [-1, 1] first, as the
            published weights need it.
        inception_blocks: The seven block classes, from :class:`BasicConv2d` over A to E to
            :class:`InceptionAux`.
        init_weights: Draw the weights; False leaves PyTorch's defaults and is faster.
        dropout: Probability of dropping a feature before the last layer.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        inception_blocks: Sequence[Callable[..., nn.Module]] = INCEPTION_BLOCKS,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(inception_blocks) != 7:
            raise ZooError(
                f"inception_blocks has {len(inception_blocks)} entries; expected 7: "
                "the convolution, blocks A to E, the auxiliary head"
            )
        conv, block_a, block_b, block_c, block_d, block_e, aux = inception_blocks
        self.aux_logits = aux_logits
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = conv(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = conv(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Conv2d_3b_1x1 = conv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = conv(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Mixed_5b = block_a(192, pool_features=32)
        self.Mixed_5c = block_a(256, pool_features=64)
        self.Mixed_5d = block_a(288, pool_features=64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, channels_7x7=128)
        self.Mixed_6c = block_c(768, channels_7x7=160)
        self.Mixed_6d = block_c(768, channels_7x7=160)
        self.Mixed_6e = block_c(768, channels_7x7=192)
        self.AuxLogits = aux(768, num_classes) if aux_logits else None
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280)
        self.Mixed_7c = block_e(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(2048, num_classes)
        if init_weights:
            self._init_weights()

    def _init_weights(self) -> None:
        # The auxiliary head's own deviations, as in the TensorFlow model.
        special = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                truncated_normal_(module.weight, special.get(name, 0.1))

    def forward(self, images: Tensor) -> Tensor | InceptionOutputs:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``.

        In training with an auxiliary head: :class:`InceptionOutputs`.
        """
        return self.of_input(self.to_input(images))

    def to_input(self, images: Tensor) -> Tensor:
        """Return normalised images as the published weights need them."""
        return imagenet_to_half_range(images) if self.transform_input else images

    def of_input(self, x: Tensor) -> Tensor | InceptionOutputs:
        """Return what :meth:`forward` returns, of what :meth:`to_input` returned."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (N, 64, 147, 147)
        x = self.maxpool1(x)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (N, 192, 71, 71)
        x = self.maxpool2(x)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (N, 288, 35, 35)
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))  # (N, 768, 17, 17)
        aux = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (N, 2048, 8, 8)
        x = self.dropout(torch.flatten(self.avgpool(x), 1))
        logits = self.fc(x)
        return logits if aux is None else InceptionOutputs(logits, aux)


@register_model
def inception_v3(**kwargs: Any) -> Inception3:
    """Inception v3; with published weights ``transform_input`` is True by default."""
    return Inception3(**kwargs)
