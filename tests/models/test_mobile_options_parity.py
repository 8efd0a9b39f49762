"""The options of the mobile and Inception families, held against torchvision where it is installed.

The default networks are held against recorded figures, without torchvision.
"""

import pytest
import torch

from lightning_zoo import models

CASES = [
    *(("mobilenet_v2", {"width_mult": w, "round_nearest": r}) for w, r in ((0.35, 8), (1.4, 4))),
    ("mobilenet_v2", {"inverted_residual_setting": [[1, 16, 1, 1], [6, 24, 2, 2]], "dropout": 0.4}),
    *(
        (name, kwargs)
        for name in ("mobilenet_v3_large", "mobilenet_v3_small")
        for kwargs in (
            {"reduced_tail": True},
            {"dilated": True},
            {"dilated": True, "reduced_tail": True, "width_mult": 0.75, "num_classes": 21},
        )
    ),
    ("mnasnet1_3", {"dropout": 0.3}),
    ("shufflenet_v2_x0_5", {"num_classes": 7}),
    ("googlenet", {"init_weights": False, "transform_input": True, "dropout_aux": 0.5}),
    ("googlenet", {"init_weights": False, "aux_logits": False}),
    ("inception_v3", {"init_weights": False, "transform_input": True, "dropout": 0.3}),
]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=lambda value: str(value)[:40])
def test_same_draws_and_same_outputs(name, kwargs):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(**kwargs)
    torch.manual_seed(0)
    ours = getattr(models, name)(**kwargs)
    want, got = theirs.state_dict(), ours.state_dict()
    assert list(got) == list(want)
    assert all(torch.equal(got[key], want[key]) for key in want)
    x = torch.randn(2, 3, 299, 310) if name == "inception_v3" else torch.randn(2, 3, 96, 101)
    for mode in (True, False):
        outs = []
        for model in (theirs, ours):
            torch.manual_seed(1)  # of the dropout
            with torch.no_grad():
                out = model.train(mode)(x)
            outs.append([out] if isinstance(out, torch.Tensor) else list(out))
        torch.testing.assert_close(outs[1], outs[0])


@pytest.mark.parity
def test_mnasnet_version_1_as_torchvision_loads_it():
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.mnasnet0_5()
    state = theirs.state_dict()
    for key, value in state.items():  # the shapes of version 1: 32 and 16 channels in the stem
        stem = key.startswith("layers.") and int(key.split(".")[1]) < 8
        first = key.startswith("layers.8.0.layers.")
        if value.ndim == 0 or not (stem or first):
            continue
        layer = int(key.split(".")[1]) if stem else 8 + int(key.split(".")[4])
        wide = {0: 32, 1: 32, 3: 32, 4: 32, 6: 16, 7: 16, 8: 48, 9: 48, 11: 48, 12: 48}
        shape = list(value.shape)
        shape[0] = wide.get(layer, shape[0])
        if value.ndim == 4 and shape[1] > 1 and layer in (6, 8, 14):
            shape[1] = {6: 32, 8: 16, 14: 48}[layer]
        state[key] = torch.rand(shape)
    state._metadata[""]["version"] = 1
    with pytest.warns(UserWarning, match="previous version"):
        theirs.load_state_dict(state)
    ours = models.mnasnet0_5()
    ours.load_state_dict(state)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert ours.state_dict()._metadata[""] == theirs.state_dict()._metadata[""] == {"version": 1}
