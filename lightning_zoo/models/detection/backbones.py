"""Classifiers as backbones of detectors: their feature maps, and the pyramid over them."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import (
    FeaturePyramidNetwork,
    FrozenBatchNorm2d,
    LastLevelMaxPool,
    LastLevelP6P7,
)
from lightning_zoo.models.backbones import (
    IMAGENET_V1,
    Body,
    NormLayer,
    chosen_weights,
    stage_starts,
    trunk,
)
from lightning_zoo.models.classification.resnet import ResNet
from lightning_zoo.models.registry import get_entry

ExtraBlocks = LastLevelMaxPool | LastLevelP6P7


class BackboneWithFPN(nn.Module):
    """Feature maps of one width at several resolutions.

    Args:
        body: Gives maps by name, see :class:`Body`.
        in_channels_list: Channels of those maps.
        out_channels: Channels of the pyramid.
        extra_blocks: Makes further levels; None for a max-pool.
        norm_layer: Norm of the pyramid; left out, it has none.
    """

    def __init__(
        self,
        body: Body,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: ExtraBlocks | None = None,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(
            in_channels_list, out_channels, extra_blocks or LastLevelMaxPool(), norm_layer
        )
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps ``(N, out_channels, H, W)`` by name, for normalised images."""
        return self.fpn(self.body(x))


# ---------------------------------------------------------------------------------------------
# What is loaded, what is frozen


def chosen_layers(asked: int | None, *, loaded: bool, most: int, default: int) -> int:
    """Return how many stages of a backbone train, counted from its output.

    Raises:
        ZooError: If it has not as many.
    """
    if asked is not None and not 0 <= asked <= most:
        raise ZooError(f"trainable_backbone_layers is {asked}; expected 0 to {most}")
    if not loaded:
        if asked is not None:
            warnings.warn(
                "trainable_backbone_layers has no effect without pretrained weights: "
                f"all {most} stages are trained",
                stacklevel=4,
            )
        return most
    return default if asked is None else asked


def freeze_stages(stages: Sequence[Sequence[nn.Module]], trainable: int) -> None:
    """Let the last ``trainable`` stages train and no others."""
    for stage in stages[: len(stages) - trainable]:
        for module in stage:
            module.requires_grad_(False)


def freeze_norms(module: nn.Module) -> None:
    """Put frozen norms with the same values into the places of all batch norms, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps).to(child.weight.device)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_norms(child)


def backbone_width(backbone: nn.Module) -> int:
    """Return the channels of a backbone's maps.

    Raises:
        ZooError: If it does not say.
    """
    width = getattr(backbone, "out_channels", None)
    if not isinstance(width, int):
        raise ZooError(
            f"the backbone {type(backbone).__name__} has no attribute out_channels; set it to the "
            "number of channels of its feature maps, the same for all"
        )
    return width


# ---------------------------------------------------------------------------------------------
# Builders


def load_classifier(
    name: str, weights: str | Path | None, *, progress: bool, norm_layer: NormLayer, **kwargs: Any
) -> Any:
    """Return a classifier of the zoo whose norms are made by ``norm_layer``."""
    constructor = get_entry(name, "classification").load_builder()
    if "norm_layer" in constructor.__annotations__:
        return constructor(weights=weights, progress=progress, norm_layer=norm_layer, **kwargs)
    model = constructor(weights=weights, progress=progress, **kwargs)
    if norm_layer is FrozenBatchNorm2d:
        freeze_norms(model)
    elif norm_layer is not nn.BatchNorm2d:
        raise ZooError(f"{name} takes no norm_layer; leave it out")
    return model


def default_norm(norm_layer: NormLayer | None, *, loaded: bool) -> NormLayer:
    """Return the norm that is asked for; left out, a frozen one where weights are loaded."""
    return norm_layer or (FrozenBatchNorm2d if loaded else nn.BatchNorm2d)


def fpn_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    loaded: bool | None = None,
    progress: bool = True,
    norm_layer: NormLayer | None = None,
    trainable_layers: int | None = None,
    returned_layers: Sequence[int] | None = None,
    out_channels: int = 256,
    extra_blocks: ExtraBlocks | None = None,
    **kwargs: Any,
) -> BackboneWithFPN:
    """Return a pyramid over the maps of a classifier.

    Args:
        name: A classifier of the zoo.
        weights: Its published weights or a file; None for none.
        loaded: Whether its values come from a file; left out, whether ``weights`` are given.
        progress: Show the download.
        norm_layer: Norm of the classifier; None for a frozen one if ``loaded``, else batch norm.
        trainable_layers: Stages that train, counted from the output, 0 to 5; None for 3 if
            ``loaded``, else all.
        returned_layers: Maps to take: 1 for a quarter of the image's side, to 4 for a 32nd; None
            for all that there are.
        out_channels: Channels of the pyramid.
        extra_blocks: Makes further levels; None for a max-pool.
        kwargs: Arguments of the classifier.
    """
    loaded = weights is not None if loaded is None else loaded
    norm_layer = default_norm(norm_layer, loaded=loaded)
    trainable = chosen_layers(trainable_layers, loaded=loaded, most=5, default=3)
    model = load_classifier(name, weights, progress=progress, norm_layer=norm_layer, **kwargs)
    children = trunk(model)
    outputs = _outputs(name, model, children)
    levels = [math.floor(math.log2(stride) + 0.5) for stride, _ in outputs.values()]
    stages: list[list[nn.Module]] = [[] for _ in range(5)]
    for child, level in zip(children.values(), levels, strict=True):
        stages[min(max(level, 1), 5) - 1].append(child)
    freeze_stages(stages, trainable)
    last = {level - 1: child for child, level in zip(children, levels, strict=True)}
    wanted = sorted(n for n in last if n >= 1) if returned_layers is None else returned_layers
    if not wanted or not set(wanted) <= set(last):
        raise ZooError(
            f"{name} has no feature maps {list(wanted)}; expected of {sorted(n for n in last if n)}"
        )
    return BackboneWithFPN(
        Body(children, {last[n]: str(i) for i, n in enumerate(wanted)}),
        [outputs[last[n]][1] for n in wanted],
        out_channels,
        extra_blocks,
    )


def fpn_for(
    name: str,
    *,
    pretrained_backbone: bool,
    weights_backbone: str | Path | None,
    trained: bool,
    **kwargs: Any,
) -> BackboneWithFPN:
    """Return the pyramid of a detector, see :func:`chosen_weights` and :func:`fpn_backbone`."""
    weights = chosen_weights(
        pretrained_backbone, weights_backbone, trained=trained, default=IMAGENET_V1
    )
    return fpn_backbone(name, weights, loaded=trained or weights is not None, **kwargs)


def resnet_fpn_backbone(
    backbone_name: str,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    norm_layer: NormLayer | None = None,
    trainable_layers: int = 3,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: ExtraBlocks | None = None,
) -> BackboneWithFPN:
    """Return a pyramid over a ResNet.

    Args:
        backbone_name: ``resnet50`` or the like.
        pretrained: Load the weights that the classifier's own flag loads.
        weights: Published weights by name, or a file.
        norm_layer: Norm of the ResNet; None for a frozen one with weights, else batch norm.
        trainable_layers: Stages that train, counted from the output, 0 to 5.
        returned_layers: Stages whose maps are taken, 1 to 4; None for all four.
        extra_blocks: Makes further levels; None for a max-pool.
    """
    backbone = fpn_backbone(
        backbone_name,
        weights or _flagged(backbone_name, pretrained),
        loaded=True,  # the number of trainable stages counts as it is given
        norm_layer=default_norm(norm_layer, loaded=pretrained or weights is not None),
        trainable_layers=trainable_layers,
        returned_layers=returned_layers,
        extra_blocks=extra_blocks,
    )
    return backbone


def mobilenet_backbone(
    backbone_name: str,
    pretrained: bool = False,
    fpn: bool = True,
    *,
    weights: str | Path | None = None,
    loaded: bool | None = None,
    progress: bool = True,
    norm_layer: NormLayer | None = None,
    trainable_layers: int = 2,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: ExtraBlocks | None = None,
) -> nn.Module:
    """Return a MobileNet's maps, under a pyramid or as one map of 256 channels.

    Args:
        backbone_name: ``mobilenet_v2``, ``mobilenet_v3_large`` or ``mobilenet_v3_small``.
        pretrained: Load the weights that the classifier's own flag loads.
        fpn: Put a pyramid over the maps.
        weights: Published weights by name, or a file.
        loaded: Whether its values come from a file; left out, whether weights are given.
        progress: Show the download.
        norm_layer: Norm of the MobileNet; None for a frozen one if ``loaded``, else batch norm.
        trainable_layers: Stages that train, counted from the output, 0 to the number of stages.
        returned_layers: Stages whose maps are taken, from 0; None for the last two.
        extra_blocks: Makes further levels; None for a max-pool.
    """
    weights = weights or _flagged(backbone_name, pretrained)
    loaded = weights is not None if loaded is None else loaded
    features = load_classifier(
        backbone_name,
        weights,
        progress=progress,
        norm_layer=default_norm(norm_layer, loaded=loaded),
    ).features
    starts = stage_starts(features)
    num_stages = len(starts)
    if not 0 <= trainable_layers <= num_stages:
        raise ZooError(f"trainable_layers is {trainable_layers}; expected 0 to {num_stages}")
    freeze_stages(split_stages(features, starts), trainable_layers)
    if not fpn:
        plain = nn.Sequential(features, nn.Conv2d(features[-1].out_channels, 256, 1))
        plain.out_channels = 256  # type: ignore[assignment]
        return plain
    if returned_layers is None:
        returned_layers = [num_stages - 2, num_stages - 1]
    if not all(0 <= n < num_stages for n in returned_layers):
        raise ZooError(
            f"returned_layers is {list(returned_layers)}; expected of 0 to {num_stages - 1}"
        )
    return BackboneWithFPN(
        Body(
            dict(features.named_children()),
            {str(starts[n]): str(i) for i, n in enumerate(returned_layers)},
        ),
        [features[starts[n]].out_channels for n in returned_layers],
        256,
        extra_blocks,
    )


def split_stages(features: nn.Sequential, starts: Sequence[int]) -> list[list[nn.Module]]:
    """Return the children of each stage."""
    ends = [*starts[1:], len(features)]
    return [list(features)[a:b] for a, b in zip(starts, ends, strict=True)]


def _flagged(name: str, pretrained: bool) -> str | None:
    if not pretrained:
        return None
    entry = get_entry(name, "classification")
    return entry.get_weights(entry.pretrained).name


def _outputs(
    name: str, model: nn.Module, children: Mapping[str, nn.Module]
) -> dict[str, tuple[float, int]]:
    """Return the stride and the channels of each child's output, by trying it."""
    if isinstance(model, ResNet):  # known without trying
        width = model.fc.in_features // 8
        known = {"conv1": (2.0, 64), "bn1": (2.0, 64), "relu": (2.0, 64), "maxpool": (4.0, 64)}
        stages = {f"layer{i + 1}": (4.0 * 2**i, width * 2**i) for i in range(4)}
        return known | stages
    was_training = model.training
    model.eval()
    side = 256
    outputs = {}
    try:
        with torch.no_grad():
            x = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
            for key, child in children.items():
                x = child(x)
                outputs[key] = (side / x.shape[-1], x.shape[1])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ZooError(f"{name} cannot be the backbone of a pyramid; take a ResNet") from error
    model.train(was_training)
    return outputs
