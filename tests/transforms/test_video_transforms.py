"""Clips: sizes, one window and one flip for all frames, and the distance to the float result."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.video import EvalTransform, TrainTransform, resize_frames


def clip_of(frames, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def by_float(clip, height, width):
    """Return what the reference computed, on the scale of 0 to 255."""
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
    frames = interpolate(frames, size=(height, width), mode="bilinear", align_corners=False)
    return (frames * 255).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [(256, 340), (340, 256), (90, 61), (7, 300), (256, 342), (1, 1)])
def test_resizing_is_within_one_of_the_float_result(size):
    clip = clip_of(2, *size)
    resized = resize_frames(clip, 128, 171)
    assert resized.shape == (2, 128, 171, 3)
    assert resized.dtype == np.uint8
    error = np.abs(resized - by_float(clip, 128, 171))
    assert error.max() < 1
    assert error.mean() < 0.3


def test_a_frame_of_the_right_size_is_kept():
    clip = clip_of(2, 128, 171)
    assert resize_frames(clip, 128, 171) is clip


def test_resizing_by_hand():
    """Twice as wide: every new pixel lies a quarter from its nearest old one."""
    clip = np.zeros((1, 1, 2, 3), np.uint8)
    clip[0, 0, 1] = 100
    assert resize_frames(clip, 1, 4)[0, 0, :, 0].tolist() == [0, 25, 75, 100]


def test_evaluation_takes_the_centre():
    clip = clip_of(3, 128, 171)
    out = EvalTransform()(clip)
    assert out.shape == (3, 3, 112, 112)
    assert out.dtype == torch.uint8
    assert out.is_contiguous()
    # 59 columns to spare: 30 on the left, as round(29.5) is even; 8 rows above
    expected = clip[:, 8:120, 30:142].transpose(3, 0, 1, 2)
    assert np.array_equal(out.numpy(), expected)


def test_time_and_channels_are_in_their_places():
    clip = np.zeros((5, 128, 171, 3), np.uint8)
    clip[3, :, :, 1] = 9
    out = EvalTransform()(clip)
    assert out.shape == (3, 5, 112, 112)
    assert (out[1, 3] == 9).all()
    assert out.sum() == 9 * 112 * 112


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_all_frames_share_window_and_flip(flip):
    """Pixels hold their own place, so the window can be read off."""
    grid = np.stack(np.broadcast_arrays(np.arange(128)[:, None], np.arange(171), 0), -1)
    clip = np.broadcast_to(grid.astype(np.uint8), (4, 128, 171, 3)).copy()
    places = set()
    for seed in range(200):
        out = TrainTransform(flip=flip)(clip, np.random.default_rng(seed)).numpy()
        assert out.shape == (3, 4, 112, 112)
        assert (out == out[:, :1]).all()
        y, x = int(out[0, 0, 0, 0]), int(out[1, 0, 0].min())
        places.add((y, x))
        columns = np.arange(x, x + 112)
        assert (out[0, 0] == np.arange(y, y + 112)[:, None]).all()
        assert (out[1, 0] == (columns[::-1] if flip else columns)).all()
    ys, xs = zip(*places, strict=True)
    assert (min(ys), max(ys)) == (0, 16)
    assert min(xs) <= 1
    assert max(xs) >= 58


def test_half_of_the_clips_are_flipped():
    clip = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], (1, 8, 8, 3)).copy()
    transform = TrainTransform((8, 8), 8)
    first = [int(transform(clip, np.random.default_rng(s))[0, 0, 0, 0]) for s in range(400)]
    assert set(first) == {0, 7}
    assert 160 < first.count(7) < 240


def test_same_seed_same_bytes():
    clip = clip_of(2, 60, 80)
    a, b, c = (TrainTransform()(clip, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_another_size():
    assert EvalTransform([40, 60], 32)(clip_of(2, 90, 100)).shape == (3, 2, 32, 32)
    assert EvalTransform((40, 60), 40)(clip_of(1, 90, 100)).shape == (3, 1, 40, 40)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TrainTransform((128,), 112), r"train_resize is \[128\]; expected height and w"),
        (lambda: EvalTransform((0, 171), 112), r"eval_resize is \[0, 171\]"),
        (lambda: TrainTransform((100, 171), 112), "train_crop is 112; expected 1 to 100 pixels"),
        (lambda: EvalTransform((128, 171), 0), "eval_crop is 0; expected 1 to 128"),
        (lambda: TrainTransform(flip=2), "flip is 2; expected a probability"),
    ],
)
def test_wrong_arguments(make, text):
    with pytest.raises(ZooError, match=text):
        make()
