from lightning_zoo.metrics.accuracy import TopKAccuracy
from lightning_zoo.metrics.mean import SampleMean

__all__ = ["SampleMean", "TopKAccuracy"]
