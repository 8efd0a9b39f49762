"""Mask R-CNN: Faster R-CNN with a third head that draws each object's outline.

Paper: He et al., "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import ConvNormAct, MultiScaleRoIAlign
from lightning_zoo.models.backbones import (
    IMAGENET_V1,
    NormLayer,
    wanted_weights,
)
from lightning_zoo.models.detection.backbones import (
    backbone_width,
    fpn_for,
)
from lightning_zoo.models.detection.faster_rcnn import RATIOS, FasterRCNN, box_options
from lightning_zoo.models.detection.names import current_name, without_eps
from lightning_zoo.models.hub import register_model


class MaskRCNNHeads(nn.Sequential):
    """3x3 convolutions over a box's features.

    Args:
        in_channels: Channels of a box.
        layers: Channels of each convolution.
        dilation: Distance of the kernels' taps.
        norm_layer: Makes a norm from the number of channels; left out, there is none.
    """

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[int],
        dilation: int = 1,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        widths = [in_channels, *layers]
        super().__init__(
            *(
                ConvNormAct(a, b, 3, dilation=dilation, norm_layer=norm_layer)
                for a, b in pairwise(widths)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class MaskRCNNPredictor(nn.Sequential):
    """Double the resolution and give each class a mask.

    Args:
        in_channels: Channels of a box.
        dim_reduced: Channels between the two layers.
        num_classes: Classes with the background.
    """

    conv5_mask: nn.ConvTranspose2d
    relu: nn.ReLU
    mask_fcn_logits: nn.Conv2d

    def __init__(self, in_channels: int, dim_reduced: int, num_classes: int) -> None:
        layers: list[tuple[str, nn.Module]] = [
            ("conv5_mask", nn.ConvTranspose2d(in_channels, dim_reduced, 2, 2)),
            ("relu", nn.ReLU(inplace=True)),
            ("mask_fcn_logits", nn.Conv2d(dim_reduced, num_classes, 1)),
        ]
        super().__init__(OrderedDict(layers))
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def of_class(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits ``(K, 2 * H, 2 * W)`` of one class each, for ``(K, C, H, W)``.

        The last layer is computed for that class alone, which is 1 in 91.
        """
        x = self.relu(self.conv5_mask(x))
        weight = self.mask_fcn_logits.weight[labels].flatten(1)[:, None]  # (K, 1, C)
        bias = self.mask_fcn_logits.bias
        logits = weight.to(x.dtype) @ x.flatten(2)  # (K, 1, 2H * 2W)
        logits = logits.view(labels.shape[0], *x.shape[2:])
        return logits if bias is None else logits + bias[labels, None, None]


class MaskRCNN(FasterRCNN):
    """Detector that also gives each object a mask.

    Beside what :class:`~lightning_zoo.models.detection.faster_rcnn.FasterRCNN` takes and returns,
    training targets have ``masks`` of 0 and 1, ``(M, H, W)`` at the image's own size, and
    detections have ``masks`` float ``(N, 1, H, W)``, probabilities.

    Args:
        backbone: Gives a dictionary of feature maps for a batch; ``out_channels`` is their width.
        num_classes: Classes with the background; None where both predictors are passed.
        mask_roi_pool: Cuts boxes out of the maps; None for 14 x 14 cells of maps "0" to "3".
        mask_head: Layers over a cut; None for four convolutions of 256.
        mask_predictor: Gives the masks; None for the usual one.
        kwargs: Arguments of :class:`~lightning_zoo.models.detection.faster_rcnn.FasterRCNN`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        *,
        mask_roi_pool: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        if mask_predictor is None and num_classes is None:
            raise ZooError("num_classes is None; pass it, or box_predictor and mask_predictor")
        box_classes = None if kwargs.get("box_predictor") is not None else num_classes
        super().__init__(backbone, box_classes, **kwargs)
        self.roi_heads.mask_roi_pool = mask_roi_pool or MultiScaleRoIAlign(
            ["0", "1", "2", "3"], 14, sampling_ratio=2
        )
        self.roi_heads.mask_head = mask_head or MaskRCNNHeads(
            backbone_width(backbone), (256, 256, 256, 256)
        )
        self.roi_heads.mask_predictor = mask_predictor or MaskRCNNPredictor(
            256, 256, num_classes or 0
        )


@register_model(rename=current_name, finish=without_eps)
def maskrcnn_resnet50_fpn(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> MaskRCNN:
    """Mask R-CNN over a ResNet-50 with a feature pyramid."""
    backbone = fpn_for(
        "resnet50",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        trainable_layers=trainable_backbone_layers,
        progress=progress,
    )
    return MaskRCNN(backbone, num_classes, **kwargs)


@register_model(rename=current_name)
def mask_rcnn(
    *,
    num_classes: int = 91,
    backbone: str = "resnet50",
    backbone_args: dict[str, Any] | None = None,
    pretrained_backbone: bool = False,
    weights_backbone: str | Path | None = None,
    trainable_backbone_layers: int | None = None,
    returned_layers: Sequence[int] | None = None,
    fpn_channels: int = 256,
    representation_size: int = 1024,
    mask_layers: Sequence[int] = (256, 256, 256, 256),
    mask_dim_reduced: int = 256,
    anchor_sizes: Sequence[int | Sequence[int]] | None = None,
    aspect_ratios: Sequence[float] = RATIOS,
    norm_layer: NormLayer | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> MaskRCNN:
    """Mask R-CNN over any classifier of the zoo with a feature pyramid.

    Nothing is loaded unless ``weights_backbone`` names weights or a file, or
    ``pretrained_backbone`` asks for the best published ones. ``mask_layers`` are the channels of
    the mask head's convolutions, ``mask_dim_reduced`` those before its last layer; the rest is as
    for :func:`~lightning_zoo.models.detection.faster_rcnn.faster_rcnn`.
    """
    pyramid = fpn_for(
        backbone,
        pretrained_backbone=True,
        weights_backbone=wanted_weights(pretrained_backbone, weights_backbone),
        trained=trained,
        trainable_layers=trainable_backbone_layers,
        returned_layers=returned_layers,
        out_channels=fpn_channels,
        norm_layer=norm_layer,
        progress=progress,
        **(backbone_args or {}),
    )
    options = box_options(pyramid, num_classes, representation_size, anchor_sizes, aspect_ratios)
    names = options["box_roi_pool"].featmap_names
    options["mask_roi_pool"] = MultiScaleRoIAlign(names, 14, sampling_ratio=2)
    options["mask_head"] = MaskRCNNHeads(fpn_channels, mask_layers)
    options["mask_predictor"] = MaskRCNNPredictor(
        [fpn_channels, *mask_layers][-1], mask_dim_reduced, num_classes
    )
    return MaskRCNN(pyramid, **{**options, **kwargs})
