"""Keypoint R-CNN: Faster R-CNN with a third head that finds each object's keypoints.

Paper: He et al., "Mask R-CNN", ICCV 2017, section 5, https://arxiv.org/abs/1703.06870.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.layers import MultiScaleRoIAlign
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

MIN_SIZES = (640, 672, 704, 736, 768, 800)


class KeypointRCNNHeads(nn.Sequential):
    """3x3 convolutions over a box's features.

    Args:
        in_channels: Channels of a box.
        layers: Channels of each convolution.
    """

    def __init__(self, in_channels: int, layers: Sequence[int]) -> None:
        modules: list[nn.Module] = []
        for width in layers:
            conv = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            modules += [conv, nn.ReLU(inplace=True)]
            in_channels = width
        super().__init__(*modules)


class KeypointRCNNPredictor(nn.Module):
    """A heat map for each keypoint, at four times the resolution.

    Args:
        in_channels: Channels of a box.
        num_keypoints: Keypoints of an object.
    """

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.kps_score_lowres = nn.ConvTranspose2d(in_channels, num_keypoints, 4, 2, padding=1)
        nn.init.kaiming_normal_(self.kps_score_lowres.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.kps_score_lowres.bias)  # type: ignore[arg-type]
        self.up_scale = 2
        self.out_channels = num_keypoints

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(K, points, 4 * H, 4 * W)`` for ``(K, C, H, W)``."""
        x = self.kps_score_lowres(x)
        return F.interpolate(
            x, scale_factor=float(self.up_scale), mode="bilinear", align_corners=False
        )


class KeypointRCNN(FasterRCNN):
    """Detector that also gives each object its keypoints.

    Beside what :class:`~lightning_zoo.models.detection.faster_rcnn.FasterRCNN` takes and returns,
    training targets have ``keypoints`` float ``(M, points, 3)`` as x, y, visibility (0: not
    labelled), and detections have ``keypoints`` ``(N, points, 3)`` and ``keypoints_scores``
    ``(N, points)``, logits.

    Args:
        backbone: Gives a dictionary of feature maps for a batch; ``out_channels`` is their width.
        num_classes: Classes with the background; None where a ``box_predictor`` is passed.
        min_size: Length in pixels of the shorter side; of several, training draws one for each
            image and evaluation takes the last.
        keypoint_roi_pool: Cuts boxes out of the maps; None for 14 x 14 cells of maps "0" to "3".
        keypoint_head: Layers over a cut; None for eight convolutions of 512.
        keypoint_predictor: Gives the heat maps; None for the usual one.
        num_keypoints: Keypoints of an object; None for the 17 of a person in COCO.
        kwargs: Arguments of :class:`~lightning_zoo.models.detection.faster_rcnn.FasterRCNN`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        min_size: int | Sequence[int] = MIN_SIZES,
        *,
        keypoint_roi_pool: nn.Module | None = None,
        keypoint_head: nn.Module | None = None,
        keypoint_predictor: nn.Module | None = None,
        num_keypoints: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, num_classes, min_size, **kwargs)
        self.roi_heads.keypoint_roi_pool = keypoint_roi_pool or MultiScaleRoIAlign(
            ["0", "1", "2", "3"], 14, sampling_ratio=2
        )
        self.roi_heads.keypoint_head = keypoint_head or KeypointRCNNHeads(
            backbone_width(backbone), (512,) * 8
        )
        self.roi_heads.keypoint_predictor = keypoint_predictor or KeypointRCNNPredictor(
            512, 17 if num_keypoints is None else num_keypoints
        )


@register_model(rename=current_name, finish=without_eps)
def keypointrcnn_resnet50_fpn(
    *,
    num_classes: int = 2,
    num_keypoints: int = 17,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> KeypointRCNN:
    """Keypoint R-CNN over a ResNet-50 with a feature pyramid."""
    backbone = fpn_for(
        "resnet50",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        trainable_layers=trainable_backbone_layers,
        progress=progress,
    )
    return KeypointRCNN(backbone, num_classes, num_keypoints=num_keypoints, **kwargs)


@register_model(rename=current_name)
def keypoint_rcnn(
    *,
    num_classes: int = 2,
    num_keypoints: int = 17,
    backbone: str = "resnet50",
    backbone_args: dict[str, Any] | None = None,
    pretrained_backbone: bool = False,
    weights_backbone: str | Path | None = None,
    trainable_backbone_layers: int | None = None,
    returned_layers: Sequence[int] | None = None,
    fpn_channels: int = 256,
    representation_size: int = 1024,
    keypoint_layers: Sequence[int] = (512,) * 8,
    anchor_sizes: Sequence[int | Sequence[int]] | None = None,
    aspect_ratios: Sequence[float] = RATIOS,
    norm_layer: NormLayer | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> KeypointRCNN:
    """Keypoint R-CNN over any classifier of the zoo with a feature pyramid.

    Nothing is loaded unless ``weights_backbone`` names weights or a file, or
    ``pretrained_backbone`` asks for the best published ones. ``keypoint_layers`` are the channels
    of the keypoint head's convolutions; the rest is as for
    :func:`~lightning_zoo.models.detection.faster_rcnn.faster_rcnn`.
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
    options["keypoint_roi_pool"] = MultiScaleRoIAlign(names, 14, sampling_ratio=2)
    options["keypoint_head"] = KeypointRCNNHeads(fpn_channels, keypoint_layers)
    options["keypoint_predictor"] = KeypointRCNNPredictor(
        [fpn_channels, *keypoint_layers][-1], num_keypoints
    )
    return KeypointRCNN(pyramid, **{**options, **kwargs})
