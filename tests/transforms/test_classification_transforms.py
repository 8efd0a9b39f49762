"""Crops, flips and resizing against Pillow's, and against rules worked by hand."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms import classification as c
from lightning_zoo.transforms.decode import read_image

SHARED = Path(os.environ.get("LIGHTNING_ZOO_SHARED", Path(__file__).parents[3] / "shared"))


def pillow_eval(image, resize, crop):
    """The reference: shorter side to ``resize`` by Pillow, frame if too small, cut the centre."""
    height, width = image.shape[:2]
    if height <= width:
        size = (int(resize * width / height), resize)
    else:
        size = (resize, int(resize * height / width))
    picture = Image.fromarray(image)
    if size != (width, height):
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    width, height = size
    left, top = max(crop - width, 0) // 2, max(crop - height, 0) // 2
    framed = Image.new("RGB", (max(width, crop), max(height, crop)))
    framed.paste(picture, (left, top))
    y, x = round((framed.height - crop) / 2.0), round((framed.width - crop) / 2.0)
    return np.array(framed.crop((x, y, x + crop, y + crop))).transpose(2, 0, 1)


def differences(ours, theirs):
    return np.abs(np.asarray(ours).astype(int) - theirs.astype(int))


def random_image(rng, height, width):
    if rng.random() < 0.5:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


SIZES = [
    (1, 1),
    (1, 300),
    (300, 1),
    (2, 3),
    (17, 400),
    (400, 17),
    (256, 256),
    (255, 257),
    (900, 60),
]


def test_eval_is_pillows():
    rng = np.random.default_rng(0)
    sizes = SIZES + [tuple(int(n) for n in rng.integers(1, 520, 2)) for _ in range(60)]
    for height, width in sizes:
        if max(height, width) / min(height, width) > 50 and min(height, width) < 2:
            resize, crop = 20, 16  # else the resized strip is as long as a street
        else:
            resize, crop = [(256, 224), (342, 299), (232, 224), (40, 56)][int(rng.integers(4))]
        image = random_image(rng, height, width)
        ours = c.EvalTransform(resize, crop)(image)
        assert ours.dtype == torch.uint8
        assert ours.shape == (3, crop, crop)
        assert ours.is_contiguous()
        theirs = pillow_eval(image, resize, crop)
        assert np.array_equal(ours, theirs), (height, width)
        fast = c.EvalTransform(resize, crop, exact=False)(image)
        assert differences(fast, theirs).max() <= 2


@pytest.mark.skipif(not (SHARED / "data/ants_bees").is_dir(), reason="no ../shared/data/ants_bees")
def test_eval_on_photos():
    files = sorted((SHARED / "data/ants_bees").rglob("*.jpg"))[::8]
    for resize, crop in ((256, 224), (232, 224), (342, 299), (100, 90)):
        transform = c.EvalTransform(resize, crop)
        for file in files:
            theirs = pillow_eval(np.array(Image.open(file).convert("RGB")), resize, crop)
            assert np.array_equal(transform(read_image(file)), theirs), file


def test_train_is_within_one_of_pillow():
    rng = np.random.default_rng(1)
    transform = c.TrainTransform(64)
    above_one = total = flips = 0
    for i in range(80):
        height, width = rng.integers(1, 300, 2).tolist()
        image = random_image(rng, height, width)
        ours = transform(image, np.random.default_rng(i))
        same = np.random.default_rng(i)
        y, x, h, w = c.random_crop_box(height, width, same)
        flip = same.random() < 0.5
        picture = Image.fromarray(image).crop((x, y, x + w, y + h))
        picture = picture.resize((64, 64), Image.Resampling.BILINEAR)
        if flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            flips += 1
        assert ours.is_contiguous()
        far = differences(ours, np.array(picture).transpose(2, 0, 1))
        assert far.max() <= 2
        above_one += int((far > 1).sum())
        total += far.size
    assert above_one <= 2  # of 983,040
    assert total == 80 * 3 * 64 * 64
    assert 20 < flips < 60


def test_sizes_by_hand():
    assert c.shorter_side_size(375, 500, 256) == (256, 341)  # 341.33
    assert c.shorter_side_size(500, 375, 256) == (341, 256)
    assert c.shorter_side_size(100, 100, 256) == (256, 256)
    assert c.shorter_side_size(3, 1000, 2) == (2, 666)


def test_center_crop_by_hand():
    image = torch.arange(3 * 5 * 8, dtype=torch.uint8).reshape(3, 5, 8)
    # (5 - 2) / 2 = 1.5 and (8 - 2) / 2 = 3; halves round to the even number: 2
    assert torch.equal(c.center_crop(image, 2), image[:, 2:4, 3:5])
    small = torch.ones(3, 2, 3, dtype=torch.uint8)
    framed = c.center_crop(small, 5)
    assert framed.shape == (3, 5, 5)
    # 3 rows are missing: 1 above, 2 below; 2 columns: 1 on each side
    assert torch.equal(framed[0, 1:3, 1:4], torch.ones(2, 3, dtype=torch.uint8))
    assert framed.sum() == small.sum()


def test_crop_boxes_lie_inside_and_cover_the_range():
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(3000):
        y, x, h, w = c.random_crop_box(300, 400, rng)
        assert 0 <= y <= y + h <= 300
        assert 0 <= x <= x + w <= 400
        areas.append(h * w / 120_000)
        ratios.append(w / h)
    assert 0.07 < min(areas) < 0.1
    assert 0.9 < max(areas) <= 1
    assert 0.73 < min(ratios) < 0.78
    assert 1.28 < max(ratios) < 1.36
    # log-uniform about 1, where every box fits
    boxes = [c.random_crop_box(400, 400, rng, scale=(0.2, 0.5)) for _ in range(3000)]
    assert abs(np.mean([np.log(w / h) for _, _, h, w in boxes])) < 0.01


def test_no_crop_fits():
    rng = np.random.default_rng(0)
    assert c.random_crop_box(10, 1000, rng, scale=(1, 1)) == (0, 493, 10, 13)
    assert c.random_crop_box(1000, 10, rng, scale=(1, 1)) == (493, 0, 13, 10)
    assert c.random_crop_box(1, 1, rng) == (0, 0, 1, 1)


def test_erase_boxes():
    rng = np.random.default_rng(0)
    boxes = [c.random_erase_box(100, 80, rng, probability=0.4) for _ in range(2000)]
    kept = [box for box in boxes if box != (0, 0, 0, 0)]
    assert 0.36 < len(kept) / 2000 < 0.44
    for y, x, h, w in kept:
        assert 0 <= y < y + h <= 100
        assert 0 <= x < x + w <= 80
        assert 0.015 < h * w / 8000 < 0.345
    none = [c.random_erase_box(100, 80, rng, probability=0.0) for _ in range(50)]
    assert set(none) == {(0, 0, 0, 0)}


@pytest.mark.parametrize("policy", [None, "imagenet", "rand", "trivial"])
def test_the_generator_alone_decides(policy):
    image = random_image(np.random.default_rng(5), 60, 80)
    transform = c.TrainTransform(32, auto_augment=policy)
    first, again = (transform(image, np.random.default_rng((7, 1))) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (3, 32, 32)
    others = [transform(image, np.random.default_rng((7, i))) for i in range(2, 6)]
    assert any(not torch.equal(first, other) for other in others)


def test_arguments_are_checked():
    with pytest.raises(ZooError, match=r"scale is \(0, 2\)"):
        c.TrainTransform(scale=(0, 2))
    with pytest.raises(ZooError, match="flip is 2"):
        c.TrainTransform(flip=2)
    with pytest.raises(ZooError, match="did you mean trivial"):
        c.TrainTransform(auto_augment="trivia")
    with pytest.raises(ZooError, match="eval_crop is 0"):
        c.EvalTransform(crop=0)


@pytest.mark.parity
def test_boxes_of_torchvision():
    transforms = pytest.importorskip("torchvision").transforms
    torch.manual_seed(0)
    image = torch.zeros(3, 300, 400)
    rng = np.random.default_rng(0)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
            for _ in range(4000)
        ]
    )
    ours = np.array([c.random_crop_box(300, 400, rng) for _ in range(4000)])
    for column in range(4):
        for q in (0.1, 0.5, 0.9):
            pair = np.quantile(ours[:, column], q), np.quantile(theirs[:, column], q)
            assert abs(pair[0] - pair[1]) < 15
