"""DenseNet: every layer of a block sees the outputs of all layers before it.

Papers: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017,
https://arxiv.org/abs/1608.06993; Pleiss et al., "Memory-Efficient Implementation of DenseNets",
2017, https://arxiv.org/abs/1707.06990.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_zoo.models.hub import register_model


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution on all features so far, norm and ReLU before each.

    Args:
        in_channels: Channels of all features so far.
        growth_rate: Channels of the output.
        bn_size: Between the convolutions there are ``bn_size * growth_rate`` channels.
        drop_rate: Probability of dropping a value of the output.
        memory_efficient: Compute the features between the convolutions again in the backward pass
            rather than keep them.
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        *,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop_rate = drop_rate
        self.memory_efficient = memory_efficient

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return ``(N, growth_rate, H, W)`` for features that have ``in_channels`` together."""
        # compiled code decides by itself what to compute again
        again = self.memory_efficient and not torch.compiler.is_compiling()
        if again and any(feature.requires_grad for feature in features):
            x = checkpoint(
                self._squeeze,
                *features,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=self._contexts,
            )
        else:
            x = self._squeeze(*features)
        x = self.conv2(self.relu2(self.norm2(x)))
        if self.drop_rate > 0:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x

    def _squeeze(self, *features: Tensor) -> Tensor:
        return self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the forward pass and of the second one in the backward pass."""
        return nullcontext(), self._frozen_statistics()

    @contextmanager
    def _frozen_statistics(self) -> Iterator[None]:
        """Keep the running statistics from being updated twice by one batch."""
        norm = self.norm1
        momentum, counter = norm.momentum, norm.num_batches_tracked
        norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            norm.momentum, norm.num_batches_tracked = momentum, counter


class DenseBlock(nn.ModuleDict):
    """Layers ``denselayer1``, ``denselayer2`` and so on, each fed by all before it.

    Args:
        num_layers: Number of layers.
        in_channels: Channels of the input.
        growth_rate: Channels that each layer adds.
        options: ``bn_size``, ``drop_rate`` and ``memory_efficient`` of the layers.
    """

    def __init__(self, num_layers: int, in_channels: int, growth_rate: int, **options: Any) -> None:
        super().__init__()
        for i in range(num_layers):
            layer = DenseLayer(in_channels + i * growth_rate, growth_rate, **options)
            self[f"denselayer{i + 1}"] = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and all layers' outputs, stacked along the channels."""
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


def _transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return the layers between two blocks, which halve H and W."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm2d(in_channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            pool=nn.AvgPool2d(kernel_size=2, stride=2),
        )
    )


class DenseNet(nn.Module):
    """Image classifier.

    Args:
        growth_rate: Channels that each layer adds (k in the paper).
        block_config: Layers in each of the four blocks.
        num_init_features: Channels of the first convolution.
        bn_size: The 1x1 convolutions have ``bn_size * growth_rate`` channels.
        drop_rate: Probability of dropping a value of a layer's output.
        num_classes: Number of logits.
        memory_efficient: Compute the layers' inner features again in the backward pass: far less
            memory, a little slower, the same result.
    """

    def __init__(
        self,
        growth_rate: int,
        block_config: Sequence[int],
        num_init_features: int,
        *,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        channels = num_init_features
        self.features = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv0=nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(channels),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            )
        )
        for i, num_layers in enumerate(block_config, start=1):
            block = DenseBlock(
                num_layers,
                channels,
                growth_rate,
                bn_size=bn_size,
                drop_rate=drop_rate,
                memory_efficient=memory_efficient,
            )
            self.features.add_module(f"denseblock{i}", block)
            channels += num_layers * growth_rate
            if i < len(block_config):
                self.features.add_module(f"transition{i}", _transition(channels, channels // 2))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` for normalised images ``(N, 3, H, W)``."""
        x = F.relu(self.features(images), inplace=True)  # (N, C, H / 32, W / 32)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


def rename(key: str) -> str:
    """Return today's name of a tensor; the published files have dots: ``norm.1.weight``."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)


@register_model(rename=rename)
def densenet121(**kwargs: Any) -> DenseNet:
    """DenseNet-121."""
    return DenseNet(32, (6, 12, 24, 16), 64, **kwargs)


@register_model(rename=rename)
def densenet161(**kwargs: Any) -> DenseNet:
    """DenseNet-161, the wide one."""
    return DenseNet(48, (6, 12, 36, 24), 96, **kwargs)


@register_model(rename=rename)
def densenet169(**kwargs: Any) -> DenseNet:
    """DenseNet-169."""
    return DenseNet(32, (6, 12, 32, 32), 64, **kwargs)


@register_model(rename=rename)
def densenet201(**kwargs: Any) -> DenseNet:
    """DenseNet-201."""
    return DenseNet(32, (6, 12, 48, 32), 64, **kwargs)
