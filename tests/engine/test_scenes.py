"""The detection demos' pictures: masks fit their boxes, and a kite has a left and a right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_zoo.drawing.arrays import decode_mask
from lightning_zoo.engine.scenes import CLASSES, KITE, draw_scene, write_scenes
from lightning_zoo.keypoints import get_skeleton
from lightning_zoo.transforms.detection import HorizontalFlip, Sample

SIDE = 96
Points = NDArray[np.float64]


def content_of(root: Path, prefix: str, split: str = "val2017") -> dict[str, Any]:
    return json.loads((root / "annotations" / f"{prefix}_{split}.json").read_text())


@pytest.fixture(scope="module")
def kites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kites")
    write_scenes(root, train=2, val=30, side=SIDE, kites=True)
    return root


def test_layout(tmp_path: Path) -> None:
    write_scenes(tmp_path, train=5, val=12, side=SIDE)
    assert not (tmp_path / "kite.yaml").exists()
    for split, count in (("train2017", 5), ("val2017", 12)):
        content = content_of(tmp_path, "instances", split)
        assert [c["name"] for c in content["categories"]] == list(CLASSES)
        assert len(content["images"]) == len(list((tmp_path / split).iterdir())) == count
        ids = [a["id"] for a in content["annotations"]]
        assert ids == list(range(1, len(ids) + 1))
        for image in content["images"]:
            with Image.open(tmp_path / split / image["file_name"]) as picture:
                assert picture.size == (SIDE, SIDE)


def test_masks_fit_their_boxes(kites: Path) -> None:
    content = content_of(kites, "person_keypoints")
    assert len(content["annotations"]) > 30
    for one in content["annotations"]:
        mask = decode_mask([one["segmentation"]], 0)
        assert mask.shape == (SIDE, SIDE)
        ys, xs = np.nonzero(mask)
        x, y, width, height = one["bbox"]
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x, y, x + width, y + height)
        assert one["area"] == mask.sum() == len(xs)


def test_one_pixel_has_one_object() -> None:
    rng = np.random.default_rng(3)
    hidden = 0
    for _ in range(20):
        picture, objects, masks = draw_scene(rng, SIDE, kites=False)
        assert picture.size == (SIDE, SIDE)
        assert 1 <= len(objects) == len(masks)
        total = np.sum(masks, axis=0)
        assert total.max() == 1
        hidden += len(objects) > 1
    assert hidden > 5, "most scenes have several"


def test_the_same_seed_the_same_pictures(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_scenes(tmp_path / name, train=1, val=2, side=48, seed=seed)
    contents = [content_of(tmp_path / name, "instances") for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def is_kite(points: Points) -> bool:
    """Whether four points, tip, left wing, right wing, tail, are a kite as it is drawn.

    The wings stand at the same place of the spine, as far from it on either side; to somebody who
    looks towards the tip, and sees the picture from above, the left wing is on the left.
    """
    tip, left, right, tail = points
    spine = tip - tail
    to_right = np.array([-spine[1], spine[0]]) / np.linalg.norm(spine)  # y grows downwards
    sides = [float((p - tail) @ to_right) for p in (left, right)]
    heights = [float((p - tail) @ spine) for p in (left, right)]
    # the file has two digits behind the point
    even = abs(sides[0] + sides[1]) < 0.05 and abs(heights[0] - heights[1]) < 2
    return even and sides[0] < 0 < sides[1]


def test_a_mirrored_kite_is_a_kite(kites: Path) -> None:
    skeleton = get_skeleton(kites / "kite.yaml")
    assert skeleton.names == KITE
    assert skeleton.flip_pairs == ((1, 2),)
    assert len(skeleton.bones) == 5
    flip = HorizontalFlip(1.0, skeleton.flip_order)
    for one in content_of(kites, "person_keypoints")["annotations"]:
        keypoints = np.array(one["keypoints"], float).reshape(4, 3)
        assert one["num_keypoints"] == 4
        assert (keypoints[:, 2] == 2).all()
        assert is_kite(keypoints[:, :2])
        x, y, width, height = one["bbox"]
        sample = Sample(
            image=np.zeros((SIDE, SIDE, 3), np.uint8),
            boxes=np.array([[x, y, x + width, y + height]], float),
            labels=np.array([1]),
            area=np.array([one["area"]], float),
            iscrowd=np.array([0]),
            keypoints=keypoints[None],
        )
        mirrored = flip.flip(sample).keypoints
        assert mirrored is not None
        assert is_kite(mirrored[0, :, :2])
        unswapped = mirrored[0, [0, 2, 1, 3], :2]
        assert not is_kite(unswapped), "without the swap left and right are the wrong way round"
