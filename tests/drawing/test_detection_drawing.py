"""Objects in pictures: where the pixels of boxes, masks, names and bones are, and odd input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lightning_zoo.drawing import detection_tile, draw_grid, draw_objects, draw_tile
from lightning_zoo.drawing.detection import (
    HUES,
    LEFT,
    MIDDLE,
    MOST_OBJECTS,
    MOST_PIXELS,
    RIGHT_SIDE,
    TILE_WIDTH,
    label_colour,
)
from lightning_zoo.drawing.grid import get_font
from lightning_zoo.keypoints import COCO_PERSON, Skeleton

GREY = 128
NAMES = ["", "cat", "dog", "bird", "horse"]
Picture = NDArray[np.uint8]


def plain(height: int = 300, width: int = 400) -> Picture:
    return np.full((height, width, 3), GREY, np.uint8)


def where(picture: Picture, colour: Any) -> NDArray[np.bool_]:
    return (np.abs(picture.astype(int) - np.array(colour)) <= 1).all(axis=2)


def around(found: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the smallest box around what is found: x1, y1, x2, y2, the last ones included."""
    ys, xs = np.nonzero(found)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def test_box_and_name() -> None:
    """The line lies inside the box's edge; the plate stands on it."""
    picture = draw_objects(plain(), [[100, 120, 200, 250]], [1], NAMES, scores=[0.934])
    assert picture.shape == (300, 400, 3)
    assert picture.dtype == np.uint8
    colour = label_colour(1)
    found = where(picture, colour)
    line = 2
    for rows, columns in (
        (slice(120, 120 + line), slice(100, 200)),
        (slice(250 - line, 250), slice(100, 200)),
        (slice(120, 250), slice(100, 100 + line)),
        (slice(120, 250), slice(200 - line, 200)),
    ):
        assert found[rows, columns].all()
    inside = picture[120 + line : 250 - line, 100 + line : 200 - line]
    assert (inside == GREY).all(), "nothing but the line"
    left, top, right, bottom = around(found[:119])
    width = math.ceil(get_font(12).getlength("cat 93 %")) + 6
    assert (left, right) == (100, 100 + width - 1)
    assert bottom - top == pytest.approx(16, abs=2)
    assert bottom in (118, 119), "above the box, touching it"
    ink = where(picture, (17, 24, 39))[top : bottom + 1, left : right + 1]
    assert ink.any(), "dark letters on a bright plate"
    outside = picture.copy()
    outside[top : bottom + 2, left - 1 : right + 2] = GREY
    outside[119:251, 99:201] = GREY
    assert (outside == GREY).all(), "nothing elsewhere"


def test_colours_are_stable_and_distinct() -> None:
    assert [label_colour(i) for i in range(1, 8)] == list(HUES)
    colours = [label_colour(i) for i in range(1, 29)]
    assert len(set(colours)) == 28
    gaps = [
        sum(abs(a - b) for a, b in zip(one, other, strict=True))
        for i, one in enumerate(colours)
        for other in colours[:i]
    ]
    assert min(gaps) >= 40
    assert label_colour(29) == label_colour(1)
    assert label_colour(0) == label_colour(1)


def forms_of_a_mask() -> dict[str, Any]:
    mask = np.zeros((300, 400), np.uint8)
    mask[100:200, 50:150] = 1
    rle = dict(coco_mask.encode(np.asfortranarray(mask)))
    floats = torch.from_numpy(mask)[None, None].float()
    return {
        "probabilities": floats * 0.501,
        "bfloat16": floats.bfloat16(),
        "uint8": torch.from_numpy(mask)[None],
        "numpy": mask[None],
        "bool": mask[None] > 0,
        "rle": [rle],
        "rle as text": [{**rle, "counts": rle["counts"].decode()}],
        "half the size": mask[None, ::2, ::2],
    }


@pytest.mark.parametrize("form", forms_of_a_mask())
def test_masks(form: str) -> None:
    masks = forms_of_a_mask()[form]
    picture = draw_objects(plain(), [[50, 100, 150, 200]], [2], NAMES, masks=masks)
    inside = picture[105:195, 55:145].astype(int)
    colour = np.array(label_colour(2))
    expected = GREY + (colour - GREY) * 0.42
    assert np.abs(inside - expected).max() <= 1, "the image shines through"
    assert (picture[202:, :] == GREY).all()
    none = draw_objects(
        plain(), [[50, 100, 150, 200]], [2], NAMES, masks=torch.full((1, 1, 300, 400), 0.5)
    )
    assert (none[105:195, 55:145] == GREY).all(), "one half is not above one half"


def test_outline_of_a_mask() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[100:200, 50:150] = 1
    picture = draw_objects(plain(), [[20, 60, 300, 280]], [2], NAMES, masks=mask[None])
    colour = np.array(label_colour(2))
    outline = where(picture, colour + (255 - colour) * 0.3)
    assert around(outline) == (50, 100, 149, 199)
    assert outline.sum() == 100 * 100 - 96 * 96, "two pixels wide"


def test_small_objects_lie_on_large_ones() -> None:
    """Of two masks the smaller object's is on top, whichever scores better."""
    masks = np.zeros((2, 300, 400), np.uint8)
    masks[0, 20:280, 20:380], masks[1, 100:200, 100:200] = 1, 1
    boxes = [[20, 20, 380, 280], [100, 100, 200, 200]]
    for scores in ([0.9, 0.6], [0.6, 0.9]):
        picture = draw_objects(plain(), boxes, [1, 3], NAMES, scores=scores, masks=masks)
        assert where(picture, label_colour(3))[100:200, 100].all(), "its box is whole"
        below = GREY + (np.array(label_colour(1)) - GREY) * 0.42
        mixed = below + (np.array(label_colour(3)) - below) * 0.42
        assert np.abs(picture[150, 150] - mixed).max() <= 2


def test_names_stay_inside_and_hide_nothing_small() -> None:
    """Boxes in every corner, and a small one: all plates are in the picture, the object is free."""
    corners = [[0, 0, 60, 40], [340, 0, 400, 40], [0, 260, 60, 300], [340, 260, 400, 300]]
    small = [190.0, 150, 202, 162]
    boxes = [*corners, small]
    scores = [0.9] * 5
    picture = draw_objects(plain(), boxes, [1, 1, 1, 1, 2], NAMES, scores=scores)
    inside = picture[153:159, 193:199]
    assert (inside == GREY).all(), "the small object is to be seen"
    assert where(picture, label_colour(2))[:150].sum() > 200, "and has its name above"
    for x1, y1, x2, y2 in corners:
        near = where(picture, label_colour(1))[max(y1 - 20, 0) : y2 + 20, max(x1 - 40, 0) : x2 + 40]
        assert near.sum() > 2 * 2 * (60 + 40) + 300, "each has a plate"


def test_names_of_many_objects() -> None:
    """Names never lie on each other; among many objects, small ones of a class share one name."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 280, (60, 2))
    boxes = np.concatenate([corner, corner + 12], axis=1)
    picture = draw_objects(plain(), boxes, [1] * 60, NAMES, scores=rng.random(60))
    ink = where(picture, (17, 24, 39)).sum()
    alone = draw_objects(plain(), boxes[:1], [1], NAMES, scores=[0.5])
    assert 0 < ink < 3 * where(alone, (17, 24, 39)).sum()


def test_the_best_of_too_many() -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 300, (MOST_OBJECTS + 50, 2)) * [1, 0.8]
    boxes = np.concatenate([corner, corner + 30], axis=1)
    scores = np.linspace(1, 0, len(boxes))
    order = rng.permutation(len(boxes))
    labels = np.where(np.arange(len(boxes)) < MOST_OBJECTS, 1, 3)
    picture = draw_objects(plain(), boxes[order], labels[order], NAMES, scores=scores[order])
    assert where(picture, label_colour(1)).any()
    assert not where(picture, label_colour(3)).any()


def test_crowds_are_dashed_and_striped() -> None:
    mask = np.zeros((1, 300, 400), np.uint8)
    mask[0, 100:200, 100:300] = 1
    crowd = draw_objects(plain(), [[100, 100, 300, 200]], [2], NAMES, masks=mask, iscrowd=[1])
    box = draw_objects(plain(), [[100, 100, 300, 200]], [2], NAMES, masks=mask, iscrowd=[0])
    top = where(crowd, label_colour(2))[100, 100:300]
    assert 0.3 < top.mean() < 0.7
    assert where(box, label_colour(2))[100, 100:300].all()
    striped = (crowd[110:190, 110:290] == GREY).all(axis=2)
    assert 0.5 < striped.mean() < 0.8
    assert not (box[110:190, 110:290] == GREY).all(axis=2).any()


TWO_BONES = Skeleton(
    names=("nose", "left_hand", "right_hand"),
    flip_pairs=((1, 2),),
    bones=((0, 1), (0, 2)),
    sigmas=(0.05,) * 3,
)


def test_skeleton() -> None:
    points = np.array([[[200.0, 60, 2], [300, 200, 1], [100, 200, 2]]])
    picture = draw_objects(
        plain(), [[90, 50, 310, 210]], [4], NAMES, keypoints=points, skeleton=TWO_BONES
    )
    for (x, y), colour in (
        ((200, 60), MIDDLE),
        ((300, 200), LEFT),
        ((100, 200), RIGHT_SIDE),
        ((250, 130), LEFT),
        ((150, 130), RIGHT_SIDE),
    ):
        assert where(picture[y - 1 : y + 1, x - 1 : x + 1], colour).any(), (x, y)
    points[0, 1, 2] = 0
    hidden = draw_objects(
        plain(), [[90, 50, 310, 210]], [4], NAMES, keypoints=points, skeleton=TWO_BONES
    )
    assert not where(hidden, LEFT).any(), "neither the point nor the bone to it"
    assert where(hidden, RIGHT_SIDE).any()
    bare = draw_objects(plain(), [[90, 50, 310, 210]], [4], NAMES, keypoints=points)
    assert (bare[128:132, 140:160] == GREY).all(), "no bones without a skeleton"


def test_keypoints_off_the_image() -> None:
    points = np.zeros((2, 17, 3))
    points[0] = [900, 900, 1]
    points[1] = [np.nan, 5, 1]
    boxes = [[10, 10, 90, 90], [100, 100, 150, 150]]
    draw_objects(plain(), boxes, [1, 1], NAMES, keypoints=points, skeleton=COCO_PERSON)


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (1, 1), (3, 300), (300, 3), (40, 30), (1200, 900)]
)
def test_sizes(height: int, width: int) -> None:
    boxes = [[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]]
    picture = draw_objects(plain(height, width), boxes, [1, 2], NAMES, scores=[0.9, 0.8])
    assert picture.shape == (height, width, 3)
    assert where(picture, label_colour(2)).any()
    tile = detection_tile(
        plain(height, width), {"boxes": boxes, "labels": [1, 2], "scores": [0.9, 0.8]}, NAMES, None
    )
    assert tile.image.shape[1] == TILE_WIDTH
    assert tile.image.shape[0] <= TILE_WIDTH


def test_huge_images_are_reduced() -> None:
    picture = draw_objects(
        np.zeros((2000, 4096, 3), np.uint8),
        [[1000, 500, 3000, 1500]],
        [1],
        NAMES,
        masks=np.ones((1, 200, 409), np.uint8),
    )
    assert picture.shape == (1000, MOST_PIXELS, 3)
    found = where(picture, label_colour(1))
    assert found[250, 500:1500].all()
    assert found[250:750, 500].all()


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1)])
def test_grey_images(shape: tuple[int, ...]) -> None:
    picture = draw_objects(np.full(shape, GREY, np.uint8), [[10, 30, 50, 55]], [1], NAMES)
    assert picture.shape == (60, 80, 3)
    assert where(picture, label_colour(1)).any()


def test_the_image_itself_is_left_alone() -> None:
    image = plain()
    image.flags.writeable = False
    assert (draw_objects(image, np.zeros((0, 4)), [], NAMES) == image).all()
    draw_objects(image, [[1, 1, 9, 9]], [1], NAMES, masks=np.ones((1, 300, 400)))
    assert (image == GREY).all()


@pytest.mark.parametrize(
    "box",
    [
        [np.nan, 0, 50, 50],
        [0, 0, np.inf, 50],
    ],
)
def test_boxes_that_are_no_numbers(box: list[float]) -> None:
    picture = draw_objects(plain(), [box], [1], NAMES, scores=[0.9])
    assert (picture == GREY).all()


@pytest.mark.parametrize(
    "box", [[-50, -50, 900, 900], [500, 500, 600, 600], [50, 50, 50, 50], [60, 60, 40, 40]]
)
def test_boxes_outside_and_without_area(box: list[float]) -> None:
    assert where(draw_objects(plain(), [box], [1], NAMES), label_colour(1)).any()


@pytest.mark.parametrize(
    "name", ["", "größe 猫 🐈", "a\nb", "a very long name of a class that nobody reads " * 4]
)
def test_names(name: str) -> None:
    picture = draw_objects(plain(), [[100, 100, 200, 200]], [1], {1: name}, scores=[0.5])
    left, _, right, _ = around(where(picture, label_colour(1)))
    assert right - left < 260, "long names are shortened"


def test_labels_without_a_name() -> None:
    for names in (NAMES, {1: "cat"}):
        draw_objects(plain(), [[100, 100, 200, 200]], [77], names)


# --- tiles ---------------------------------------------------------------------------------------


def found() -> dict[str, Any]:
    return {
        "boxes": torch.tensor([[40.0, 30, 200, 150], [10, 10, 90, 90]]),
        "labels": torch.tensor([1, 3]),
        "scores": torch.tensor([0.8, 0.4]),
    }


def test_tile_beside_truth() -> None:
    truth = {
        "boxes": torch.tensor([[40.0, 30, 200, 150], [220, 40, 380, 280], [0, 0, 400, 300]]),
        "labels": torch.tensor([1, 2, 4]),
        "iscrowd": torch.tensor([0, 0, 1]),
    }
    tile = detection_tile(plain(), found(), NAMES, truth)
    assert list(tile.lines) == ["1 found, 2 true and 1 crowd"]
    assert tile.wide
    assert tile.right is None
    assert tile.image.shape == (360 + 21, TILE_WIDTH, 3)
    left, right = tile.image[:, :480], tile.image[:, 488:]
    assert where(left, label_colour(1)).any()
    assert where(right, label_colour(1)).any()
    for label in (2, 3, 4):
        assert not where(left, label_colour(label)).any(), "below the threshold, or not predicted"
    assert where(right, label_colour(2)).any()
    assert where(right, label_colour(4)).any()
    # the box at 40, 30 is at 1.2 times that, below the title
    assert where(left, label_colour(1))[21 + 36 : 21 + 180, 48].all()
    lower = detection_tile(plain(), found(), NAMES, truth, score_threshold=0.3)
    assert lower.lines[0].startswith("2 found")
    assert draw_grid([tile, lower]).width == 2 * TILE_WIDTH + 18


def test_tile_alone() -> None:
    tile = detection_tile(plain(), found(), NAMES, None)
    assert list(tile.lines) == ["1 found"]
    height = tile.image.shape[0]
    assert height == 640, "no higher than a screen"
    assert draw_tile(tile).size == (TILE_WIDTH, height + 27)


def test_tile_of_nothing() -> None:
    none = {name: value[:0] for name, value in found().items()}
    masks = torch.zeros(0, 1, 300, 400)
    truth = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": masks[:, 0]}
    tile = detection_tile(plain(), {**none, "masks": masks}, NAMES, truth)
    assert list(tile.lines) == ["0 found, 0 true"]
    assert (tile.image[21:, :480] == GREY).all()


def test_tile_of_unsure_keypoints() -> None:
    points = torch.tensor([[[200.0, 60, 1], [300, 200, 1], [100, 200, 1]]])
    prediction = {
        "boxes": torch.tensor([[90.0, 50, 310, 210]]),
        "labels": torch.tensor([4]),
        "scores": torch.tensor([0.9]),
        "keypoints": points,
        "keypoints_scores": torch.tensor([[5.0, -1.0, 3.0]]),
    }
    tile = detection_tile(plain(), prediction, NAMES, None, skeleton=TWO_BONES)
    assert where(tile.image, RIGHT_SIDE).any()
    assert not where(tile.image, LEFT).any()
    all_shown = detection_tile(
        plain(), prediction, NAMES, None, skeleton=TWO_BONES, keypoint_threshold=-2
    )
    assert where(all_shown.image, LEFT).any()
    assert (points[..., 2] == 1).all(), "the prediction is left alone"


def test_tile_with_masks_in_run_lengths() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[30:150, 40:200] = 1
    rle = dict(coco_mask.encode(np.asfortranarray(mask)))
    tile = detection_tile(plain(), {**found(), "masks": [rle, rle]}, NAMES, None)
    expected = GREY + (np.array(label_colour(1)) - GREY) * 0.42
    scale = 640 / 300
    left = (TILE_WIDTH - round(400 * scale)) // 2
    pixel = tile.image[round(90 * scale), left + round(120 * scale)]
    assert np.abs(pixel - expected).max() <= 1
