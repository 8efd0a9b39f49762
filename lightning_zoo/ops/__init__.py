"""Functions on tensors that detectors are made of; they import torch and numpy alone."""

from __future__ import annotations

from lightning_zoo.ops.anchors import (
    cell_anchors,
    default_box_sizes,
    default_boxes,
    grid_anchors,
)
from lightning_zoo.ops.box_coder import decode_boxes, encode_boxes
from lightning_zoo.ops.boxes import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    generalized_box_iou,
    masks_to_boxes,
    remove_small_boxes,
)
from lightning_zoo.ops.focal_loss import sigmoid_focal_loss
from lightning_zoo.ops.keypoints import decode_heatmaps, keypoint_bins
from lightning_zoo.ops.mask_paste import paste_masks
from lightning_zoo.ops.matcher import match, match_ssd
from lightning_zoo.ops.nms import batched_nms, nms
from lightning_zoo.ops.roi_align import multiscale_roi_align, roi_align
from lightning_zoo.ops.sampler import sample_balanced

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "cell_anchors",
    "clip_boxes_to_image",
    "decode_boxes",
    "decode_heatmaps",
    "default_box_sizes",
    "default_boxes",
    "encode_boxes",
    "generalized_box_iou",
    "grid_anchors",
    "keypoint_bins",
    "masks_to_boxes",
    "match",
    "match_ssd",
    "multiscale_roi_align",
    "nms",
    "paste_masks",
    "remove_small_boxes",
    "roi_align",
    "sample_balanced",
    "sigmoid_focal_loss",
]
