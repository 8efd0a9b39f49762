"""Reading one's own data: the format is recognised by looking, and one index stands behind all.

coco.py yolo.py voc.py            objects: boxes, masks, keypoints
class_folders.py csv_table.py     labels of images
mask_folders.py                   a class at each pixel
video_folders.py video_csv.py     labels of videos
recognise.py splits.py convert.py which format it is; splits where there are none; writing another
mask_instances.py                 objects from masks of classes

A format's module has ``recognise(root, annotations)`` and ``read(root, options)``, see
:class:`lightning_zoo.formats.recognise.Format`.
"""

from __future__ import annotations

from lightning_zoo.formats.index import DataIndex, Item, MaskCoding, Object, Problem
from lightning_zoo.formats.recognise import FORMATS, Options, read_data

__all__ = ["FORMATS", "DataIndex", "Item", "MaskCoding", "Object", "Options", "Problem",
           "read_data"]  # fmt: skip
