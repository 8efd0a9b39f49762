"""Detectors: structure, recorded answers, options, loading, and what they do with odd targets."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import CASES, answers, make_images, make_targets, set_values, tame
from parity import (
    assert_close,
    calibrate,
    constant,
    fill,
    inputs,
    load_golden,
    write_stand_in,
)
from torch import Tensor, nn

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.layers import FrozenBatchNorm2d
from lightning_zoo.models import hub
from lightning_zoo.models.detection import backbones
from lightning_zoo.models.detection.names import current_name

NAMES = models.list_models("detection")
PUBLISHED = [name for name in NAMES if models.get_entry(name).weights]
OWN = [name for name in NAMES if name not in PUBLISHED]
KEYS = load_golden("detection.keys.json.gz")
SMALL = load_golden("small_detectors.json.gz")
PRETRAINED = load_golden("detection_pretrained.json.gz")
EPS_0 = {"fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn",
         "retinanet_resnet50_fpn"}  # fmt: skip
TINY: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "fpn_channels": 16, "num_classes": 4,
                        "min_size": 64, "max_size": 96}  # fmt: skip
PARTS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {"representation_size": 32},
    "mask_rcnn": {"representation_size": 32, "mask_layers": (16, 16), "mask_dim_reduced": 16},
    "keypoint_rcnn": {"representation_size": 32, "keypoint_layers": (16,), "num_keypoints": 6},
    "retinanet": {},
}
NEW = re.compile(
    r"box_predictor|mask_fcn_logits|kps_score|cls_logits\.(weight|bias)$"
    r"|classification_head\.module_list\.\d+\.(1\.)?(weight|bias)$"
)


def build(name: str, **kwargs: Any) -> Any:
    """Build a detector without any download."""
    if name in PUBLISHED:
        kwargs = {"pretrained_backbone": False, **kwargs}
    return getattr(models.detection, name)(**kwargs)


def tiny(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return build(name, **{**TINY, **PARTS[name], **kwargs})


def float_targets(**kwargs: int) -> list[dict[str, Any]]:
    return [
        {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v
         for k, v in target.items()}
        for target in make_targets(num_classes=4, **kwargs)
    ]  # fmt: skip


def float_images() -> list[Tensor]:
    return [image.float() for image in make_images()]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(params=sorted(PARTS))
def family(request: pytest.FixtureRequest) -> Iterator[Any]:
    return tiny(request.param)


# ---------------------------------------------------------------------------------------------
# Structure and answers


def test_golden_data_is_complete() -> None:
    assert len(NAMES) == 12
    assert set(KEYS) == set(PRETRAINED) == set(PUBLISHED)
    assert set(SMALL) == set(CASES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict(name: str) -> None:
    with torch.device("meta"):
        state = build(name).state_dict()
    got = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    assert got == {key: (shape, dtype) for key, shape, dtype in KEYS[name]}


def close(got: Any, want: Any, what: str) -> None:
    torch.testing.assert_close(
        torch.tensor(got).double(), torch.tensor(want).double(), rtol=2e-4, atol=2e-4, msg=what
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n.startswith(("ssd300", "keypoint")) else [])
     for n in CASES],
)  # fmt: skip
def test_recorded_answers(name: str) -> None:
    """Detections, losses and gradients of small networks in float64, as torchvision's were."""
    torch.manual_seed(0)
    kwargs = dict(CASES[name])
    if name in OWN:
        kwargs["backbone"] = "resnet18"
    model = build(name, **kwargs)
    set_values(model)
    got, want = answers(model, kwargs["num_classes"]), SMALL[name]
    for a, b in zip(got["detections"], want["detections"], strict=True):
        assert a.keys() == b.keys()
        assert a["count"] == b["count"] > 0
        scores = torch.tensor([2.0, *b["scores"], -1.0]).double()
        apart = scores.diff().abs() > 1e-6  # those that tie may come in another order
        rows = torch.where(apart[:-1] & apart[1:])[0].tolist()
        close(a["scores"], b["scores"], "scores")
        for key in a.keys() - {"scores", "count"}:
            close([a[key][i] for i in rows], [b[key][i] for i in rows], key)
    for what in ("losses", "gradients"):
        assert got[what].keys() == want[what].keys()
        for key, value in want[what].items():
            close(got[what][key], value, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_recorded_answers_of_pretrained(name: str, cache: Path) -> None:
    """The real networks through the real loading path, under today's and the old names."""
    golden = PRETRAINED[name]
    donor = build(name)
    state = fill(donor.state_dict())
    tame(state, golden["scale"])
    donor.load_state_dict(state)
    batch = inputs(f"{name}:pretrained", [2, 3, 300, 320])
    calibrate(donor, lambda: donor.backbone(batch))
    cache.mkdir(parents=True)
    torch.save(donor.state_dict(), cache / golden["file"])
    model = getattr(models.detection, name)(pretrained=True).eval()
    import zlib

    import numpy as np

    rng = np.random.default_rng(zlib.crc32(f"images:{name}:pretrained".encode()))
    images = [torch.tensor(rng.uniform(0, 1, (3, *s)), dtype=torch.float32)
              for s in golden["sizes"]]  # fmt: skip
    with torch.no_grad():
        found = model(images)[0]
    want = golden["predictions"][0]
    assert abs(len(found["scores"]) - want["count"]) <= max(1, want["count"] // 50)
    assert_close(found["scores"][: len(want["scores"])].tolist(), want["scores"], "scores")


def test_anchors_by_hand() -> None:
    from lightning_zoo.models.detection.anchors import AnchorGenerator
    from lightning_zoo.models.detection.transform import ImageList

    make = AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),))
    images = ImageList(torch.zeros(2, 3, 64, 96), [(64, 96), (50, 60)])
    first, second = make(images, [torch.zeros(2, 1, 4, 6)])
    assert first is second
    assert first.shape == (4 * 6 * 3, 4)
    assert first[:3].tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert first[3].tolist() == [-23 + 16, -11, 23 + 16, 11]
    assert make(images, [torch.zeros(2, 1, 4, 6)])[0] is first  # kept
    assert not copy.deepcopy(make)._kept
    with pytest.raises(ZooError, match="sizes for 1 feature maps but the backbone gives 2"):
        make(images, [torch.zeros(2, 1, 4, 6)] * 2)
    with pytest.raises(ZooError, match="sizes of 2 feature maps and aspect ratios of 1"):
        AnchorGenerator(((32,), (64,)), ((1.0,),))


def test_sizes_by_hand() -> None:
    from lightning_zoo.models.detection.transform import GeneralizedRCNNTransform

    resize = GeneralizedRCNNTransform((640, 800), 1333, [0.0] * 3, [1.0] * 3).eval()
    sizes = {(480, 640): (800, 1066), (427, 640): (800, 1199), (375, 500): (800, 1066),
             (100, 1000): (133, 1333)}  # fmt: skip
    assert {size: resize.target_size(*size) for size in sizes} == sizes
    torch.manual_seed(0)
    drawn = {resize.train().target_size(480, 640)[0] for _ in range(20)}
    assert drawn == {640, 800}
    square = GeneralizedRCNNTransform(1, 1, [0.0] * 3, [1.0] * 3, fixed_size=(300, 200))
    assert square.target_size(480, 640) == (200, 300)
    batch, _ = resize.eval()([torch.ones(3, 480, 640), torch.ones(3, 400, 400)])
    assert batch.tensors.shape == (2, 3, 800, 1088)
    assert float(batch.tensors[:, :, :, 1066:].sum() + batch.tensors[1, :, :, 800:].sum()) == 0


def test_uint8_images_are_the_same(family: Any) -> None:
    images = [(image * 255).to(torch.uint8) for image in float_images()]
    with torch.no_grad():
        a = family.eval()(images)
        b = family([image / 255 for image in images])
    for x, y in zip(a, b, strict=True):
        assert all(torch.equal(x[key], y[key]) for key in x)


# ---------------------------------------------------------------------------------------------
# Learning


def test_step_and_detections(family: Any) -> None:
    targets = float_targets()
    before = copy.deepcopy(targets)
    losses = family.train()(float_images(), targets)
    for a, b in zip(before, targets, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in family.parameters())
    family.eval()
    if hasattr(family, "roi_heads"):
        family.roi_heads.score_thresh = 0.0
    else:
        family.score_thresh = 0.0
    with torch.no_grad():
        detections = family(float_images())
    for found, image in zip(detections, float_images(), strict=True):
        count, (h, w) = len(found["boxes"]), image.shape[1:]
        assert count
        assert (found["scores"].diff() <= 0).all()
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([w, h, w, h]) + 1e-3).all()
        if "masks" in found:
            assert found["masks"].shape == (count, 1, h, w)
            assert 0 <= float(found["masks"].min()) <= float(found["masks"].max()) <= 1
        if "keypoints" in found:
            assert found["keypoints"].shape == (count, 6, 3)
            assert found["keypoints_scores"].shape == (count, 6)


def test_bfloat16(family: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = family.train()(float_images(), float_targets())
        with torch.no_grad():
            detections = family.eval()(float_images())
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(found["boxes"].dtype == torch.float32 for found in detections)


def without_objects(target: dict[str, Any]) -> dict[str, Any]:
    return {k: v[:0] if isinstance(v, Tensor) else v for k, v in target.items()}


@pytest.mark.parametrize("which", [[0], [0, 1]])
def test_images_without_objects(family: Any, which: list[int]) -> None:
    """They count as background; every parameter gets a gradient, as DDP expects."""
    targets = [without_objects(t) if i in which else t for i, t in enumerate(float_targets())]
    losses = family.train()(float_images(), targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    if len(which) == 2:
        for key in ("loss_box_reg", "loss_rpn_box_reg", "loss_mask", "loss_keypoint",
                    "bbox_regression"):  # fmt: skip
            assert float(losses.get(key, torch.tensor(0.0)).detach()) == 0
    sum(losses.values()).backward()
    assert [n for n, p in family.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in family.parameters())


def test_no_proposals_at_all() -> None:
    model = tiny("mask_rcnn", rpn_score_thresh=1.1)
    losses = model.train()(float_images(), [without_objects(t) for t in float_targets()])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        found = model.eval()(float_images())[0]
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 1, *make_images()[0].shape[1:])


def test_losses_in_evaluation(family: Any) -> None:
    """They come beside the same detections, change nothing, and depend on no draw."""
    images, targets = float_images(), float_targets()
    targets[0]["iscrowd"][1] = 1
    family.eval()
    before = copy.deepcopy(family.state_dict())
    with torch.no_grad():
        plain = family(images)
        losses, detections = family(images, targets, with_losses=True)
        torch.rand(3)
        again, _ = family(images, targets, with_losses=True)
        crowdless = [{k: v[[0, 2]] if isinstance(v, Tensor) else v for k, v in targets[0].items()},
                     targets[1]]  # fmt: skip
        other, _ = family(images, crowdless, with_losses=True)
    for a, b in zip(plain, detections, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert losses == again == other
    assert losses.keys() == family.train()(images, targets).keys()
    family.load_state_dict(before)
    for key, value in family.eval().state_dict().items():
        assert torch.equal(value, before[key])


def test_evaluation_leaves_the_rng_alone(family: Any) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in family.eval().state_dict().items()}
    with torch.no_grad():
        family(float_images(), float_targets(), with_losses=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in family.state_dict().items())


# ---------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"boxes": [[5.0, 5, 5, 9], [0, 0, 9, 9], [0, 0, 9, 9]]},
         r"image 40 has the box \[5, 5, 5, 9\]; expected finite x1 < x2"),
        ({"boxes": [[0.0, 0, 9, 9], [float("nan"), 0, 9, 9], [0, 0, 9, 9]]}, "image 40 has .*nan"),
        ({"labels": [1, 4, 1]}, "image 40 has the label 4; the model has num_classes=4, .* 0 to 3"),
        ({"labels": [1, -1, 1]}, "image 40 has the label -1"),
        ({"labels": [1.0, 1.0, 1.0]}, "labels of image 40 are torch.float32; expected torch.int64"),
        ({"labels": [1]}, r"labels of image 40 has shape \(1,\) for 3 boxes; expected \(M,\)"),
        ({"boxes": [0.0, 0, 9, 9]}, r"boxes of image 40 has shape \(4,\); expected \(M, 4\)"),
        ({"labels": None}, "the target of image 40 has no 'labels'; it has area, boxes"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_learned(change: dict[str, Any], text: str) -> None:
    model = tiny("retinanet").train()
    targets = float_targets()
    for key, value in change.items():
        if value is None:
            del targets[0][key]
        else:
            targets[0][key] = torch.tensor(value)
    with pytest.raises(ZooError, match=text):
        model(float_images(), targets)


def test_other_mistakes() -> None:
    model = tiny("mask_rcnn").train()
    images, targets = float_images(), float_targets()
    with pytest.raises(ZooError, match="targets are missing"):
        model(images)
    with pytest.raises(ZooError, match="there are 2 images and 1 targets"):
        model(images, targets[:1])
    with pytest.raises(ZooError, match="images is empty"):
        model([])
    with pytest.raises(ZooError, match=r"images\[1\] is torch.int64; expected float in \[0, 1\]"):
        model([images[0], images[1].long()], targets)
    with pytest.raises(ZooError, match=r"images\[0\] has shape \(1, 96, 128\)"):
        model([images[0][:1], images[1]], targets)
    targets[1]["masks"] = targets[1]["masks"][:, :50]
    with pytest.raises(ZooError, match=r"masks of image 41 has shape \(3, 50, 70\) for 3 boxes"):
        model(images, targets)
    with pytest.raises(ZooError, match="has no 'keypoints'"):
        tiny("keypoint_rcnn").train()(images, [
            {k: t[k] for k in ("boxes", "labels")} for t in float_targets()])  # fmt: skip
    with pytest.raises(ZooError, match="pretrained_backbone is False but weights_backbone='x"):
        build("fasterrcnn_resnet50_fpn", weights_backbone="x.pth")
    with pytest.raises(ZooError, match="has no attribute out_channels"):
        models.detection.FasterRCNN(nn.ReLU(), 2)
    with pytest.raises(ZooError, match="num_classes is 2 and box_predictor is given"):
        models.detection.FasterRCNN(nn.Conv2d(3, 8, 3), 2, box_predictor=nn.Identity())


# ---------------------------------------------------------------------------------------------
# Backbones and norms


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5"]
)
def test_backbones(name: str) -> None:
    backbone = backbones.fpn_backbone(name, out_channels=8)
    maps = backbone.eval()(torch.zeros(1, 3, 128, 96))
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    assert [tuple(m.shape) for m in maps.values()] == [
        (1, 8, 32, 24), (1, 8, 16, 12), (1, 8, 8, 6), (1, 8, 4, 3), (1, 8, 2, 2)]  # fmt: skip
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in backbone.modules())
    frozen = backbones.fpn_backbone(name, loaded=True, trainable_layers=2, out_channels=8)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    trains = [p.requires_grad for p in frozen.body.parameters()]
    assert 0 < sum(trains) < len(trains)
    assert trains == sorted(trains)  # the last ones
    few = backbones.fpn_backbone(name, returned_layers=[2, 3], out_channels=8)
    assert [m.shape[-1] for m in few(torch.zeros(2, 3, 64, 64)).values()] == [8, 4, 2]


@pytest.mark.parametrize(
    ("layers", "frozen"), [(0, ["conv1", "layer1", "layer2", "layer3", "layer4"]),
                           (3, ["conv1", "layer1"]), (4, ["conv1"]), (5, [])]
)  # fmt: skip
def test_trainable_layers(layers: int, frozen: list[str]) -> None:
    with hub.structure_only():
        model = models.detection.fasterrcnn_resnet50_fpn(trainable_backbone_layers=layers)
    got = {
        n.split(".")[0] for n, p in model.backbone.body.named_parameters() if not p.requires_grad
    }
    assert sorted(got) == frozen


def test_trainable_layers_without_weights() -> None:
    with pytest.warns(UserWarning, match="no effect without pretrained weights"):
        model = build("ssdlite320_mobilenet_v3_large", trainable_backbone_layers=2)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ZooError, match="trainable_backbone_layers is 9; expected 0 to 6"):
        build("ssdlite320_mobilenet_v3_large", trainable_backbone_layers=9)


def test_functions_of_the_classic_zoo() -> None:
    backbone = backbones.resnet_fpn_backbone("resnet18", trainable_layers=2)
    assert not any(p.requires_grad for p in backbone.body["layer2"].parameters())
    assert all(p.requires_grad for p in backbone.body["layer3"].parameters())
    model = models.detection.FasterRCNN(backbone, 3, min_size=64, max_size=64)
    assert model.num_classes == 3
    plain = backbones.mobilenet_backbone("mobilenet_v3_small", fpn=False)
    assert plain(torch.zeros(2, 3, 64, 64)).shape[1] == plain.out_channels == 256


# ---------------------------------------------------------------------------------------------
# Weights


@pytest.mark.parametrize("name", PUBLISHED)
def test_structure_only(name: str, cache: Path) -> None:
    """The same network as the loaded one, without its file."""
    weights = models.get_weights(name)
    with torch.device("meta"):
        layout = build(name)
    with hub.structure_only():
        bare = getattr(models.detection, name)(pretrained=True)
    assert not cache.exists()
    norms = [m for m in bare.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert bool(norms) == ("rcnn" in name or name.startswith("retina"))
    assert {m.eps for m in norms} <= ({0.0} if name in EPS_0 else {1e-5})
    trainable = sum(p.requires_grad for p in bare.parameters())
    assert trainable == PRETRAINED[name]["trainable_count"]

    write_stand_in(cache / weights.file_name, layout, rename=old_name)
    other = {"num_keypoints": 5} if "keypoint" in name else {}
    model = getattr(models.detection, name)(pretrained=True, num_classes=7, **other)
    with hub.structure_only():
        twin = getattr(models.detection, name)(pretrained=True, num_classes=7, **other)
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == [
        (n, p.requires_grad) for n, p in twin.named_parameters()]  # fmt: skip
    twin.load_state_dict(model.state_dict())
    norms = [m.eps for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms == [m.eps for m in twin.modules() if isinstance(m, FrozenBatchNorm2d)]

    # another num_classes keeps everything but the head
    report = model.load_report
    state = model.state_dict()
    assert report.new
    assert all(NEW.search(key) and not key.startswith("rpn.") for key in report.new)
    assert {key for key in state if NEW.search(key) and not key.startswith("rpn.")} == set(
        report.new
    )
    for key, value in state.items():
        if value.is_floating_point():
            assert bool((value == constant(key)).all()) == (key not in report.new), key


@pytest.mark.parametrize("name", OWN)
def test_pretrained_backbone_of_ones_own_detector(name: str) -> None:
    args = {"backbone": "resnet18", "weights_backbone": None}
    with hub.structure_only():
        plain, loaded = (tiny(name, **args, pretrained_backbone=flag) for flag in (False, True))
    with pytest.raises(ZooError, match="IMAGENET1K_V9"):  # named weights come first
        tiny(name, **{**args, "weights_backbone": "IMAGENET1K_V9"}, pretrained_backbone=True)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in plain.modules())
    assert any(isinstance(m, FrozenBatchNorm2d) for m in loaded.modules())
    assert not any(p.requires_grad for p in loaded.backbone.body["conv1"].parameters())


def old_name(key: str) -> str:
    """Return the name in the published files."""
    key = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.0\.", r"\1.", key)
    key = re.sub(r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", key)
    key = re.sub(
        r"^roi_heads\.mask_head\.(\d)\.0\.",
        lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}.",
        key,
    )
    return re.sub(
        r"^(head\.(?:classification|regression)_head\.conv)\.(\d)\.0\.",
        lambda m: f"{m[1]}.{2 * int(m[2])}.",
        key,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_names(name: str) -> None:
    keys = [key for key, _, _ in KEYS[name]]
    assert [current_name(key) for key in keys] == keys
    assert [current_name(old_name(key)) for key in keys] == keys


def test_structure_only_gives_equal_answers(cache: Path, tmp_path: Path) -> None:
    """A checkpoint of a network with loaded, frozen norms, into the bare structure."""
    classifier = models.resnet18()
    torch.save(classifier.state_dict(), tmp_path / "mine.pth")
    kwargs = {**TINY, "backbone": "resnet18", "weights_backbone": tmp_path / "mine.pth"}
    model = models.detection.faster_rcnn(**kwargs, box_score_thresh=0.0).eval()
    assert torch.equal(model.backbone.body["conv1"].weight, classifier.conv1.weight)
    (tmp_path / "mine.pth").unlink()
    with hub.structure_only():
        twin = models.detection.faster_rcnn(**kwargs, box_score_thresh=0.0).eval()
        local = models.detection.faster_rcnn(weights="nowhere.pth", **{
            **kwargs, "weights_backbone": None})  # fmt: skip
    assert any(isinstance(m, FrozenBatchNorm2d) for m in local.modules())
    for m in model.modules():
        if isinstance(m, FrozenBatchNorm2d):
            m.eps = 1e-3
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        a, b = model(float_images()), twin(float_images())
    assert all(torch.equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


def test_own_file(tmp_path: Path) -> None:
    model = tiny("mask_rcnn")
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    again = tiny("mask_rcnn", weights=tmp_path / "mine.pth")
    assert any(isinstance(m, FrozenBatchNorm2d) for m in again.modules())
    with torch.no_grad():
        a, b = model.eval()(float_images()), again.eval()(float_images())
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x["boxes"], y["boxes"], rtol=1e-3, atol=1e-3)
