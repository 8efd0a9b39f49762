from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_zoo.errors import ZooError
from lightning_zoo.ops import multiscale_roi_align, roi_align


def sample(plane: Tensor, y: float, x: float) -> Tensor:
    """Return the bilinear value of a map (C, H, W) at one point."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(plane[:, 0, 0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    b, a = y - y0, x - x0
    top = plane[:, y0, x0] * (1 - a) + plane[:, y0, x1] * a
    bottom = plane[:, y1, x0] * (1 - a) + plane[:, y1, x1] * a
    return top * (1 - b) + bottom * b


def slow_roi_align(
    features: Tensor, rois: Tensor, size: int, scale: float, samples: int, aligned: bool
) -> Tensor:
    out = features.new_zeros(len(rois), features.shape[1], size, size)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0.0) for c in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        rows = samples if samples > 0 else math.ceil(height / size)
        columns = samples if samples > 0 else math.ceil(width / size)
        for i in range(size):
            for j in range(size):
                for p in range(rows):
                    for q in range(columns):
                        y = y1 + (i + (p + 0.5) / rows) * height / size
                        x = x1 + (j + (q + 0.5) / columns) * width / size
                        value = sample(features[int(image)], y, x)
                        out[k, :, i, j] += value / (rows * columns)
    return out


ROIS = torch.tensor(
    [
        [0, 1.3, 2.1, 7.7, 9.4],
        [1, 0, 0, 11, 9],  # the whole map
        [1, 4, 4, 4, 4],  # a point
        [0, -3, -2.5, 3, 20],  # sticks out
        [1, 30, 30, 40, 40],  # outside
        [0, 6, 7, 2, 3],  # inverted
        [1, 2, 3, 2.4, 3.2],
    ],
    dtype=torch.float64,
)
FEATURES = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3, 0, -1])
def test_slow_formula(aligned: bool, samples: int) -> None:
    for scale in (1.0, 0.5):
        expected = slow_roi_align(FEATURES, ROIS, 3, scale, samples, aligned)
        for features in (FEATURES, FEATURES.contiguous(memory_format=torch.channels_last)):
            got = roi_align(features, ROIS, 3, scale, samples, aligned)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        single = roi_align(FEATURES.float(), ROIS.float(), 3, scale, samples, aligned)
        torch.testing.assert_close(single, expected.float(), rtol=0, atol=3e-6)


def test_by_hand() -> None:
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    # samples at x = 1.5 and 2.5 of the first bin, 3.5 and 4.5 of the second
    out = roi_align(ramp, [torch.tensor([[1.0, 1, 5, 5]])], 2, sampling_ratio=2)
    assert out[0, 0].tolist() == [[2, 4], [2, 4]]
    out = roi_align(ramp, [torch.tensor([[1.0, 1, 5, 5]])], 2, sampling_ratio=2, aligned=True)
    assert out[0, 0].tolist() == [[1.5, 3.5], [1.5, 3.5]]
    assert roi_align(ramp, [torch.tensor([[1.0, 1, 5, 5]])], (1, 2)).shape == (1, 1, 1, 2)


@pytest.mark.parametrize("samples", [2, -1])
def test_masks_of_integers(samples: int) -> None:
    masks = (torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.5).byte()
    rois = torch.tensor([[0, 1, 2, 17, 13], [2, 0, 0, 5, 20.0]])
    got = roi_align(masks, rois, 7, 1.0, samples)
    assert got.dtype == torch.float32
    assert torch.equal(got, roi_align(masks.float(), rois, 7, 1.0, samples))


@pytest.mark.parametrize("samples", [1, 2, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_gradient(samples: int, aligned: bool) -> None:
    features = FEATURES[:, :1, :5, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: roi_align(f, ROIS, 2, 0.5, samples, aligned), (features,)
    )


def test_gradient_of_all_levels() -> None:
    features = [FEATURES[:, :1, :6, :6].clone(), FEATURES[:, :1, :3, :3].clone()]
    features = [f.requires_grad_() for f in features]
    boxes = [ROIS[:3, 1:] * 8, ROIS[3:, 1:] * 16]

    def pool(*maps: Tensor) -> Tensor:
        return multiscale_roi_align(list(maps), boxes, 2, [1 / 8, 1 / 16], canonical_scale=64)

    assert torch.autograd.gradcheck(pool, tuple(features))


@pytest.mark.parametrize("samples", [2, -1])
def test_backward_repeats_bit_for_bit(samples: int) -> None:
    g = torch.Generator().manual_seed(1)
    features = torch.randn(2, 16, 30, 40, generator=g, requires_grad=True)
    rois = torch.rand(200, 5, generator=g) * 30
    rois[:, 0] = (rois[:, 0] > 15).float()
    rois[:, 3:] += rois[:, 1:3]
    weight = torch.randn(200, 16, 7, 7, generator=g)
    grads = []
    for threads in (1, 2, 1):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        out = roi_align(features, rois, 7, 1.0, samples)
        grads.append(torch.autograd.grad(out, features, weight)[0])
        torch.set_num_threads(before)
    assert all(torch.equal(grads[0], g) for g in grads[1:])


def test_levels() -> None:
    maps = [torch.full((1, 2, s, s), float(level)) for level, s in enumerate((64, 32, 16, 8), 2)]
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    sides = [10, 111.9, 112, 223.9, 224, 447, 448, 5000]
    boxes = [torch.tensor([[0.0, 0, s, s] for s in sides])]
    out = multiscale_roi_align([m.clone() for m in maps], boxes, 1, scales)
    first = roi_align(maps[0], [boxes[0][:1]], 1, 1 / 4, 2)
    assert out[0, 0, 0, 0] == first[0, 0, 0, 0] == 2
    inside = roi_align(torch.ones(1, 1, 8, 8), boxes, 1, 1 / 32, 2).flatten() > 0
    assert inside[:7].all()
    got = [out[i, 0, 0, 0].item() for i in range(1, 5)]
    assert got == [2, 3, 3, 4]
    one = multiscale_roi_align(maps[:1], boxes, 1, scales[:1])
    assert torch.equal(one, roi_align(maps[0], boxes, 1, 1 / 4, 2))


@pytest.mark.parametrize("samples", [2, -1])
def test_all_levels_at_once_or_one_by_one(samples: int) -> None:
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4, s, s + 1, generator=g) for s in (32, 16, 8)]
    boxes = [torch.rand(12, 4, generator=g) * 100 for _ in range(2)]
    for b in boxes:
        b[:, 2:] += b[:, :2]
    boxes[0][:3, 2:] *= 4
    scales = [1 / 4, 1 / 8, 1 / 16]
    out = multiscale_roi_align(
        maps, boxes, 3, scales, sampling_ratio=samples, canonical_scale=64, canonical_level=3
    )
    choices = [roi_align(m, boxes, 3, s, samples) for m, s in zip(maps, scales, strict=True)]
    area = torch.cat(boxes)
    side = ((area[:, 2] - area[:, 0]) * (area[:, 3] - area[:, 1])).sqrt()
    level = (3 + torch.log2(side / 64)).floor().clamp(2, 4).long() - 2
    assert len(level.unique()) == 3
    expected = torch.stack([choices[int(m)][i] for i, m in enumerate(level)])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [2, -1])
def test_empty(samples: int) -> None:
    features = torch.randn(1, 4, 8, 8, requires_grad=True)
    out = roi_align(features, [torch.zeros(0, 4)], 7, 1.0, samples)
    assert out.shape == (0, 4, 7, 7)
    out.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert roi_align(torch.zeros(0, 4, 8, 8), torch.zeros(0, 5), 7).shape == (0, 4, 7, 7)
    maps = [torch.randn(2, 4, s, s) for s in (8, 4)]
    pooled = multiscale_roi_align(
        maps, [torch.zeros(0, 4)] * 2, 7, [1 / 4, 1 / 8], sampling_ratio=samples
    )
    assert pooled.shape == (0, 4, 7, 7)


@pytest.mark.parametrize("samples", [2, -1])
def test_broken_boxes_give_zeros(samples: int) -> None:
    rois = torch.tensor([[0, math.nan, 0, 4, 4], [0, 0, 0, math.inf, 4], [0, 1, 1, 4, 4]])
    out = roi_align(torch.ones(1, 1, 8, 8), rois, 2, 1.0, samples)
    assert out[0].abs().max() == 0
    assert out[1].isfinite().all()
    torch.testing.assert_close(out[2], torch.ones(1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("samples", [2, -1])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, samples: int) -> None:
    features = FEATURES.to(dtype).requires_grad_()
    rois = ROIS.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = roi_align(features, rois, 3, 1.0, samples)
        exact = roi_align(features.detach().float(), rois, 3, 1.0, samples)
    assert out.dtype == dtype
    assert exact.dtype == torch.float32
    assert torch.equal(exact, roi_align(features.detach().float(), rois, 3, 1.0, samples))
    assert torch.equal(out, exact.to(dtype))
    out.sum().backward()
    assert features.grad.dtype == dtype


def test_ops_pass_torch_own_checks() -> None:
    features = [FEATURES.float().requires_grad_(), FEATURES[..., :5, :5].float().requires_grad_()]
    levels = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    for samples in (2, -1):
        arguments = (features, ROIS.float(), levels, [1.0, 0.5], 3, 2, samples, False)
        torch.library.opcheck(torch.ops.lightning_zoo.roi_align.default, arguments)


class Pool(torch.nn.Module):
    def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor) -> Tensor:
        return multiscale_roi_align([fine, coarse], [boxes], 7, [1 / 4, 1 / 8]).sum(dim=1)


def test_export_with_any_number_of_boxes() -> None:
    maps = torch.randn(1, 4, 40, 40), torch.randn(1, 4, 20, 20)
    boxes = torch.rand(30, 4) * 80 + torch.tensor([0, 0, 80, 80])
    shapes = (None, None, {0: torch.export.Dim("boxes", min=2)})
    exported = torch.export.export(Pool(), (*maps, boxes[:5]), dynamic_shapes=shapes)
    assert torch.equal(exported.module()(*maps, boxes), Pool()(*maps, boxes))


def test_scales_must_be_as_many_as_maps() -> None:
    with pytest.raises(ZooError, match="scales has 2 values for 1 feature maps"):
        multiscale_roi_align([FEATURES], [ROIS[:, 1:]], 7, [1.0, 0.5])
