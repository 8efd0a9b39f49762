"""Our operations in ONNX against our operations, with no box, one and many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_zoo import ops
from lightning_zoo.export import files

pytest.importorskip("onnxscript", reason="ONNX needs the extra export")
ort = pytest.importorskip("onnxruntime", reason="ONNX needs the extra export")
FREE = torch.export.Dim.AUTO


def boxes(count: int, side: float = 30) -> Tensor:
    corner = torch.rand(count, 2) * 60
    return torch.cat([corner, corner + 0.1 + torch.rand(count, 2) * side], dim=1)


class Suppress(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, kinds: Tensor) -> Tensor:
        return ops.batched_nms(boxes, scores, kinds, 0.3)


class Align(nn.Module):
    def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor) -> Tensor:
        return ops.multiscale_roi_align([fine, coarse], [boxes], 5, [1 / 4, 1 / 8])


class AlignOne(nn.Module):
    def forward(self, maps: Tensor, boxes: Tensor) -> Tensor:
        return ops.roi_align(maps, [boxes], (3, 4), 0.25, 2, aligned=True)


class Heatmaps(nn.Module):
    def forward(self, heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return ops.decode_heatmaps(heatmaps, boxes)


class Paste(nn.Module):
    def forward(self, masks: Tensor, boxes: Tensor) -> Tensor:
        return ops.paste_masks(masks, boxes, (70, 90))


Make = Callable[[int], tuple[Tensor, ...]]
CASES: dict[str, tuple[nn.Module, Make, int, tuple[int, ...]]] = {
    # beyond 1000 boxes the kinds are kept apart in another way
    "batched_nms": (
        Suppress(),
        lambda n: (boxes(n), torch.rand(n), torch.randint(0, 9, (n,))),
        3,
        (0, 1, 300, 1300),
    ),
    "roi_align of levels": (
        Align(),
        lambda n: (torch.randn(1, 3, 32, 32), torch.randn(1, 3, 16, 16), boxes(n, 300)),
        1,
        (0, 1, 60),
    ),
    "roi_align aligned": (
        AlignOne(),
        lambda n: (torch.randn(1, 3, 20, 24), boxes(n)),
        1,
        (0, 1, 20),
    ),
    "decode_heatmaps": (Heatmaps(), lambda n: (torch.randn(n, 4, 14, 14), boxes(n)), 2, (0, 1, 9)),
    "paste_masks": (
        Paste(),
        lambda n: (torch.rand(n, 1, 28, 28), boxes(n, 60) - 12),
        2,
        (0, 1, 9),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation(name: str, tmp_path: Path) -> None:
    from lightning_zoo.export.onnx_ops import DECOMPOSITIONS, TRANSLATIONS

    module, make, free, counts = CASES[name]
    torch.manual_seed(0)
    example = make(7)
    shapes: Any = tuple({} for _ in example[:-free]) + ({0: FREE},) * free
    with files.quietly():
        program = torch.export.export(module, example, dynamic_shapes=shapes)
        made = torch.onnx.export(
            program.run_decompositions(DECOMPOSITIONS), dynamo=True, verbose=False,
            opset_version=18, custom_translation_table=TRANSLATIONS,
        )  # fmt: skip
    assert made is not None
    made.save(tmp_path / "op.onnx")
    session = ort.InferenceSession(tmp_path / "op.onnx")
    for count in counts:
        given = make(count)
        wanted = module(*given)
        named = zip(session.get_inputs(), given, strict=True)
        found = session.run(None, {one.name: value.numpy() for one, value in named})
        for a, b in zip(wanted if isinstance(wanted, tuple) else (wanted,), found, strict=True):
            assert len(a) or not count
            torch.testing.assert_close(torch.from_numpy(b), a, atol=2e-5, rtol=1e-4)


def test_masks_as_matrix_products() -> None:
    """Boxes beyond the image, inverted ones and such of a single pixel, against box by box."""
    from lightning_zoo.export.onnx_ops import paste_masks

    torch.manual_seed(0)
    given = torch.tensor([
        [-20.0, -9, 30, 40], [50, 60, 300, 200], [200, 200, 260, 240], [3, 3, 3.5, 3.5],
        [30, 30, 20, 10], [0, 0, 89, 69],
    ])  # fmt: skip
    masks = torch.rand(len(given), 1, 28, 28)
    wanted = ops.paste_masks(masks, given, (70, 90))
    assert (wanted.flatten(1).amax(1) > 0).tolist() == [True, True, False, True, False, True]
    torch.testing.assert_close(paste_masks(masks, given, 70, 90, 1), wanted, atol=1e-5, rtol=1e-5)
