"""The SSD transforms against torchvision's, run as an oracle: same colours, same chances."""

import numpy as np
import pytest

from lightning_zoo.transforms import detection

pytestmark = pytest.mark.parity
torchvision = pytest.importorskip("torchvision")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def photo():
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("name", "factors", "most"),
    [
        ("brightness", (0.875, 1.0, 1.125), 1),
        ("contrast", (0.5, 1.0, 1.5), 2),
        ("saturation", (0.5, 1.0, 1.5), 2),
        ("hue", (-0.05, 0.02, 0.05), 16),
    ],
)
def test_colours(photo, name, factors, most):
    theirs = getattr(torchvision.transforms.functional, f"adjust_{name}")
    image = torch.from_numpy(photo).permute(2, 0, 1)
    for factor in factors:
        expected = theirs(image, factor).permute(1, 2, 0).numpy().astype(int)
        ours = getattr(detection, f"adjust_{name}")(photo, factor).astype(int)
        assert np.abs(ours - expected).max() <= most
        assert np.abs(ours - expected).mean() < (3 if name == "hue" else 1)


def test_iou_crop_has_the_same_distribution():
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    height, width = 120, 160
    boxes = np.array([[10, 10, 60, 50], [70, 30, 150, 110], [100, 5, 120, 20]], np.float64)
    crop, rng = detection.IoUCrop(), np.random.default_rng(0)
    oracle = v2.Compose([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()])
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    target = {
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes), format="XYXY", canvas_size=(height, width)
        ),
        "labels": torch.arange(3),
    }
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(1500):
        found = crop.draw(boxes, (height, width), rng)
        part = (0, 0, width, height) if found is None else found[0]
        kept = 3 if found is None else int(detection.centres_inside(boxes, part).sum())
        ours.append((part[2] - part[0], part[3] - part[1], kept, found is None))
        cut, left = oracle(tv_tensors.Image(image), target)
        h, w = cut.shape[-2:]
        theirs.append((w, h, len(left["boxes"]), (h, w) == (height, width)))
    a, b = np.array(ours, float), np.array(theirs, float)
    error = np.sqrt((a.var(0) + b.var(0)) / len(a))
    assert (np.abs(a.mean(0) - b.mean(0)) < 4 * error + 1e-9).all()
    assert (np.abs(a.std(0) - b.std(0)) < 4 * error + 1e-9).all()


def test_zoom_out_has_the_same_distribution():
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    zoom, oracle = detection.ZoomOut(), v2.RandomZoomOut()
    empty = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    sample = detection.Sample(np.full((20, 30, 3), 255, np.uint8), *empty)
    image = torch.full((1, 20, 30), 255, dtype=torch.uint8)
    torch.manual_seed(0)

    def facts(canvas):
        ys, xs = np.nonzero(canvas == 255)
        return (*canvas.shape, ys.min(), xs.min())

    a = np.array([facts(zoom(sample, rng).image[..., 0]) for _ in range(1500)], float)
    b = np.array([facts(oracle(image)[0].numpy()) for _ in range(1500)], float)
    error = np.sqrt((a.var(0) + b.var(0)) / len(a))
    assert (np.abs(a.mean(0) - b.mean(0)) < 4 * error).all()
    assert (np.abs(a.std(0) - b.std(0)) < 4 * error).all()
