"""Image and mask change together, ids never change, and sizes are the reference's."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.masks import Masks, pack
from lightning_zoo.transforms.segmentation import (
    VOID,
    AlbumentationsTransform,
    EvalTransform,
    TrainTransform,
    merge_masks,
    nearest_positions,
    resize_mask,
    resize_part,
)

COLOURS = np.random.default_rng(5).integers(30, 226, (256, 3)).astype(np.uint8)
COLOURS[VOID] = 0


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(height, width, seed=0):
    noise = rng(seed).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def painted(height, width):
    """Return an image whose colours tell the classes of its mask, and the mask."""
    labels = np.array([[1, 7, 9], [20, VOID, 3], [9, 254, 0]], np.uint8)
    rows, columns = (np.arange(n) * 3 // n for n in (height, width))
    mask = labels[rows][:, columns]
    return COLOURS[mask], mask


def inner(mask, margin):
    """Tell which pixels have no other class within a margin, nor the edge of the cut-out."""
    kernel = np.ones((2 * margin + 1,) * 2, np.uint8)
    same = cv2.dilate(mask, kernel) == cv2.erode(mask, kernel)
    inside = np.zeros_like(same)
    inside[margin:-margin, margin:-margin] = True
    return same & inside


def check_aligned(image, mask, *, margin=5, most=0):
    image, mask = image.permute(1, 2, 0).numpy().astype(int), mask.numpy()
    wrong = np.abs(image - COLOURS[mask]).max(axis=2) > most
    assert not (wrong & inner(mask, margin)).any()


def test_nearest_is_pillows():
    generator = rng()
    for length in (1, 2, 3, 7, 97, 333, 427, 480, 640, 1023):
        source = Image.fromarray(np.arange(length, dtype=np.int32)[None])
        for new in {1, 260, 520, length, 2 * length, *generator.integers(1, 1500, 30).tolist()}:
            theirs = np.array(source.resize((new, 1), Image.Resampling.NEAREST))[0]
            assert np.array_equal(nearest_positions(length, new), theirs), (length, new)


@pytest.mark.parametrize("size", [(31, 47), (97, 60), (200, 133), (64, 97), (1, 1), (128, 194)])
def test_masks_are_resized_as_by_pillow(size):
    mask = rng(1).integers(0, 256, (64, 97)).astype(np.uint8)
    whole = np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(resize_mask(mask, *size), whole)
    height, width = size
    box = (height // 3, width // 4, height - height // 3, max(1, width // 2))
    part = whole[box[0] :, box[1] : box[1] + box[3]]
    assert np.array_equal(resize_mask(mask, *size, box), part)


def test_a_part_of_the_resized_image():
    generator = rng(3)
    for i in range(60):
        height, width = (int(n) for n in generator.integers(20, 160, 2))
        scale = generator.uniform(1, 4) if i % 3 else generator.uniform(0.3, 1)
        new = (max(1, int(height * scale)), max(1, int(width * scale)))
        image = photo(height, width, i)
        whole = np.array(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
        y, x = (int(generator.integers(n)) for n in new)
        h, w = int(generator.integers(new[0] - y)) + 1, int(generator.integers(new[1] - x)) + 1
        part = resize_part(image, *new, (y, x, h, w))
        assert part.shape == (h, w, 3)
        assert np.array_equal(part, resize_part(image, *new, (0, 0, *new))[y : y + h, x : x + w])
        assert np.abs(part.astype(int) - whole[y : y + h, x : x + w]).max() <= 1


@pytest.mark.parametrize("size", [(100, 150), (150, 100), (64, 64), (40, 30)])
def test_training(size):
    image, mask = painted(*size)
    transform = TrainTransform(64, resize=(32, 128))
    padded = seen = 0
    for seed in range(40):
        new_image, new_mask = transform(image, mask, rng(seed))
        assert (new_image.shape, new_mask.shape) == ((3, 64, 64), (64, 64))
        assert new_image.dtype == new_mask.dtype == torch.uint8
        assert new_image.is_contiguous()
        assert new_mask.is_contiguous()
        assert set(new_mask.unique().tolist()) <= set(np.unique(mask).tolist()) | {VOID}
        check_aligned(new_image, new_mask)
        padded += bool((new_mask[-1] == VOID).all() or (new_mask[:, -1] == VOID).all())
        seen += int((new_mask != VOID).sum())
    assert padded > 5
    assert seen > 40 * 500


def test_training_draws_sizes_mirrors_and_places():
    image = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    mask = np.repeat(np.arange(200, dtype=np.uint8)[None], 100, 0)
    transform = TrainTransform(50, resize=(50, 100))
    spans, mirrored, lefts = [], 0, set()
    for seed in range(400):
        _, new = transform(image, mask, rng(seed))
        first, last = int(new[0, 0]), int(new[0, -1])
        mirrored += first > last
        spans.append(abs(last - first))
        lefts.add(min(first, last))
    assert 160 < mirrored < 240
    assert min(spans) == pytest.approx(49, abs=2)  # at 100, the image's own size
    assert max(spans) == pytest.approx(98, abs=3)  # at 50, half of it
    assert {0, 1} & lefts
    assert max(lefts) >= 145
    assert len(lefts) > 80


def test_nothing_but_the_generator_decides():
    image, mask = painted(90, 120)
    for transform in (
        TrainTransform(64, resize=(32, 128)),
        AlbumentationsTransform(albumentations_list(), crop=64),
    ):
        first, again, other = (transform(image, mask, rng(seed)) for seed in (7, 7, 8))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[1], other[1])
    draws = [rng(5), rng(5)]
    for generator, shape in zip(draws, [(10, 400), (300, 20)], strict=True):
        TrainTransform(64, resize=(32, 128))(*painted(*shape), generator)
    assert draws[0].random() == draws[1].random()  # as many draws whatever the image


def test_an_image_that_is_padded():
    image, mask = np.full((20, 30, 3), 200, np.uint8), np.full((20, 30), 4, np.uint8)
    new_image, new_mask = TrainTransform(48, resize=(20, 20))(image, mask, rng())
    assert (new_mask[:20, :30] == 4).all()
    assert (new_image[:, :20, :30] == 200).all()
    for outside in (np.s_[20:, :], np.s_[:, 30:]):
        assert (new_mask[outside] == VOID).all()
        assert (new_image[:, *outside] == 0).all()


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (50, 50), (97, 64), (33, 100)])
@pytest.mark.parametrize("size", [52, 33, 97])
def test_evaluation_gives_pillows_bytes(shape, size):
    image, mask = photo(*shape), painted(*shape)[1]
    new_image, new_mask = EvalTransform(size)(image, mask)
    height, width = new_mask.shape
    assert min(height, width) == size
    assert max(height, width) == int(size * max(shape) / min(shape))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    assert np.array_equal(new_image.permute(1, 2, 0).numpy(), np.array(resized))
    nearest = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    assert np.array_equal(new_mask.numpy(), np.array(nearest))


def test_evaluation_at_the_original_size():
    image, mask = photo(31, 45), painted(31, 45)[1]
    new_image, new_mask = EvalTransform(None)(image, mask)
    assert np.array_equal(new_image.permute(1, 2, 0).numpy(), image)
    assert np.array_equal(new_mask.numpy(), mask)


def albumentations_list():
    library = pytest.importorskip("albumentations")
    return [library.HorizontalFlip(p=0.5), library.Rotate(limit=(45, 45), p=1.0)]


def test_albumentations():
    library = pytest.importorskip("albumentations")
    image, mask = painted(100, 120)
    uncovered = 0
    for fill_mask in (0, VOID):
        turn = library.Rotate(limit=(45, 45), fill_mask=fill_mask, p=1.0)
        transform = AlbumentationsTransform([library.HorizontalFlip(p=0.5), turn], crop=130)
        for seed in range(5):
            new_image, new_mask = transform(image, mask, rng(seed))
            assert (new_image.shape, new_mask.shape) == ((3, 130, 130), (130, 130))
            assert set(new_mask.unique().tolist()) <= set(np.unique(mask).tolist())
            check_aligned(new_image, new_mask, margin=6)
            uncovered += int(new_mask[0, 0]) == VOID
            assert (new_mask[100:] == VOID).all()  # padded below
    assert uncovered == 10
    smaller = AlbumentationsTransform([], crop=48)(image, mask, rng())
    assert smaller[1].shape == (48, 48)
    check_aligned(*smaller)
    with pytest.raises(ZooError, match="leave out Normalize and ToTensorV2"):
        AlbumentationsTransform([library.Normalize()], crop=48)(image, mask, rng())


def test_arguments():
    for make, text in (
        (lambda: TrainTransform(0), "train_crop is 0; expected"),
        (lambda: TrainTransform(8, resize=(9, 3)), r"train_resize is \[9, 3\]; expected two"),
        (lambda: TrainTransform(8, resize=(9,)), r"train_resize is \[9\]; expected two"),
        (lambda: TrainTransform(8, flip=2), "flip is 2; expected a probability"),
        (lambda: EvalTransform(0), "eval_resize is 0; expected .* or null"),
        (lambda: AlbumentationsTransform([], crop=0), "train_crop is 0; expected"),
    ):
        with pytest.raises(ZooError, match=text):
            make()


def square(y, x, side):
    polygon = [x, y, x + side, y, x + side, y + side, x, y + side]
    return pack([polygon], 4, 4)


def test_objects_merged_by_hand():
    crowd = pack({"size": [4, 4], "counts": [3, 1, 12]}, 4, 4)  # the lowest pixel at the left
    two_parts = pack([[3, 0, 4, 0, 4, 1, 3, 1], [3, 3, 4, 3, 4, 4, 3, 4]], 4, 4)
    merged = merge_masks(
        [square(0, 0, 2), square(1, 1, 2), crowd, b"", two_parts], [5, 5, 1, 9, 20], 4, 4
    )
    assert merged.tolist() == [
        [5, 5, 0, 20],
        [5, VOID, 5, 0],
        [0, 5, 5, 0],
        [1, 0, 0, 20],
    ]
    assert merge_masks([square(0, 0, 4)] * 3, [2, 2, 2], 4, 4).tolist() == [[VOID] * 4] * 4
    assert merge_masks([], [], 2, 3).tolist() == [[0] * 3] * 2
    assert merge_masks([square(0, 0, 4)], [254], 4, 4).tolist() == [[254] * 4] * 4


def test_objects_merged_against_decoded_ones():
    generator = rng(2)
    for count in (1, 2, 6):
        shape = (int(generator.integers(8, 60)), int(generator.integers(8, 60)))
        polygons = generator.uniform(-5, 65, (count, 10)).round(2).tolist()
        packed = [pack([polygon], *shape) for polygon in polygons]
        labels = generator.integers(1, 21, count)
        masks = Masks(packed, *shape).decode()
        expected = (masks * labels[:, None, None].astype(np.uint8)).max(axis=0)
        expected[masks.sum(axis=0) > 1] = VOID
        assert np.array_equal(merge_masks(packed, labels.tolist(), *shape), expected)
