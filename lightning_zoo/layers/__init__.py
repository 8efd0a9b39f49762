"""Small modules that two or more families share."""

from lightning_zoo.layers.basic_conv import BasicConv2d
from lightning_zoo.layers.conv_norm_act import ConvNormAct
from lightning_zoo.layers.imagenet_input import imagenet_to_half_range
from lightning_zoo.layers.init import init_mobile_, truncated_normal_
from lightning_zoo.layers.rounding import make_divisible
from lightning_zoo.layers.squeeze_excitation import SqueezeExcitation

__all__ = [
    "BasicConv2d",
    "ConvNormAct",
    "SqueezeExcitation",
    "imagenet_to_half_range",
    "init_mobile_",
    "make_divisible",
    "truncated_normal_",
]
