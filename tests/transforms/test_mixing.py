"""Mixup and CutMix: worked by hand, and their laws."""

import pytest
import torch

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms import mixing


def batch(n=4, size=8):
    images = torch.arange(n, dtype=torch.float32).reshape(n, 1, 1, 1).expand(n, 3, size, size)
    return images.clone(), torch.arange(n) % 3


def test_mixup_by_hand():
    images, labels = batch(3)
    mixed, targets = mixing.mixup_by(images, labels, num_classes=3, lam=0.75)
    assert mixed[:, 0, 0, 0].tolist() == [0.5, 0.75, 1.75]  # 0.75 x own + 0.25 x the one before
    assert targets.tolist() == [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]]


def test_cutmix_by_hand():
    # lam 0.75: half the sides, 4 x 4 of 8 x 8 around (7, 1), of which 3 x 3 lie inside
    box, lam = mixing.cutmix_box(8, 8, lam=0.75, centre=(7, 1))
    assert box == (5, 0, 8, 3)
    assert lam == 1 - 9 / 64
    images, labels = batch(3)
    mixed, targets = mixing.cutmix_by(images, labels, num_classes=3, box=box)
    assert mixed[1, :, 5:, :3].eq(0).all()
    assert mixed[1].sum() == 3 * (64 - 9)
    assert targets[1].tolist() == pytest.approx([9 / 64, 55 / 64, 0])
    assert torch.equal(images, batch(3)[0])  # the input stays


@pytest.mark.parametrize("mix", [mixing.mixup, mixing.cutmix])
@pytest.mark.parametrize("multilabel", [False, True])
def test_laws(mix, multilabel):
    images, labels = batch(4, 16)
    if multilabel:
        labels = torch.nn.functional.one_hot(labels, 5).float()
    shares = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        mixed, targets = mix(images, labels, num_classes=5, alpha=1.0, generator=generator)
        again = mix(images, labels, num_classes=5, alpha=1.0, generator=generator.manual_seed(seed))
        assert torch.equal(mixed, again[0])
        assert mixed.shape == images.shape
        assert targets.shape == (4, 5)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        shares.append(float(targets[1, 1]))
        # the pixels' share is the targets' share: image 1 is all 1 and image 0 all 0
        assert float(mixed[1].mean()) == pytest.approx(shares[-1], abs=1e-5)
    assert min(shares) < 0.5  # few boxes of CutMix are large and unclipped
    assert max(shares) > 0.75


def test_lambda_is_beta():
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.2, 1.0, 3.0):
        drawn = torch.tensor([mixing.draw_lambda(alpha, generator) for _ in range(4000)])
        assert float(drawn.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(drawn.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_one_image_and_full_box():
    images, labels = batch(1)
    mixed, targets = mixing.mixup(images, labels, num_classes=3, alpha=0.2)
    assert torch.equal(mixed, images)
    assert targets.tolist() == [[1, 0, 0]]
    assert mixing.cutmix_box(8, 8, lam=0.0, centre=(4, 4)) == ((0, 0, 8, 8), 0.0)
    assert mixing.cutmix_box(8, 8, lam=1.0, centre=(4, 4))[1] == 1.0


def test_one_of_both():
    images, labels = batch(4)
    mix = mixing.Mixing(0.2, 1.0, num_classes=3)
    generator = torch.Generator().manual_seed(0)
    blended = 0
    for _ in range(200):
        mixed, _ = mix(images, labels, generator)
        inside = mixed[1].flatten()
        blended += bool(inside.eq(inside[0]).all() and 0 < inside[0] < 1)
    assert 60 < blended < 140


def test_off_and_one_alone():
    images, labels = batch(4)
    same, targets = mixing.Mixing(num_classes=3)(images, labels)
    assert torch.equal(same, images)
    assert targets.tolist() == torch.eye(3)[labels].tolist()
    assert [m[0] for m in mixing.Mixing(0.0, 1.0, num_classes=3).choices] == [mixing.cutmix]
    half = mixing.Mixing(num_classes=3)(images.half(), labels)[1]
    assert half.dtype == torch.float16


def test_errors():
    images, labels = batch()
    with pytest.raises(ZooError, match="cutmix_alpha is -1"):
        mixing.Mixing(0.2, -1, num_classes=3)
    with pytest.raises(ZooError, match="alpha is 0"):
        mixing.mixup(images, labels, num_classes=3, alpha=0)
    with pytest.raises(TypeError, match="uint8"):
        mixing.mixup(images.byte(), labels, num_classes=3, alpha=1)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_torchvisions_arithmetic(kind):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    torch.manual_seed(0)
    images, labels = torch.rand(5, 3, 20, 24), torch.tensor([0, 1, 2, 3, 1])
    transform = (v2.MixUp if kind == "mixup" else v2.CutMix)(alpha=1.0, num_classes=4)
    for _ in range(10):
        params = {**transform.make_params([images]), "labels": labels, "batch_size": 5}
        if kind == "mixup":
            ours, targets = mixing.mixup_by(images, labels, num_classes=4, lam=params["lam"])
        else:
            x1, y1, x2, y2 = (int(n) for n in params["box"])
            ours, targets = mixing.cutmix_by(images, labels, num_classes=4, box=(y1, x1, y2, x2))
        assert torch.allclose(ours, transform.transform(images, params), atol=1e-6)
        assert torch.allclose(targets, transform.transform(labels, params), atol=1e-6)
