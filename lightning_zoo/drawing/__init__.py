"""All pictures are drawn here: images with what was predicted and what is true, and their grids."""

from lightning_zoo.drawing.batch import batch_tiles
from lightning_zoo.drawing.detection import detection_tile, draw_objects
from lightning_zoo.drawing.grid import Tile, draw_grid, draw_tile
from lightning_zoo.drawing.segmentation import overlay, palette, segmentation_tile
from lightning_zoo.drawing.video import contact_sheet, video_tile

__all__ = [
    "Tile",
    "batch_tiles",
    "contact_sheet",
    "detection_tile",
    "draw_grid",
    "draw_objects",
    "draw_tile",
    "overlay",
    "palette",
    "segmentation_tile",
    "video_tile",
]
