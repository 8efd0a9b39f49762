"""GoogLeNet (Inception v1): branches with kernels of several sizes, side by side.

Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015,
https://arxiv.org/abs/1409.4842.
Differs from the paper, as the published weights (ported from TensorFlow) do: batch norm after
every convolution, no local response norm, 3x3 kernels in the branch that is called 5x5, the last
max pooling 2x2, dropout 0.2.
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


class GoogLeNetOutputs(NamedTuple):
    """What the network returns in training: ``(N, num_classes)`` each, the deeper head first."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class Inception(nn.Module):
    """Four branches, concatenated: 1x1, 3x3, "5x5" (a second 3x3), pooling.

    Args:
        in_channels: Channels in.
        ch1x1: Channels of the first branch.
        ch3x3red: Channels that the second branch is reduced to first.
        ch3x3: Channels of the second branch.
        ch5x5red: Channels that the third branch is reduced to first.
        ch5x5: Channels of the third branch.
        pool_proj: Channels of the pooling branch.
        conv_block: Makes a convolution with norm and activation, like :class:`BasicConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        conv_block: Callable[..., nn.Module] = BasicConv2d,
    ) -> None:
        super().__init__()
        self.branch1 = conv_block(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            conv_block(in_channels, ch3x3red, kernel_size=1),
            conv_block(ch3x3red, ch3x3, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            conv_block(in_channels, ch5x5red, kernel_size=1),
            conv_block(ch5x5red, ch5x5, kernel_size=3, padding=1),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1, ceil_mode=True),
            conv_block(in_channels, pool_proj, kernel_size=1),
        )

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` concatenates."""
        return [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, ch1x1 + ch3x3 + ch5x5 + pool_proj, H, W)``."""
        return torch.cat(self.branches(x), 1)


class InceptionAux(nn.Module):
    """Auxiliary classifier, trained with a loss of its own.

    Args:
        in_channels: Channels in.
        num_classes: Number of logits.
        conv_block: See :class:`Inception`.
        dropout: Probability of dropping a feature before the last layer.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_block: Callable[..., nn.Module] = BasicConv2d,
        dropout: float = 0.7,
    ) -> None:
        super().__init__()
        self.conv = conv_block(in_channels, 128, kernel_size=1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``."""
        x = self.conv(F.adaptive_avg_pool2d(x, (4, 4)))
        x = F.relu(self.fc1(torch.flatten(x, 1)), inplace=True)  # 2048 = 128 channels of 4x4
        return self.fc2(self.dropout(x))


class GoogLeNet(nn.Module):
    """Image classifier; smallest images 15x15, made for 224x224.

    Args:
        num_classes: Number of logits.
        aux_logits: Whether there are two auxiliary heads, whose logits training returns.
        transform_input: Turn ImageNet-normalised images into ones in [-1, 1] first, as the
            published weights need it.
        init_weights: Draw the weights; False leaves PyTorch's defaults and is faster.
        blocks: The three block classes: convolution, Inception block, auxiliary head.
        dropout: Probability of dropping a feature before the last layer.
        dropout_aux: The same in the auxiliary heads.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        blocks: Sequence[Callable[..., nn.Module]] = (BasicConv2d, Inception, InceptionAux),
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        if len(blocks) != 3:
            raise ZooError(
                f"blocks has {len(blocks)} entries; expected 3: "
                "the convolution, the Inception block, the auxiliary head"
            )
        conv, block, aux = blocks
        self.aux_logits = aux_logits
        self.transform_input = transform_input
        self.conv1 = conv(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = conv(64, 64, kernel_size=1)
        self.conv3 = conv(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = block(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = block(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = block(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = block(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = block(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = block(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = block(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = block(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = block(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = aux(512, num_classes, dropout=dropout_aux) if aux_logits else None
        self.aux2 = aux(528, num_classes, dropout=dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(1024, num_classes)
        if init_weights:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    truncated_normal_(module.weight, 0.01)

    def forward(self, images: Tensor) -> Tensor | GoogLeNetOutputs:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``.

        In training with auxiliary heads: :class:`GoogLeNetOutputs`.
        """
        return self.of_input(self.to_input(images))

    def to_input(self, images: Tensor) -> Tensor:
        """Return normalised images as the published weights need them."""
        return imagenet_to_half_range(images) if self.transform_input else images

    def of_input(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """Return what :meth:`forward` returns, of what :meth:`to_input` returned."""
        x = self.maxpool1(self.conv1(x))  # (N, 64, 56, 56) for images of 224x224
        x = self.maxpool2(self.conv3(self.conv2(x)))  # (N, 192, 28, 28)
        x = self.maxpool3(self.inception3b(self.inception3a(x)))  # (N, 480, 14, 14)
        x = self.inception4a(x)
        aux1 = self.aux1(x) if self.aux1 is not None and self.training else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if self.aux2 is not None and self.training else None
        x = self.maxpool4(self.inception4e(x))  # (N, 832, 7, 7)
        x = self.inception5b(self.inception5a(x))  # (N, 1024, 7, 7)
        x = self.dropout(torch.flatten(self.avgpool(x), 1))
        logits = self.fc(x)
        if aux1 is None or aux2 is None:
            return logits
        return GoogLeNetOutputs(logits, aux2, aux1)


@register_model(pretrained_args={"aux_logits": False})  # the file's heads were never trained
def googlenet(**kwargs: Any) -> GoogLeNet:
    """GoogLeNet; with published weights: no auxiliary heads, ``transform_input`` by default."""
    return GoogLeNet(**kwargs)
