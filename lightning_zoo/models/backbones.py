"""Classifiers as backbones: which weights they load, and which of their maps are taken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import FrozenBatchNorm2d, conv_norm

NormLayer = Callable[..., nn.Module]
IMAGENET_V1 = "IMAGENET1K_V1"


class Body(nn.ModuleDict):
    """The first children of a classifier, one after the other, and the maps that some of them give.

    Args:
        children: Modules by name, in their order; those after the last map are left out.
        return_layers: Name of a map by the name of the child that gives it.
    """

    def __init__(self, children: Mapping[str, nn.Module], return_layers: Mapping[str, str]) -> None:
        kept: dict[str, nn.Module] = {}
        for name, child in children.items():
            kept[name] = child
            if return_layers.keys() <= kept.keys():
                break
        super().__init__(kept)
        self.return_layers = dict(return_layers)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps ``(N, C, H, W)`` by name, for normalised images ``(N, 3, H, W)``."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        conv: nn.Module | None = None  # waits for its norm
        for name, child in self.items():
            if isinstance(child, nn.Conv2d) and name not in self.return_layers:
                x, conv = (x if conv is None else conv(x)), child
                continue
            if conv is not None:
                is_norm = isinstance(child, FrozenBatchNorm2d)
                x = conv_norm(conv, child, x) if is_norm else child(conv(x))
                conv = None
            else:
                x = child(x)
            if name in self.return_layers:
                maps[self.return_layers[name]] = x
        return maps


def chosen_weights(
    pretrained_backbone: bool,
    weights_backbone: str | Path | None,
    *,
    trained: bool,
    default: str | None = None,
) -> str | Path | None:
    """Return the weights that a backbone has to load, None where it has none to load.

    Args:
        pretrained_backbone: Whether a backbone is loaded at all.
        weights_backbone: A published name, a file, or None for none.
        trained: Whether the values of the whole network come from a file.
        default: The value of ``weights_backbone`` that nobody asked for.

    Raises:
        ZooError: If the two arguments contradict each other.
    """
    if not pretrained_backbone and weights_backbone not in (None, default):
        raise ZooError(
            f"pretrained_backbone is False but weights_backbone={str(weights_backbone)!r}; "
            "pass one of the two"
        )
    return weights_backbone if pretrained_backbone and not trained else None


def wanted_weights(
    pretrained_backbone: bool, weights_backbone: str | Path | None
) -> str | Path | None:
    """Return the weights of a backbone that is chosen by name: the best published, if none else."""
    return weights_backbone or ("DEFAULT" if pretrained_backbone else None)


def trunk(model: nn.Module) -> dict[str, nn.Module]:
    """Return what stands before the classifier's head, in the order that it runs in."""
    for name in ("features", "layers"):
        child = getattr(model, name, None)
        if isinstance(child, nn.Sequential):
            return dict(child.named_children())
    found = {}
    for name, child in model.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d | nn.Linear):
            break
        found[name] = child
    return found


def stage_starts(features: nn.Sequential) -> list[int]:
    """Return the children of a MobileNet at which its stages begin.

    They are the first, those that halve the resolution (or would), and the last.
    """
    strided = [i for i, block in enumerate(features) if i and getattr(block, "is_strided", False)]
    return [0, *strided, len(features) - 1]
