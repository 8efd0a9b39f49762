"""Small modules that two or more families share."""

from lightning_zoo.layers.basic_conv import BasicConv2d
from lightning_zoo.layers.conv_norm import conv_norm
from lightning_zoo.layers.conv_norm_act import ConvNormAct
from lightning_zoo.layers.fpn import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from lightning_zoo.layers.frozen_batch_norm import FrozenBatchNorm2d
from lightning_zoo.layers.imagenet_input import imagenet_to_half_range
from lightning_zoo.layers.init import init_mobile_, truncated_normal_
from lightning_zoo.layers.memory_format import channels_last_on_cpu
from lightning_zoo.layers.multiscale_roi_align import MultiScaleRoIAlign
from lightning_zoo.layers.rounding import make_divisible
from lightning_zoo.layers.squeeze_excitation import SqueezeExcitation

__all__ = [
    "BasicConv2d",
    "ConvNormAct",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "MultiScaleRoIAlign",
    "SqueezeExcitation",
    "channels_last_on_cpu",
    "conv_norm",
    "imagenet_to_half_range",
    "init_mobile_",
    "make_divisible",
    "truncated_normal_",
]
