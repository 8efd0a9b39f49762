"""The three policies: their tables, single operations by hand, and torchvision's where it is."""

import numpy as np
import pytest
from PIL import Image

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms import auto_augment as aa

NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


def picture(height=40, width=50, seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_the_published_table():
    assert len(aa.IMAGENET_POLICIES) == 25
    assert aa.IMAGENET_POLICIES[0] == [("Posterize", 0.4, 8), ("Rotate", 0.6, 9)]
    assert aa.IMAGENET_POLICIES[-1] == [("Equalize", 0.8, 0), ("Equalize", 0.6, 0)]
    space = aa.auto_augment_space(224, 224)
    for policy in aa.IMAGENET_POLICIES:
        for name, probability, bin_ in policy:
            assert name in space
            assert 0 <= probability <= 1
            assert 0 <= bin_ < 10


def test_spaces_by_hand():
    space = aa.auto_augment_space(331, 662)
    assert space["TranslateX"][0][-1] == 300  # 150 / 331 of the width
    assert space["TranslateY"][0][-1] == 150
    assert space["Posterize"][0].tolist() == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert space["Solarize"][0][[0, -1]].tolist() == [255, 0]
    assert len(aa.rand_augment_space(9, 9)) == len(aa.trivial_augment_space()) == 14
    assert aa.trivial_augment_space()["Posterize"][0].min() == 2


def test_operations_by_hand():
    image = picture()
    pixels = np.array(image)
    shifted = np.array(aa.OPS["TranslateX"](image, 10.9, NEAREST))
    assert np.array_equal(shifted[:, 10:], pixels[:, :-10])  # to the right, by whole pixels
    assert not shifted[:, :10].any()
    up = np.array(aa.OPS["TranslateY"](image, -7, NEAREST))
    assert np.array_equal(up[:-7], pixels[7:])
    sheared = np.array(aa.OPS["ShearX"](image, 0.5, NEAREST))
    # row y shows the pixels from (y + 1/2) / 2 further right
    assert np.array_equal(sheared[20, :39], pixels[20, 10:49])
    assert np.array_equal(np.array(aa.OPS["Invert"](image, 0, NEAREST)), 255 - pixels)
    assert np.array_equal(np.array(aa.OPS["Posterize"](image, 3, NEAREST)), pixels & 0b11100000)
    solarized = np.array(aa.OPS["Solarize"](image, 100.0, NEAREST))
    assert np.array_equal(solarized, np.where(pixels < 100, pixels, 255 - pixels))
    for name in ("Brightness", "Color", "Contrast", "Sharpness", "Rotate", "ShearY"):
        assert np.array_equal(np.array(aa.OPS[name](image, 0.0, NEAREST)), pixels)


@pytest.mark.parametrize("name", aa.POLICIES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_policies(name, interpolation):
    policy = aa.make_policy(name, interpolation)
    pixels = np.array(picture())
    changed = 0
    for seed in range(40):
        first, again = (policy(pixels, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(first, again)
        assert first.shape == pixels.shape
        assert first.dtype == np.uint8
        changed += not np.array_equal(first, pixels)
    assert changed > 20


@pytest.mark.parametrize("name", aa.POLICIES)
def test_every_operation_is_drawn(name, monkeypatch):
    drawn = set()
    for op in aa.OPS:
        monkeypatch.setitem(aa.OPS, op, lambda image, *args, op=op: (drawn.add(op), image)[1])
    policy = aa.make_policy(name)
    rng = np.random.default_rng(0)
    for _ in range(600):
        policy(np.zeros((8, 8, 3), np.uint8), rng)
    if name == "imagenet":
        expected = {op for policy in aa.IMAGENET_POLICIES for op, p, _ in policy if p > 0}
    else:
        expected = set(aa.OPS) - {"Invert"}
    assert drawn == expected


def test_errors():
    assert aa.make_policy(None) is None
    with pytest.raises(ZooError, match="auto_augment_interpolation"):
        aa.make_policy("rand", "cubic")


@pytest.mark.parity
def test_tables_of_torchvision():
    theirs = pytest.importorskip("torchvision").transforms.autoaugment
    policies = theirs.AutoAugment(theirs.AutoAugmentPolicy.IMAGENET).policies
    expected = [[(op, p, bin_ or 0) for op, p, bin_ in policy] for policy in policies]
    assert expected == aa.IMAGENET_POLICIES
    spaces = [
        (theirs.AutoAugment()._augmentation_space(10, (224, 200)), aa.auto_augment_space(224, 200)),
        (theirs.RandAugment()._augmentation_space(31, (224, 200)), aa.rand_augment_space(224, 200)),
        (theirs.TrivialAugmentWide()._augmentation_space(31), aa.trivial_augment_space()),
    ]
    for space, ours in spaces:
        assert list(space) == list(ours)
        for name, (steps, signed) in space.items():
            assert ours[name][1] == signed
            if steps.ndim:
                np.testing.assert_allclose(ours[name][0], steps.numpy(), atol=1e-4)
            else:
                assert ours[name][0] is None


@pytest.mark.parity
def test_operations_of_torchvision():
    transforms = pytest.importorskip("torchvision").transforms
    modes = {
        NEAREST: transforms.InterpolationMode.NEAREST,
        BILINEAR: transforms.InterpolationMode.BILINEAR,
    }
    for seed in range(4):
        image = picture(30 + 9 * seed, 70 - 7 * seed, seed)
        for space in (aa.auto_augment_space(image.height, image.width), aa.trivial_augment_space()):
            for name, (steps, signed) in space.items():
                for magnitude in [0.0] if steps is None else steps.tolist():
                    for sign in (1, -1) if signed else (1,):
                        for ours, theirs in modes.items():
                            expected = transforms.autoaugment._apply_op(
                                image, name, magnitude * sign, theirs, None
                            )
                            found = aa.OPS[name](image, magnitude * sign, ours)
                            assert np.array_equal(np.array(found), np.array(expected)), name
