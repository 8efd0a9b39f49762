"""Clip transforms against torchvision's, run as an oracle on float tensors as the reference did."""

import numpy as np
import pytest

from lightning_zoo.transforms.video import EvalTransform

pytestmark = pytest.mark.parity
pytest.importorskip("cv2")
torchvision = pytest.importorskip("torchvision")
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("size", [(256, 340), (240, 320), (480, 270), (96, 128)])
def test_evaluation_is_within_one_of_the_reference(size):
    clip = np.random.default_rng(0).integers(0, 256, (4, *size, 3), np.uint8)
    functional = torchvision.transforms.functional
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
    frames = functional.resize(frames, [128, 171], antialias=False)
    expected = functional.center_crop(frames, [112, 112]).permute(1, 0, 2, 3) * 255
    error = (EvalTransform()(clip).float() - expected).abs()
    assert error.max() < 1
    assert error.mean() < 0.3
