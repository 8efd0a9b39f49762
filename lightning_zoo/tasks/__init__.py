from lightning_zoo.tasks.base import Task
from lightning_zoo.tasks.classification import ClassificationTask
from lightning_zoo.tasks.detection import DetectionTask
from lightning_zoo.tasks.keypoint import KeypointTask
from lightning_zoo.tasks.quantization import QuantizationTask
from lightning_zoo.tasks.segmentation import SegmentationTask
from lightning_zoo.tasks.video import VideoTask

__all__ = [
    "ClassificationTask",
    "DetectionTask",
    "KeypointTask",
    "QuantizationTask",
    "SegmentationTask",
    "Task",
    "VideoTask",
]
