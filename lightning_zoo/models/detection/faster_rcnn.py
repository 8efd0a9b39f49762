"""Faster R-CNN: proposals from a small network over the feature maps, then a head for each box.

Papers: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", NeurIPS 2015, https://arxiv.org/abs/1506.01497; Lin et al., "Feature Pyramid Networks for
Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144.
Differs from the papers: RoIAlign in the place of RoIPool, and no sharing of training stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_zoo.errors import ZooError
from lightning_zoo.layers import MultiScaleRoIAlign
from lightning_zoo.models.backbones import (
    IMAGENET_V1,
    NormLayer,
    chosen_weights,
    wanted_weights,
)
from lightning_zoo.models.detection.anchors import AnchorGenerator
from lightning_zoo.models.detection.backbones import (
    BackboneWithFPN,
    backbone_width,
    chosen_layers,
    fpn_for,
    mobilenet_backbone,
)
from lightning_zoo.models.detection.inputs import check_images, check_targets, fixed_generators
from lightning_zoo.models.detection.names import current_name, without_eps
from lightning_zoo.models.detection.roi_heads import RoIHeads
from lightning_zoo.models.detection.rpn import RegionProposalNetwork, RPNHead
from lightning_zoo.models.detection.transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Detections,
    GeneralizedRCNNTransform,
    Target,
)
from lightning_zoo.models.hub import register_model

RATIOS = (0.5, 1.0, 2.0)
Losses = dict[str, Tensor]


class TwoMLPHead(nn.Module):
    """Two linear layers over a box's features.

    Args:
        in_channels: Values of a box: channels times height times width.
        representation_size: Values of each layer.
    """

    def __init__(self, in_channels: int, representation_size: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels, representation_size)
        self.fc7 = nn.Linear(representation_size, representation_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(K, representation_size)`` for ``(K, C, H, W)``."""
        x = F.relu(self.fc6(x.flatten(1)), inplace=True)
        return F.relu(self.fc7(x), inplace=True)


class FastRCNNPredictor(nn.Module):
    """Class logits and one set of box offsets for each class.

    Args:
        in_channels: Values of a box.
        num_classes: Classes with the background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(K, C)`` and offsets ``(K, 4 * C)`` for ``(K, in_channels)``."""
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)


class FasterRCNN(nn.Module):
    """Object detector of two stages.

    Call it with a list of images ``(3, H, W)``, float in [0, 1] or uint8, of any sizes. In training
    it takes a target for each image (``boxes`` float ``(M, 4)`` as x1, y1, x2, y2 in pixels,
    ``labels`` int64 ``(M,)`` from 1, as 0 is the background) and returns a dictionary of losses. In
    evaluation it returns for each image ``boxes``, ``labels`` and ``scores``, best first; with
    ``with_losses=True`` it takes targets there too and returns both, losses first.

    Args:
        backbone: Gives a dictionary of feature maps for a batch; ``out_channels`` is their width.
        num_classes: Classes with the background; None where a ``box_predictor`` is passed.
        min_size: Length in pixels that the shorter side of an image is resized to; of several,
            training draws one for each image and evaluation takes the last.
        max_size: Length in pixels that the longer side is limited to.
        image_mean: Per-channel mean that is subtracted; None for ImageNet's.
        image_std: Per-channel standard deviation that is divided by; None for ImageNet's.
        rpn_anchor_generator: Makes the anchors; None for one size of 32 to 512 pixels on each of
            five maps.
        rpn_head: Gives objectness and offsets; None for the usual one.
        rpn_pre_nms_top_n_train: Proposals of each map before suppression, in training.
        rpn_pre_nms_top_n_test: The same in evaluation.
        rpn_post_nms_top_n_train: Proposals of an image after suppression, in training.
        rpn_post_nms_top_n_test: The same in evaluation.
        rpn_nms_thresh: Overlap above which the less certain of two proposals is suppressed.
        rpn_fg_iou_thresh: Overlap with an object from which on an anchor is positive.
        rpn_bg_iou_thresh: Overlap below which an anchor is negative.
        rpn_batch_size_per_image: Anchors of an image in the loss of the first stage.
        rpn_positive_fraction: The largest share of positives among them.
        rpn_score_thresh: Objectness in [0, 1] below which proposals are dropped.
        box_roi_pool: Cuts boxes out of the maps; None for 7 x 7 cells of maps "0" to "3".
        box_head: Turns a cut into a vector; None for two linear layers of 1024.
        box_predictor: Turns a vector into logits and offsets; None for the usual one.
        box_score_thresh: Probability above which a box is a detection.
        box_nms_thresh: Overlap above which the less certain of two detections is suppressed.
        box_detections_per_img: Detections of an image at most.
        box_fg_iou_thresh: Overlap with an object from which on a proposal is positive.
        box_bg_iou_thresh: Overlap below which it is background.
        box_batch_size_per_image: Proposals of an image in the loss of the second stage.
        box_positive_fraction: The largest share of positives among them.
        bbox_reg_weights: Factors of the box offsets; None for 10, 10, 5, 5.
        size_divisible: Height and width of a batch are multiples of it.

    Raises:
        ZooError: If the backbone does not say its width, or the classes are given twice or never.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn_anchor_generator: nn.Module | None = None,
        rpn_head: nn.Module | None = None,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_roi_pool: nn.Module | None = None,
        box_head: nn.Module | None = None,
        box_predictor: nn.Module | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: Sequence[float] | None = None,
        size_divisible: int = 32,
    ) -> None:
        super().__init__()
        out_channels = backbone_width(backbone)
        if (num_classes is None) == (box_predictor is None):
            raise ZooError(
                f"num_classes is {num_classes} and box_predictor is "
                f"{'left out' if box_predictor is None else 'given'}; pass one of the two"
            )
        anchors = rpn_anchor_generator or AnchorGenerator(
            ((32,), (64,), (128,), (256,), (512,)), (RATIOS,) * 5
        )
        if rpn_head is None:
            per_location = anchors.num_anchors_per_location()  # type: ignore[operator]
            rpn_head = RPNHead(out_channels, per_location[0])
        pool = box_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio=2)
        if box_head is None:
            height, width = pool.output_size  # type: ignore[misc]
            box_head = TwoMLPHead(out_channels * height * width, 1024)
        if box_predictor is None:
            size = box_head.fc7.out_features if isinstance(box_head, TwoMLPHead) else 1024
            box_predictor = FastRCNNPredictor(size, num_classes or 0)
        self.transform = GeneralizedRCNNTransform(
            min_size,
            max_size,
            image_mean or IMAGENET_MEAN,
            image_std or IMAGENET_STD,
            size_divisible,
        )
        self.backbone = backbone
        self.rpn = RegionProposalNetwork(
            anchors,
            rpn_head,
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            rpn_score_thresh,
        )
        self.roi_heads = RoIHeads(
            pool,
            box_head,
            box_predictor,
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
        )

    @property
    def num_classes(self) -> int | None:
        """Classes with the background; None where a predictor of the user's own does not tell."""
        predictor = self.roi_heads.box_predictor
        return getattr(getattr(predictor, "cls_score", None), "out_features", None)

    @property
    def num_keypoints(self) -> int | None:
        """Keypoints of an object; None where there is no keypoint head."""
        predictor = self.roi_heads.keypoint_predictor
        layer = getattr(predictor, "kps_score_lowres", None)
        return getattr(layer, "out_channels", None)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        with_losses: bool = False,
    ) -> Losses | list[Detections] | tuple[Losses, list[Detections]]:
        """Return losses in training, detections in evaluation, both ``with_losses``.

        Losses in evaluation draw their samples from a fixed seed for each image; nothing that
        training depends on changes, and objects with ``iscrowd`` 1 are left out of them.

        Raises:
            ZooError: If images or targets cannot be used; the text names the image.
        """
        images = check_images(images)
        learns = self.training or with_losses
        if learns:
            targets = check_targets(
                targets,
                images,
                num_classes=self.num_classes,
                masks=self.roi_heads.has_mask(),
                num_keypoints=self.num_keypoints,
                drop_crowds=not self.training,
            )
        batch, targets = self.transform(images, targets if learns else None)
        features = self.backbone(batch.tensors)
        if isinstance(features, Tensor):
            features = {"0": features}
        generators = None if self.training else fixed_generators(images)
        proposals, losses = self.rpn(batch, features, targets, generators)
        detections, more = self.roi_heads(
            features, proposals, batch.image_sizes, targets, generators
        )
        losses = {**more, **losses}
        if self.training:
            return losses
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        detections = self.transform.postprocess(detections, batch.image_sizes, sizes)
        return (losses, detections) if with_losses else detections


def pyramid_options(
    backbone: BackboneWithFPN,
    anchor_sizes: Sequence[int | Sequence[int]] | None,
    aspect_ratios: Sequence[float],
) -> dict[str, Any]:
    """Return anchors and pools for a pyramid of any number of maps.

    Args:
        backbone: The pyramid, with a map of stride 4, 8, ... and one more.
        anchor_sizes: Size or sizes in pixels on each map; None for 32 on the first and twice as
            much on each further one.
        aspect_ratios: Height over width of the anchors.
    """
    names = list(backbone.body.return_layers.values())
    if anchor_sizes is None:
        anchor_sizes = [32 * 2**i for i in range(len(names) + 1)]
    sizes = tuple(tuple(s) if isinstance(s, Sequence) else (s,) for s in anchor_sizes)
    return {
        "rpn_anchor_generator": AnchorGenerator(sizes, (tuple(aspect_ratios),) * len(sizes)),
        "box_roi_pool": MultiScaleRoIAlign(names, 7, sampling_ratio=2),
    }


def box_options(
    backbone: BackboneWithFPN,
    num_classes: int,
    representation_size: int,
    anchor_sizes: Sequence[int | Sequence[int]] | None,
    aspect_ratios: Sequence[float],
) -> dict[str, Any]:
    """Return what a network of :class:`FasterRCNN` needs for a pyramid and a head of any width."""
    return {
        **pyramid_options(backbone, anchor_sizes, aspect_ratios),
        "box_head": TwoMLPHead(backbone.out_channels * 7 * 7, representation_size),
        "box_predictor": FastRCNNPredictor(representation_size, num_classes),
    }


@register_model(rename=current_name, finish=without_eps)
def fasterrcnn_resnet50_fpn(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN over a ResNet-50 with a feature pyramid."""
    backbone = fpn_for(
        "resnet50",
        pretrained_backbone=pretrained_backbone,
        weights_backbone=weights_backbone,
        trained=trained,
        trainable_layers=trainable_backbone_layers,
        progress=progress,
    )
    return FasterRCNN(backbone, num_classes, **kwargs)


def _mobile(
    num_classes: int,
    pretrained_backbone: bool,
    weights_backbone: str | Path | None,
    trainable_backbone_layers: int | None,
    trained: bool,
    progress: bool,
    kwargs: dict[str, Any],
) -> FasterRCNN:
    """Build the network over MobileNet V3 large; two of its maps are taken, both of stride 32."""
    weights = chosen_weights(
        pretrained_backbone, weights_backbone, trained=trained, default=IMAGENET_V1
    )
    loaded = trained or weights is not None
    backbone = mobilenet_backbone(
        "mobilenet_v3_large",
        weights=weights,
        loaded=loaded,
        progress=progress,
        trainable_layers=chosen_layers(trainable_backbone_layers, loaded=loaded, most=6, default=3),
    )
    anchors = AnchorGenerator(((32, 64, 128, 256, 512),) * 3, (RATIOS,) * 3)
    options = {"rpn_anchor_generator": anchors, "rpn_score_thresh": 0.05}
    return FasterRCNN(backbone, num_classes, **{**options, **kwargs})


@register_model(rename=current_name)
def fasterrcnn_mobilenet_v3_large_fpn(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN over a MobileNet V3 large with a feature pyramid."""
    return _mobile(
        num_classes,
        pretrained_backbone,
        weights_backbone,
        trainable_backbone_layers,
        trained,
        progress,
        kwargs,
    )


@register_model(rename=current_name)
def fasterrcnn_mobilenet_v3_large_320_fpn(
    *,
    num_classes: int = 91,
    pretrained_backbone: bool = True,
    weights_backbone: str | Path | None = IMAGENET_V1,
    trainable_backbone_layers: int | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN over a MobileNet V3 large, for images of 320 pixels and little time."""
    small = {
        "min_size": 320,
        "max_size": 640,
        "rpn_pre_nms_top_n_test": 150,
        "rpn_post_nms_top_n_test": 150,
    }
    return _mobile(
        num_classes,
        pretrained_backbone,
        weights_backbone,
        trainable_backbone_layers,
        trained,
        progress,
        {**small, **kwargs},
    )


@register_model(rename=current_name)
def faster_rcnn(
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
    anchor_sizes: Sequence[int | Sequence[int]] | None = None,
    aspect_ratios: Sequence[float] = RATIOS,
    norm_layer: NormLayer | None = None,
    trained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN over any classifier of the zoo with a feature pyramid.

    Nothing is loaded unless ``weights_backbone`` names weights or a file, or
    ``pretrained_backbone`` asks for the best published ones. The other arguments are those of
    :func:`~lightning_zoo.models.detection.backbones.fpn_backbone` and of the network.
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
    return FasterRCNN(pyramid, **{**options, **kwargs})
