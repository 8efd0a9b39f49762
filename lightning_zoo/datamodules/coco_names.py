"""COCO's 80 categories of objects by their ids, which run from 1 to 90 with gaps."""

from __future__ import annotations

from lightning_zoo.models.registry import class_names

BACKGROUND = "__background__"
NO_CATEGORY = "N/A"  # the name of a label that stands for no category
COCO_LABELS = len(class_names("coco"))  # background, and ids up to 90
COCO_CATEGORIES = {
    number: name
    for number, name in enumerate(class_names("coco"))
    if name not in (BACKGROUND, NO_CATEGORY)
}
