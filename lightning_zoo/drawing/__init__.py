"""All pictures are drawn here: grids of images with what was predicted and what is true."""

from lightning_zoo.drawing.grid import Tile, draw_grid, draw_tile

__all__ = ["Tile", "draw_grid", "draw_tile"]
