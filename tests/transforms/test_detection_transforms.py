"""Image, boxes, masks and keypoints change together, as the recipes say."""

import colorsys
from collections import Counter

import numpy as np
import pytest

from lightning_zoo.errors import ZooError
from lightning_zoo.keypoints import COCO_PERSON
from lightning_zoo.transforms.detection import (
    Albumentations,
    HorizontalFlip,
    IoUCrop,
    PhotometricDistort,
    Sample,
    ZoomOut,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    cut,
    make_transform,
)
from lightning_zoo.transforms.masks import Masks, pack


def boxes_to_masks(boxes, height, width):
    packed = [
        pack([[x0, y0, x1, y0, x1, y1, x0, y1]], height, width)
        for x0, y0, x1, y1 in np.asarray(boxes).tolist()
    ]
    return Masks(packed, height, width)


def make_sample(height, width, boxes, *, keypoints=None, seed=0):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Sample(
        image=image,
        boxes=boxes,
        labels=np.arange(1, len(boxes) + 1),
        area=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        iscrowd=np.zeros(len(boxes), np.int64),
        masks=boxes_to_masks(boxes, height, width),
        keypoints=keypoints,
    )


def random_sample(rng, keypoints=True):
    height, width = (int(n) for n in rng.integers(30, 120, 2))
    count = int(rng.integers(1, 6))
    corner = rng.integers(0, (width - 6, height - 6), (count, 2))
    sides = rng.integers(3, 60, (count, 2))
    boxes = np.concatenate([corner, np.minimum(corner + sides, (width, height))], 1)
    points = None
    if keypoints:
        at = boxes[:, None, :2] + rng.random((count, 17, 2)) * (
            boxes[:, None, 2:] - boxes[:, None, :2]
        )
        seen = rng.integers(0, 3, (count, 17, 1))
        points = np.concatenate([np.where(seen > 0, at, 0), seen], 2)
    return make_sample(height, width, boxes, keypoints=points, seed=int(rng.integers(1000)))


def check_aligned(sample):
    """Masks were filled boxes, so they still are; every keypoint is in its object's box."""
    masks = sample.masks if isinstance(sample.masks, np.ndarray) else sample.masks.decode()
    assert masks.shape == (len(sample.boxes), *sample.size)
    for box, mask, area in zip(sample.boxes, masks, sample.area, strict=True):
        ys, xs = np.nonzero(mask)
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx(box.tolist())
        assert area == pytest.approx(mask.sum())
    if sample.keypoints is not None:
        x, y, v = np.moveaxis(sample.keypoints, 2, 0)
        low, high = sample.boxes[:, None, :2] - 1e-6, sample.boxes[:, None, 2:] + 1e-6
        inside = (low[..., 0] <= x) & (x <= high[..., 0]) & (low[..., 1] <= y) & (y <= high[..., 1])
        assert (inside | (v == 0)).all()
        assert not sample.keypoints[v == 0].any()


def same(a, b):
    assert np.array_equal(a.image, b.image)
    assert np.allclose(a.boxes, b.boxes, rtol=0, atol=1e-9)
    for name in ("labels", "area", "iscrowd"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
    assert np.array_equal(a.masks.decode(), b.masks.decode())
    if a.keypoints is not None:
        assert np.allclose(a.keypoints, b.keypoints, rtol=0, atol=1e-9)


def test_a_flip_by_hand():
    points = np.zeros((1, 17, 3))
    points[0, 5], points[0, 6], points[0, 9] = (3, 2, 2), (1, 2.5, 1), (7, 7, 0)
    sample = make_sample(4, 10, [[1, 0, 4, 3]], keypoints=points)
    done = HorizontalFlip(1.0, COCO_PERSON.flip_order)(sample, np.random.default_rng(0))
    assert done.boxes.tolist() == [[6, 0, 9, 3]]
    assert np.array_equal(done.image, sample.image[:, ::-1])
    # the left shoulder (5) is the right one (6) now; what has no label is 0 0 0
    assert done.keypoints[0, 6].tolist() == [7, 2, 2]
    assert done.keypoints[0, 5].tolist() == [9, 2.5, 1]
    assert np.count_nonzero(done.keypoints) == 6
    assert sample.boxes.tolist() == [[1, 0, 4, 3]]  # the input is as it was
    assert sample.keypoints[0, 5].tolist() == [3, 2, 2]
    check_aligned(done)


def test_flipping_twice_changes_nothing():
    rng = np.random.default_rng(0)
    flip = HorizontalFlip(1.0, COCO_PERSON.flip_order)
    for _ in range(40):
        sample = random_sample(rng)
        once = flip.flip(sample)
        check_aligned(once)
        same(flip.flip(once), sample)


def test_chance_of_a_flip():
    sample, rng = make_sample(4, 10, [[1, 0, 4, 3]]), np.random.default_rng(0)
    flips = sum(HorizontalFlip(0.3)(sample, rng) is not sample for _ in range(2000))
    assert 520 < flips < 680


def test_a_cut_by_hand():
    points = np.array([[[2, 2, 2], [7, 2, 1], [0, 0, 0]]], np.float64)
    sample = make_sample(6, 8, [[1, 1, 7.5, 5]], keypoints=points)
    done = cut(sample, 2, 1, 4, 3)
    assert done.boxes.tolist() == [[0, 0, 4, 3]]
    assert np.array_equal(done.image, sample.image[1:4, 2:6])
    assert done.keypoints.tolist() == [[[0, 1, 2], [0, 0, 0], [0, 0, 0]]]
    assert done.area[0] == pytest.approx(26 * 12 / 26)
    assert done.masks.decode().shape == (1, 3, 4)
    out = cut(sample, -1, -2, 10, 9, fill=(1, 2, 3))
    assert out.boxes.tolist() == [[2, 3, 8.5, 7]]
    assert out.image.shape == (9, 10, 3)
    assert np.array_equal(out.image[2:8, 1:9], sample.image)
    assert (out.image[:2] == (1, 2, 3)).all()
    assert (out.image[:, 9] == (1, 2, 3)).all()


def test_zoom_out():
    rng, zoom = np.random.default_rng(0), ZoomOut(1.0)
    factors, places = [], []
    for _ in range(200):
        sample = random_sample(rng)
        done = zoom(sample, rng)
        check_aligned(done)
        (h, w), (ch, cw) = sample.size, done.size
        assert abs(ch / h - cw / w) < 1 / h + 1 / w  # one factor for both sides
        x, y = (done.boxes - sample.boxes)[0, :2].astype(int)
        assert np.array_equal(done.image[y : y + h, x : x + w], sample.image)
        assert np.array_equal(done.area, sample.area)
        factors.append(ch / h)
        places += [x / (cw - w)] if cw > w + 20 else []
        outside = np.ones(done.size, bool)
        outside[y : y + h, x : x + w] = False
        assert (done.image[outside] == (123, 117, 104)).all()
    assert 0.95 < min(factors) < 1.15
    assert 3.8 < max(factors) <= 4
    assert 2.3 < np.mean(factors) < 2.7
    assert 0.4 < np.mean(places) < 0.6
    kept = sum(ZoomOut()(sample, rng) is sample for _ in range(300))
    assert 110 < kept < 190
    with pytest.raises(ZooError, match="side_range"):
        ZoomOut(side_range=(0.5, 2))


def test_iou_crop_keeps_its_promises():
    rng, crop = np.random.default_rng(0), IoUCrop()
    overlaps = Counter()
    for _ in range(400):
        sample = random_sample(rng)
        state = rng.bit_generator.state
        found = crop.draw(sample.boxes, sample.size, rng)
        rng.bit_generator.state = state
        done = crop(sample, rng)
        if found is None:
            assert done is sample
            overlaps[1.0] += 1
            continue
        (x0, y0, x1, y1), overlap = found
        overlaps[overlap] += 1
        assert np.array_equal(done.image, sample.image[y0:y1, x0:x1])
        height, width = sample.size
        assert 0.29 * width - 1 <= x1 - x0 <= width
        assert 0.29 * height - 1 <= y1 - y0 <= height
        assert 0.5 <= (x1 - x0) / (y1 - y0) <= 2
        # the objects whose centre is strictly inside are there, clipped, and no others
        centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
        inside = ((centres > (x0, y0)) & (centres < (x1, y1))).all(1)
        assert done.labels.tolist() == sample.labels[inside].tolist()
        assert len(done.boxes) > 0
        assert (done.boxes >= 0).all()
        assert (done.boxes <= [x1 - x0, y1 - y0] * 2).all()
        assert (done.boxes[:, 2:] > done.boxes[:, :2]).all()
        check_aligned(done)
        # one box at least has the overlap that was drawn
        best = 0.0
        for b in sample.boxes[inside]:
            w, h = min(b[2], x1) - max(b[0], x0), min(b[3], y1) - max(b[1], y0)
            both = max(w, 0) * max(h, 0)
            union = (b[2] - b[0]) * (b[3] - b[1]) + (x1 - x0) * (y1 - y0) - both
            best = max(best, both / union)
        assert best >= overlap
    assert set(overlaps) >= {0.0, 0.1, 0.3, 1.0}
    assert overlaps[1.0] > 50  # also where no part fits a high overlap


def test_iou_crop_without_objects():
    sample, rng = make_sample(20, 30, []), np.random.default_rng(0)
    assert all(IoUCrop()(sample, rng) is sample for _ in range(20))
    with pytest.raises(ZooError, match="expected 1 among them"):
        IoUCrop(overlaps=(0.5,))


def test_colours_by_hand():
    image = np.array([[[100, 200, 50], [10, 0, 255]]], np.uint8)
    assert adjust_brightness(image, 1.1).tolist() == [[[110, 220, 55], [11, 0, 255]]]
    # greys are 153 and 32 (.299 r + .587 g + .114 b), their mean 92.5
    assert adjust_contrast(image, 0.0).tolist() == [[[92] * 3] * 2]
    assert adjust_contrast(image, 2.0).tolist() == [[[108, 255, 8], [0, 0, 255]]]
    assert adjust_saturation(image, 0.0).tolist() == [[[153] * 3, [32] * 3]]
    assert adjust_saturation(image, 1.5).tolist() == [[[74, 224, 0], [0, 0, 255]]]
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert np.abs(adjust_hue(red, 1 / 3).astype(int) - [0, 255, 0]).max() <= 6
    for step in (adjust_brightness, adjust_contrast, adjust_saturation):
        assert np.array_equal(step(image, 1.0), image)


def test_hue_against_colorsys():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    for turns in (-0.05, 0.03, 0.4):
        done = adjust_hue(image, turns)
        for pixel, ours in zip(image.reshape(-1, 3)[:300], done.reshape(-1, 3), strict=False):
            h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
            expected = np.array(colorsys.hsv_to_rgb((h + turns) % 1, s, v)) * 255
            assert np.abs(expected - ours).max() < 12  # hue and saturation have 256 steps


def test_photometric_steps():
    sample, rng = make_sample(12, 16, [[1, 1, 5, 5]]), np.random.default_rng(0)
    distort = PhotometricDistort()
    results = [distort(sample, rng) for _ in range(400)]
    for done in results[:20]:
        assert done.boxes is sample.boxes
        assert done.image.dtype == np.uint8
        assert done.image.flags.c_contiguous
    same_image = np.mean([np.array_equal(d.image, sample.image) for d in results])
    assert same_image < 0.12  # (1/2)^5, and permutations that change nothing
    never = PhotometricDistort(probability=0)(sample, rng)
    assert np.array_equal(never.image, sample.image)


@pytest.mark.parametrize("name", ["hflip", "ssd", "ssdlite", None])
def test_presets(name):
    transform = make_transform(name, COCO_PERSON.flip_order)
    kinds = [type(t).__name__ for t in transform.transforms]
    assert (
        kinds
        == {
            "hflip": ["HorizontalFlip"],
            "ssd": ["PhotometricDistort", "ZoomOut", "IoUCrop", "HorizontalFlip"],
            "ssdlite": ["IoUCrop", "HorizontalFlip"],
            None: [],
        }[name]
    )
    rng = np.random.default_rng(0)
    for i in range(40):
        sample = random_sample(rng)
        first, second = (transform(sample, np.random.default_rng(i)) for _ in range(2))
        same(first, second)  # all chance comes from the generator
        check_aligned(first)
    with pytest.raises(ZooError, match="did you mean ssdlite"):
        make_transform("ssdlit")


def test_albumentations_flip_is_ours():
    library = pytest.importorskip("albumentations")
    adapter = Albumentations([library.HorizontalFlip(p=1)], COCO_PERSON.flip_order)
    rng = np.random.default_rng(0)
    for _ in range(10):
        sample = random_sample(rng)
        done = adapter(sample, rng)
        expected = HorizontalFlip(1.0, COCO_PERSON.flip_order).flip(sample)
        assert np.array_equal(done.image, expected.image)
        assert np.allclose(done.boxes, expected.boxes, atol=1e-3)
        assert np.array_equal(done.masks, expected.masks.decode())
        visible = expected.keypoints[..., 2] > 0
        assert np.array_equal(done.keypoints[..., 2], expected.keypoints[..., 2])
        # albumentations mirrors points as pixels, W - 1 - x
        assert np.abs(done.keypoints - expected.keypoints)[visible].max() <= 1.001


def test_albumentations_crop_drops_whole_objects():
    library = pytest.importorskip("albumentations")
    points = np.zeros((2, 17, 3))
    points[1, 0], points[1, 1] = (42, 22, 2), (58, 38, 2)
    sample = make_sample(60, 80, [[0, 0, 10, 10], [40, 20, 60, 40]], keypoints=points)
    crop = library.Crop(x_min=20, y_min=10, x_max=50, y_max=60)
    adapter = Albumentations([crop], COCO_PERSON.flip_order)
    done = adapter(sample, np.random.default_rng(0))
    assert done.labels.tolist() == [2]
    assert done.boxes == pytest.approx(np.array([[20, 10, 30, 30]]), abs=1e-3)
    assert done.masks.shape == (1, 50, 30)
    assert done.masks.sum() == done.area[0] == 200
    assert done.keypoints[0, 0] == pytest.approx([22, 12, 2])
    assert not done.keypoints[0, 1].any()  # it left the image


def test_albumentations_is_seeded_and_checked():
    library = pytest.importorskip("albumentations")
    sample = random_sample(np.random.default_rng(5))
    adapter = Albumentations([library.RandomSizedBBoxSafeCrop(32, 40), library.ColorJitter(p=1)])
    runs = [adapter(sample, np.random.default_rng(i)).image for i in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    with pytest.raises(ZooError, match="leave out Normalize"):
        Albumentations([library.HorizontalFlip(), library.Normalize()])(
            sample, np.random.default_rng(0)
        )
    empty = make_sample(20, 30, [], keypoints=np.zeros((0, 17, 3)))
    done = Albumentations([library.HorizontalFlip(p=1)])(empty, np.random.default_rng(0))
    assert done.boxes.shape == (0, 4)
    assert done.masks.shape == (0, 20, 30)
    assert done.keypoints.shape == (0, 17, 3)
