from lightning_zoo.metrics.accuracy import TopKAccuracy
from lightning_zoo.metrics.coco import CocoMetric, encode_masks, format_table
from lightning_zoo.metrics.mean import NamedMeans, SampleMean

__all__ = [
    "CocoMetric",
    "NamedMeans",
    "SampleMean",
    "TopKAccuracy",
    "encode_masks",
    "format_table",
]
