from lightning_zoo.tasks.base import Task
from lightning_zoo.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask", "Task"]
