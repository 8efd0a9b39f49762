from __future__ import annotations

import pytest
import torch

from lightning_zoo.ops import cell_anchors, default_box_sizes, default_boxes, grid_anchors


def test_cells_are_those_of_the_published_models() -> None:
    expected = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert cell_anchors((32,), (0.5, 1.0, 2.0)).tolist() == expected
    two = cell_anchors((32, 64), (1.0, 2.0))
    assert two[:2].tolist() == [[-16, -16, 16, 16], [-32, -32, 32, 32]]  # sizes within a ratio
    assert cell_anchors((5,), (1.0,)).tolist() == [[-2, -2, 2, 2]]  # 2.5 to the even neighbour


def test_grid_runs_by_row_column_cell() -> None:
    cells = torch.tensor([[-1.0, -1, 1, 1], [-2, -2, 2, 2]])
    (level, last) = grid_anchors([(2, 3), (1, 1)], [(10, 20), (64, 64)], [cells, cells[:1]])
    assert level.shape == (12, 4)
    assert level[0].tolist() == [-1, -1, 1, 1]
    assert level[1].tolist() == [-2, -2, 2, 2]
    assert level[2].tolist() == [19, -1, 21, 1]
    assert level[6].tolist() == [-1, 9, 1, 11]
    assert last.tolist() == [[-1, -1, 1, 1]]


SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
GRIDS = [(n, n) for n in (38, 19, 10, 5, 3, 1)]
STEPS = [8, 16, 32, 64, 100, 300]


def test_default_boxes_of_ssd300() -> None:
    sizes = default_box_sizes(SCALES, RATIOS)
    assert [len(s) for s in sizes] == [4, 6, 6, 6, 4, 4]
    expected = [[0.07, 0.07], [0.1025, 0.1025], [0.0990, 0.0495], [0.0495, 0.0990]]
    torch.testing.assert_close(sizes[0], torch.tensor(expected), rtol=0, atol=5e-5)
    boxes = default_boxes(GRIDS, (300, 300), sizes, steps=STEPS)
    assert boxes.shape == (8732, 4)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(centers[0], torch.tensor([4.0, 4.0]))
    torch.testing.assert_close(centers[4], torch.tensor([12.0, 4.0]))
    torch.testing.assert_close(centers[-1], torch.tensor([150.0, 150.0]))
    width = boxes[:, 2] - boxes[:, 0]
    assert width.max().item() == pytest.approx(300)  # clipped, though scale 1.05 is larger


def test_grid_without_steps_spreads_evenly() -> None:
    sizes = default_box_sizes([0.5, 0.9], [[]])
    boxes = default_boxes([(1, 2)], (100, 200), sizes)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert centers[0].tolist() == [50, 50]
    assert centers[2].tolist() == [150, 50]
    assert (boxes[0, 2:] - boxes[0, :2]).tolist() == [100, 50]
    wide = default_boxes([(1, 1)], (100, 100), default_box_sizes([1.5, 2.0], [[]]), clip=False)
    assert wide[0].tolist() == [-25, -25, 125, 125]
