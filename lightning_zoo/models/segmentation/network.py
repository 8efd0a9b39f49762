"""What the segmentation networks share: a backbone, a head, an auxiliary head, one resolution."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.layers import channels_last_on_cpu


def quick_order(images: Tensor, network: nn.Module) -> Tensor:
    """Return images in the order of memory that the network is quickest with on a CPU.

    That is channels-last in evaluation. In training only depthwise convolutions, MobileNet's, win.
    """
    if not network.training or network.has_depthwise:
        return channels_last_on_cpu(images)
    return images


def has_depthwise(backbone: nn.Module) -> bool:
    """Whether some convolution filters each channel by itself."""
    convs = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return any(conv.groups == conv.in_channels > 1 for conv in convs)


def full_size(logits: Tensor, images: Tensor) -> Tensor:
    """Return logits ``(N, C, H, W)`` at the size of the images, in torch's usual order."""
    return resize(logits.contiguous(), (images.shape[-2], images.shape[-1]))


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``(N, C, *size)``, bilinear between the pixels' centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class SegmentationNetwork(nn.Module):
    """Class of every pixel.

    Args:
        backbone: Gives a dictionary of maps for a batch: ``out`` and, for the auxiliary head,
            ``aux``.
        classifier: Gives logits for the map ``out``.
        aux_classifier: Gives logits for the map ``aux``; None for no auxiliary head.
    """

    def __init__(
        self, backbone: nn.Module, classifier: nn.Module, aux_classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.has_depthwise = has_depthwise(backbone)
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return logits ``out`` and, with an auxiliary head, ``aux``, each ``(N, classes, H, W)``.

        Both come in evaluation too. ``images`` are normalised, ``(N, 3, H, W)``.
        """
        maps = self.backbone(quick_order(images, self))
        logits = OrderedDict(out=full_size(self.classifier(maps["out"]), images))
        if self.aux_classifier is not None:
            logits["aux"] = full_size(self.aux_classifier(maps["aux"]), images)
        return logits
