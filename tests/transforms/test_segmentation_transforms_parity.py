"""The segmentation transforms against torchvision's on Pillow images, run as an oracle."""

import numpy as np
import pytest

from lightning_zoo.transforms.segmentation import (
    VOID,
    EvalTransform,
    TrainTransform,
    resize_mask,
    resize_part,
)

pytestmark = pytest.mark.parity
torchvision = pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module", params=[(120, 161), (161, 120), (97, 97), (48, 133)])
def pair(request):
    cv2 = pytest.importorskip("cv2")
    height, width = request.param
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    mask = np.random.default_rng(1).integers(0, 22, (height, width)).astype(np.uint8)
    mask[mask == 21] = VOID
    return image, mask


def resized(array, size, *, nearest=False):
    modes = torchvision.transforms.InterpolationMode
    mode = modes.NEAREST if nearest else modes.BILINEAR
    resize = torchvision.transforms.functional.resize
    return np.array(resize(Image.fromarray(array), size, interpolation=mode, antialias=True))


@pytest.mark.parametrize("size", [48, 52, 97, 130, 260])
def test_evaluation(pair, size):
    image, mask = EvalTransform(size)(*pair)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), resized(pair[0], size))
    assert np.array_equal(mask.numpy(), resized(pair[1], size, nearest=True))


@pytest.mark.parametrize("size", [30, 64, 97, 121, 240])
def test_training_sizes_and_pixels(pair, size):
    image, mask = resized(pair[0], size), resized(pair[1], size, nearest=True)
    height, width = mask.shape
    box = (height // 5, width // 4, height // 2, width // 2)
    part = np.s_[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    ours = resize_part(pair[0], height, width, box)
    assert np.abs(ours.astype(int) - image[part].astype(int)).max() <= 1
    assert np.array_equal(resize_mask(pair[1], height, width, box), mask[part])


def test_training_has_the_same_distribution(pair):
    """Compare shares of void and of each class with the reference's order of transforms."""
    functional = torchvision.transforms.functional
    ours, theirs = np.zeros(256), np.zeros(256)
    rng, other = np.random.default_rng(2), np.random.default_rng(3)
    transform = TrainTransform(64, resize=(34, 138))
    for _ in range(200):
        ours += np.bincount(transform(*pair, rng)[1].numpy().ravel(), minlength=256)
        mask = resized(pair[1], int(other.integers(34, 139)), nearest=True)
        if other.random() < 0.5:
            mask = mask[:, ::-1]
        below, beside = (max(64 - n, 0) for n in mask.shape)
        padding = [0, 0, beside, below]
        mask = functional.pad(Image.fromarray(np.ascontiguousarray(mask)), padding, fill=VOID)
        top = int(other.integers(mask.height - 64 + 1))
        left = int(other.integers(mask.width - 64 + 1))
        mask = np.array(functional.crop(mask, top, left, 64, 64))
        theirs += np.bincount(mask.ravel(), minlength=256)
    ours, theirs = ours / ours.sum(), theirs / theirs.sum()
    assert ours[VOID] == pytest.approx(theirs[VOID], abs=0.04)
    assert np.abs(ours[:21] - theirs[:21]).max() < 0.01
