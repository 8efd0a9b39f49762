from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_zoo.ops import decode_heatmaps, keypoint_bins, paste_masks


def test_bins_by_hand() -> None:
    boxes = torch.tensor([[10.0, 20, 66, 76]])  # a cell is one pixel
    points = torch.tensor(
        [[[10.0, 20, 2], [12.9, 21.5, 1], [66, 76, 2], [66.1, 30, 2], [9.9, 30, 2], [30, 30, 0]]]
    )
    bins, valid = keypoint_bins(points, boxes)
    assert valid.tolist() == [[True, True, True, False, False, False]]
    assert bins.tolist() == [[0, 1 * 56 + 2, 56 * 56 - 1, 0, 0, 0]]
    assert keypoint_bins(torch.zeros(0, 17, 3), torch.zeros(0, 4))[0].shape == (0, 17)


def test_heat_maps_are_read_where_they_were_written() -> None:
    boxes = torch.tensor([[10.0, 20, 122, 76], [3, 4, 31.5, 90]])
    g = torch.Generator().manual_seed(0)
    points = torch.rand(2, 5, 3, generator=g) * (boxes[:, None, 2:] - boxes[:, None, :2]).repeat(
        1, 1, 2
    )[..., :3] + torch.cat([boxes[:, None, :2], boxes[:, None, :1]], dim=2)
    bins, valid = keypoint_bins(points, boxes)
    assert valid.all()
    maps = F.one_hot(bins, 56 * 56).view(2, 5, 56, 56).float() * 8
    found, scores = decode_heatmaps(maps, boxes)
    cell = (boxes[:, 2:] - boxes[:, :2]) / 56
    assert ((found[..., :2] - points[..., :2]).abs() <= cell[:, None] + 0.5).all()
    assert (found[..., 2] == 1).all()
    assert (scores > 1).all()


def test_decoding_of_degenerate_and_no_boxes() -> None:
    maps = torch.randn(1, 2, 56, 56)
    found, _ = decode_heatmaps(maps, torch.tensor([[5.0, 6, 5, 6]]))
    assert found[0, :, :2].tolist() == [[5.5, 6.5]] * 2
    found, scores = decode_heatmaps(maps[:0], torch.zeros(0, 4))
    assert found.shape == (0, 2, 3)
    assert scores.shape == (0, 2)
    torch.library.opcheck(
        torch.ops.lightning_zoo.decode_heatmaps.default, (maps, torch.tensor([[5.0, 6, 50, 40]]))
    )


def slow_paste(mask: Tensor, box: list[float], height: int, width: int) -> Tensor:
    """Return one pasted mask, pixel by pixel."""
    side = len(mask)
    padded = torch.zeros(side + 2, side + 2)
    padded[1:-1, 1:-1] = mask
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    grow = (side + 2) / side / 2
    half_w, half_h = (box[2] - box[0]) * grow, (box[3] - box[1]) * grow
    x1, y1, x2, y2 = (int(v) for v in (cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    out = torch.zeros(height, width)
    for y in range(max(y1, 0), min(y1 + h, height)):
        for x in range(max(x1, 0), min(x1 + w, width)):
            v = max((y - y1 + 0.5) * (side + 2) / h - 0.5, 0.0)
            u = max((x - x1 + 0.5) * (side + 2) / w - 0.5, 0.0)
            i, j = int(v), int(u)
            rows = padded[[i, min(i + 1, side + 1)]][:, [j, min(j + 1, side + 1)]]
            b, a = torch.tensor([1 - (v - i), v - i]), torch.tensor([1 - (u - j), u - j])
            out[y, x] = b @ rows @ a
    return out


def test_pasting_by_the_slow_formula() -> None:
    g = torch.Generator().manual_seed(0)
    boxes = [[5.3, 4.1, 30.2, 20.7], [-6, -3, 10, 9], [20, 10, 70, 60], [8, 8, 8, 8]]
    masks = torch.rand(4, 1, 6, 6, generator=g)
    out = paste_masks(masks, torch.tensor(boxes), (25, 40))
    assert out.shape == (4, 1, 25, 40)
    for i, box in enumerate(boxes):
        torch.testing.assert_close(out[i, 0], slow_paste(masks[i, 0], box, 25, 40))
    assert torch.equal(out, paste_masks(masks[:, 0], torch.tensor(boxes), (25, 40)))


def test_pasting_of_a_full_mask_covers_its_box() -> None:
    out = paste_masks(torch.ones(1, 28, 28), torch.tensor([[10.0, 10, 37, 37]]), (50, 50))
    assert out[0, 0, 11:37, 11:37].min() > 0.999
    assert out[0, 0, :9].max() == 0
    outside = paste_masks(torch.ones(1, 28, 28), torch.tensor([[90.0, 90, 99, 99]]), (50, 50))
    assert outside.max() == 0
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 1, 5, 6)
    torch.library.opcheck(
        torch.ops.lightning_zoo.paste_masks.default,
        (torch.rand(2, 1, 28, 28), torch.tensor([[1.0, 1, 20, 20], [0, 0, 9, 5]]), 30, 40, 1),
    )
