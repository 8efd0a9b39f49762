"""Contact sheets: which frames, where they stand, what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_zoo.drawing import batch_tiles, contact_sheet, draw_grid, draw_tile, video_tile
from lightning_zoo.drawing.video import SHEET_WIDTH

NAMES = ["archery", "bowling"]


def counting(frames: int, height: int = 160, width: int = 160) -> NDArray[np.uint8]:
    """Return frames of which each has its number as its colour."""
    numbers = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(numbers, (frames, height, width, 3)).copy()


def numbers(sheet: NDArray[np.uint8], frame: int = 160) -> list[list[int]]:
    """Return the colour at the middle of each place of a sheet of frames 160 pixels wide."""
    return sheet[frame // 2 :: frame + 2, 80::162, 0].tolist()


def test_sixteen_frames() -> None:
    sheet = contact_sheet(counting(16))
    assert sheet.shape == (322, SHEET_WIDTH, 3)
    assert numbers(sheet) == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert sheet[:, 160:162].min() == sheet[160:162].min() == 255, "gaps are white"


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        (1, 8, [[0, 255, 255, 255]]),
        (3, 8, [[0, 1, 2, 255]]),
        (5, 8, [[0, 1, 2, 3], [4, 255, 255, 255]]),
        (100, 4, [[0, 25, 50, 75]]),
        (10, 3, [[0, 3, 6, 255]]),
    ],
)
def test_fewer_and_more(frames: int, count: int, expected: list[list[int]]) -> None:
    assert numbers(contact_sheet(counting(frames), count)) == expected


@pytest.mark.parametrize("size", [(112, 112), (480, 854), (854, 480), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    sheet = contact_sheet(counting(16, *size))
    assert sheet.shape[1] == SHEET_WIDTH
    height = round(size[0] * 160 / size[1])
    assert sheet.shape[0] == 2 * height + 2
    assert numbers(sheet, height) == [[0, 2, 4, 6], [8, 10, 12, 14]]


def test_tile() -> None:
    right = video_tile(counting(16), [0.2, 0.8], NAMES, [1])
    assert right.lines == ["bowling 80 %", "truth: bowling"]
    assert right.right is True
    assert right.wide
    wrong = video_tile(counting(16), [0.2, 0.8], NAMES, [0])
    assert wrong.lines == ["bowling 80 %", "truth: archery"]
    assert wrong.right is False
    unknown = video_tile(counting(16), [0.2, 0.8], NAMES)
    assert unknown.lines == ["bowling 80 %", "archery 20 %"]
    assert unknown.right is None
    assert draw_tile(right).width == SHEET_WIDTH
    assert draw_grid([right, wrong, unknown]).width == 3 * SHEET_WIDTH + 24


def test_a_batch_of_clips() -> None:
    clips = torch.from_numpy(np.stack([counting(16), counting(16)[::-1]])).permute(0, 4, 1, 2, 3)
    batch = {"video": clips, "label": torch.tensor([0, 0]), "id": ["a", "b"]}
    probs = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    tiles = batch_tiles(batch, [{"probs": probs}], NAMES)
    assert [tile.right for tile in tiles] == [True, False]
    assert [tile.lines[0] for tile in tiles] == ["archery 90 %", "bowling 70 %"]
    assert numbers(tiles[1].image)[0] == [15, 13, 11, 9]
    parts = batch_tiles(batch, [{"probs": probs[:1]}, {"probs": probs[1:]}], NAMES)
    for one, other in zip(tiles, parts, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
