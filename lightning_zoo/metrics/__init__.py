from lightning_zoo.metrics.accuracy import TopKAccuracy
from lightning_zoo.metrics.coco import CocoMetric, encode_masks, format_table
from lightning_zoo.metrics.confusion import ConfusionMatrix
from lightning_zoo.metrics.mean import NamedMeans, SampleMean
from lightning_zoo.metrics.video import VideoAccuracy

__all__ = [
    "CocoMetric",
    "ConfusionMatrix",
    "NamedMeans",
    "SampleMean",
    "TopKAccuracy",
    "VideoAccuracy",
    "encode_masks",
    "format_table",
]
