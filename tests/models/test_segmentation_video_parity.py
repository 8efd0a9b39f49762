"""Segmentation networks and those of clips against torchvision, where it is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity import no_dropout

from lightning_zoo import models

CASES = [
    (task, name)
    for task in ("segmentation", "video")
    for name in models.list_models(task)
    if models.get_entry(name, task).weights
]


@pytest.mark.parity
@pytest.mark.parametrize(("task", "name"), CASES)
def test_same_outputs_and_gradients(task: str, name: str) -> None:
    """In float64, where a rounding decides nothing."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    args: dict[str, Any] = {"num_classes": 5}
    if task == "segmentation" and not name.startswith("lraspp"):
        args["aux_loss"] = True
    backbone = {"weights_backbone": None} if task == "segmentation" else {}
    theirs = getattr(getattr(torchvision.models, task), name)(weights=None, **backbone, **args)
    if task == "segmentation":
        args["pretrained_backbone"] = False
    ours = getattr(getattr(models, task), name)(**args)
    ours.load_state_dict(theirs.state_dict())
    shape = (2, 3, 40, 56) if task == "segmentation" else (2, 3, 4, 24, 32)
    x = torch.randn(shape, dtype=torch.float64)
    outputs = []
    for model in (theirs, ours):
        model.double().train()
        no_dropout(model)
        out = model(x)
        found = list(out.values()) if task == "segmentation" else [out]
        sum(value.square().mean() for value in found).backward()
        with torch.no_grad():
            out = model.eval()(x)
        outputs.append([*found, *(out.values() if task == "segmentation" else [out])])
    for got, want in zip(outputs[1], outputs[0], strict=True):
        torch.testing.assert_close(got, want)
    for (key, p), (other, q) in zip(
        theirs.named_parameters(), ours.named_parameters(), strict=True
    ):
        assert key == other
        assert float((p.grad - q.grad).norm()) <= 1e-6 * float(p.grad.norm()) + 1e-9, key
