from lightning_zoo.tasks.base import Task
from lightning_zoo.tasks.classification import ClassificationTask
from lightning_zoo.tasks.detection import DetectionTask
from lightning_zoo.tasks.keypoint import KeypointTask

__all__ = ["ClassificationTask", "DetectionTask", "KeypointTask", "Task"]
