from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_zoo.errors import ZooError
from lightning_zoo.ops import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    generalized_box_iou,
    masks_to_boxes,
    remove_small_boxes,
)

A = torch.tensor([[0.0, 0, 4, 2], [1, 1, 3, 3]])
B = torch.tensor([[2.0, 0, 4, 2], [10, 10, 11, 12], [0, 0, 4, 2]])


def test_by_hand() -> None:
    assert box_area(A).tolist() == [8, 4]
    torch.testing.assert_close(box_iou(A, B), torch.tensor([[0.5, 0, 1], [1 / 7, 0, 0.2]]))
    giou = generalized_box_iou(A[:1], B)
    # hull of the first pair is box A itself; the second's is 11 x 12 with 122 outside both
    torch.testing.assert_close(giou, torch.tensor([[0.5, -122 / 132, 1.0]]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000))
def test_slow_formula_and_symmetry(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, 9, (3, 4), generator=g).double() for _ in range(2))
    for boxes in (a, b):
        boxes[:, 2:] += boxes[:, :2] + 1
    iou = box_iou(a, b)
    for i, p in enumerate(a.tolist()):
        for j, q in enumerate(b.tolist()):
            cells_p = {
                (x, y) for x in range(int(p[0]), int(p[2])) for y in range(int(p[1]), int(p[3]))
            }
            cells_q = {
                (x, y) for x in range(int(q[0]), int(q[2])) for y in range(int(q[1]), int(q[3]))
            }
            assert iou[i, j].item() == pytest.approx(
                len(cells_p & cells_q) / len(cells_p | cells_q)
            )
    assert torch.equal(iou, box_iou(b, a).T)
    giou = generalized_box_iou(a, b)
    assert ((giou <= iou) & (giou > -1)).all()
    shifted = generalized_box_iou(a + 5, b + 5)
    torch.testing.assert_close(giou, shifted)


def test_convert_there_and_back() -> None:
    assert box_convert(A[1:], "xyxy", "xywh").tolist() == [[1, 1, 2, 2]]
    assert box_convert(A[:1], "xyxy", "cxcywh").tolist() == [[2, 1, 4, 2]]
    for fmt in ("xyxy", "xywh", "cxcywh"):
        for other in ("xyxy", "xywh", "cxcywh"):
            boxes = box_convert(A, "xyxy", fmt)
            assert torch.equal(box_convert(box_convert(boxes, fmt, other), other, fmt), boxes)
    with pytest.raises(ZooError, match="unknown out_fmt 'xyhw'"):
        box_convert(A, "xyxy", "xyhw")


def test_half_precision_does_not_overflow() -> None:
    boxes = torch.tensor([[0, 0, 1000, 1000.0]]).half()
    assert box_area(boxes).tolist() == [1e6]
    assert box_iou(boxes, boxes).tolist() == [[1]]


def test_clip_and_small() -> None:
    boxes = torch.tensor([[-5.0, -1, 30, 8], [2, 2, 2.5, 9], [40, 40, 50, 50]])
    clipped = clip_boxes_to_image(boxes, (10, 20))
    assert clipped.tolist() == [[0, 0, 20, 8], [2, 2, 2.5, 9], [20, 10, 20, 10]]
    assert remove_small_boxes(clipped, 0.5).tolist() == [0, 1]
    assert remove_small_boxes(clipped, 0.6).tolist() == [0]


def test_masks() -> None:
    masks = torch.zeros(2, 6, 8, dtype=torch.uint8)
    masks[0, 1:4, 2:7] = 1
    masks[1, 5, 0] = 1
    assert masks_to_boxes(masks).tolist() == [[2, 1, 6, 3], [0, 5, 0, 5]]
    with pytest.raises(ZooError, match=r"masks\[1\] has no pixel"):
        masks_to_boxes(masks * torch.tensor([1, 0])[:, None, None])


def test_empty() -> None:
    none = torch.zeros(0, 4)
    assert box_area(none).shape == (0,)
    assert box_iou(none, B).shape == generalized_box_iou(none, B).shape == (0, 3)
    assert clip_boxes_to_image(none, (5, 5)).shape == (0, 4)
    assert remove_small_boxes(none, 1).shape == (0,)
    assert masks_to_boxes(torch.zeros(0, 5, 5)).shape == (0, 4)
