"""Networks of clips: structure, recorded answers, options, loading, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    assert_close,
    assert_digest,
    assert_gradients,
    calibrate,
    constant,
    fill,
    inputs,
    load_golden,
    no_dropout,
    write_stand_in,
)
from torch.nn.functional import cross_entropy

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.models.video.resnet import Conv2Plus1D, hidden_width

NAMES = models.list_models("video")
PUBLISHED = [name for name in NAMES if models.get_entry(name).weights]
GOLDEN = load_golden("video.json.gz")
KEYS = load_golden("video.keys.json.gz")
PRETRAINED = load_golden("video_pretrained.json.gz")
CONVOLUTIONS = ["3d", "mixed", "2plus1d"]
# mc3_18 is the smallest; the others take a while
SLOW = [pytest.param(n, marks=[] if n == "mc3_18" else [pytest.mark.slow]) for n in PUBLISHED]


def build_meta(name: str, **kwargs: Any) -> Any:
    with torch.device("meta"):
        return getattr(models.video, name)(**kwargs)


def tiny(conv: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    small = {"layers": (1, 2), "widths": (8, 12), "num_classes": 4}
    return models.video.video_resnet(conv=conv, **{**small, **kwargs})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_golden_data_is_complete() -> None:
    assert len(NAMES) == 4
    assert set(GOLDEN) == set(KEYS) == set(PRETRAINED) == set(PUBLISHED)
    assert set(NAMES) < set(models.video.__all__)
    for name in models.video.__all__:
        assert callable(getattr(models.video, name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict(name: str) -> None:
    state = build_meta(name, **GOLDEN[name]["kwargs"]).state_dict()
    got = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    assert got == {key: (shape, dtype) for key, shape, dtype in KEYS[name]}


@pytest.mark.parametrize("name", SLOW)
def test_outputs_losses_and_gradients(name: str) -> None:
    golden = GOLDEN[name]
    model = getattr(models.video, name)(**golden["kwargs"])
    model.load_state_dict(fill(model.state_dict()))
    clips = inputs(name, golden["input"])
    calibrate(model, lambda: model(clips))
    with torch.no_grad():
        assert_digest(model(clips), golden["logits"], "logits")
    model.train()
    no_dropout(model)
    loss = cross_entropy(model(clips), torch.arange(2))
    assert_close([loss.item()], [golden["train"]["loss"]], "training loss", rtol=5e-3)
    loss.backward()
    assert_gradients(model, golden["train"]["grad_norm"])


@pytest.mark.parametrize("name", SLOW)
def test_pretrained_outputs(name: str, cache: Path) -> None:
    golden = PRETRAINED[name]
    donor = getattr(models.video, name)()
    donor.load_state_dict(fill(donor.state_dict()))
    clips = inputs(f"{name}:pretrained", golden["input"])
    calibrate(donor, lambda: donor(clips))
    cache.mkdir(parents=True)
    torch.save(donor.state_dict(), cache / golden["file"])
    model = getattr(models.video, name)(pretrained=True).eval()
    assert sum(p.requires_grad for p in model.parameters()) == golden["trainable_count"]
    with torch.no_grad():
        assert_digest(model(clips), golden["out"]["logits"], "logits")


@pytest.mark.parametrize("name", PUBLISHED)
def test_fine_tuning(name: str, cache: Path) -> None:
    """Another ``num_classes`` keeps everything but the head."""
    weights = models.get_weights(name)
    write_stand_in(cache / weights.file_name, build_meta(name))
    model = getattr(models.video, name)(pretrained=True, num_classes=7)
    report, state = model.load_report, model.state_dict()
    assert report.new == ("fc.weight", "fc.bias")
    assert (report.reshaped, report.dropped, report.filled) == ((), (), ())
    for key, value in state.items():
        if value.is_floating_point():
            assert bool((value == constant(key)).all()) == (key not in report.new), key
    with hub.structure_only():
        twin = getattr(models.video, name)(pretrained=True, num_classes=7)
    twin.load_state_dict(state)


def test_hidden_widths() -> None:
    """Both convolutions of a block have the hidden width of the first."""
    model = build_meta("r2plus1d_18")
    widths = [
        [m[0].out_channels for m in block.modules() if isinstance(m, Conv2Plus1D)]
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4)
        for block in stage
    ]
    first, second = [144, 230, 460, 921], [144, 288, 576, 1152]
    assert widths[::2] == [[w, w] for w in first]
    assert widths[1::2] == [[w, w] for w in second]
    assert hidden_width(64, 64) == 144
    assert model.stem[0].out_channels == 45


@pytest.mark.parametrize(
    ("name", "frames"),
    [("r3d_18", [16, 8, 4, 2]), ("mc3_18", [16] * 4), ("r2plus1d_18", [16, 8, 4, 2])],
)
def test_frames_of_the_maps(name: str, frames: list[int]) -> None:
    model = build_meta(name)
    x = model.stem(torch.zeros(1, 3, 16, 112, 112, device="meta"))
    assert x.shape == (1, 64, 16, 56, 56)
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        shapes.append(tuple(x.shape[2:]))
    assert shapes == [(t, s, s) for t, s in zip(frames, (56, 28, 14, 7), strict=True)]


def test_init() -> None:
    torch.manual_seed(0)
    model = models.video.r3d_18(num_classes=5)
    assert float(model.fc.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not model.fc.bias.detach().any()
    fan_out = 64 * 27
    spread = float(model.layer1[0].conv1[0].weight.detach().std())
    assert spread == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_step_and_logits(conv: str) -> None:
    model = tiny(conv)
    clips = torch.randn(2, 3, 4, 20, 26)
    logits = model.train()(clips)
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(clips[:1]), model(clips)[:1])
        assert model(torch.randn(1, 3, 1, 1, 1)).shape == (1, 4)
        exported = torch.export.export(model, (clips,)).module()
        torch.testing.assert_close(exported(clips), model(clips))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model(clips)).all()


def test_the_mixed_network_sees_each_frame_alone_after_its_first_stage() -> None:
    """A change in the last frame moves no map of a frame that the 3-D stage did not join to it."""
    model = tiny("mixed").eval()
    clip = torch.randn(1, 3, 12, 16, 16)
    other = clip.clone()
    other[:, :, -1] += 1
    with torch.no_grad():
        moved = [(model.layer2(model.layer1(model.stem(x)))) for x in (clip, other)]
    differs = (moved[0] != moved[1]).flatten(3).any(3).any(1)[0]
    assert differs.tolist() == [False] * 8 + [True] * 4  # the stem and two convolutions: 3 frames


def test_mistakes() -> None:
    with pytest.raises(ZooError, match="unknown conv '2plus1'; did you mean 2plus1d"):
        tiny("2plus1")
    with pytest.raises(ZooError, match=r"layers is \[1, 2\] and widths \[8\]; expected as many"):
        tiny("3d", widths=(8,))
    with pytest.raises(TypeError, match=r"r3d_18\(\) has no argument 'num_clases'; did you mean"):
        models.video.r3d_18(num_clases=3)


def test_own_file(tmp_path: Path) -> None:
    model = tiny("2plus1d")
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    again = tiny("2plus1d", weights=tmp_path / "mine.pth", num_classes=9)
    assert again.load_report.new == ("fc.weight", "fc.bias")
    with pytest.raises(ZooError, match=r"mine.pth does not fit video_resnet: it lacks"):
        tiny("3d", weights=tmp_path / "mine.pth")
