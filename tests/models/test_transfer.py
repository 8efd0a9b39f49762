"""Classes that the file's head knows by name keep their rows, of every family: logits say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_zoo import models
from lightning_zoo.models import hub
from lightning_zoo.models.registry import BACKGROUND, ModelEntry, class_names, registry
from lightning_zoo.models.transfer import (
    KeptRows,
    head_tensors,
    keep_class_rows,
    match_classes,
    table,
)

SMALL: dict[str, Any] = {
    "backbone": "shufflenet_v2_x0_5", "fpn_channels": 16, "min_size": 64, "max_size": 96,
}  # fmt: skip
ARGS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {**SMALL, "representation_size": 16},
    "mask_rcnn": {**SMALL, "representation_size": 16, "mask_layers": (8,), "mask_dim_reduced": 8},
    "keypoint_rcnn": {**SMALL, "representation_size": 16, "keypoint_layers": (8,)},
    "retinanet": SMALL,
    "fcn": {"backbone": "resnet18", "aux_loss": True},
    "deeplabv3": {"backbone": "mobilenet_v3_small", "aux_loss": True},
    "lraspp": {"backbone": "mobilenet_v3_small"},
    "video_resnet": {"layers": (1, 1, 1, 1)},
    "googlenet": {"aux_logits": True, "init_weights": False},
    "inception_v3": {"aux_logits": True, "init_weights": False},
    "fcn_resnet50": {"aux_loss": True},
    "deeplabv3_resnet50": {"aux_loss": True},
}
ENTRIES = list(registry().values())
SOURCE = ["cat", "dog", "grey owl", "Cow"]
# A subset in another order, the same number in another order and partly new, a superset; with
# places in the data and in the file, behind the background.
TARGETS = {
    "subset": (["Cow", "dog"], {1: 4, 2: 2}),
    "as many": (["grey-owl", "red blood cell", "cat", "cow"], {1: 3, 3: 1, 4: 4}),
    "superset": (["RBC", "DOG", "cat", "WBC", "grey_owl", "COW"], {2: 2, 3: 1, 5: 3, 6: 4}),
}


def is_quick(entry: ModelEntry) -> bool:
    """Whether it is the smallest of its family, and small."""
    size = {e.full_name: 0 if e.name in ARGS and not e.weights else e.num_params for e in ENTRIES}
    file = entry.builder.split(":")[0]
    family = [e for e in ENTRIES if e.builder.split(":")[0] == file]
    again = entry.task == "quantization" and "resnet" not in entry.name  # classifiers' heads
    smallest = min(family, key=lambda e: size[e.full_name])
    return entry is smallest and size[entry.full_name] < 2e7 and not again


all_models = pytest.mark.parametrize(
    "entry",
    [pytest.param(e, marks=[] if is_quick(e) else [pytest.mark.slow]) for e in ENTRIES],
    ids=[e.full_name for e in ENTRIES],
)


def build(entry: ModelEntry, **more: Any) -> nn.Module:
    if entry.task in ("detection", "segmentation"):
        more["pretrained_backbone"] = False
    return models.get_model(entry.full_name, **ARGS.get(entry.name, {}), **more)


def with_background(entry: ModelEntry, names: Sequence[str]) -> list[str]:
    return [BACKGROUND if entry.task == "detection" else "background", *names]


def logits(network: nn.Module, entry: ModelEntry) -> list[Tensor]:
    """Return all that a network says of its classes, the classes in the last dimension."""
    random = torch.Generator().manual_seed(1)

    def noise(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64)

    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    network.double()
    side = max(entry.min_train_size, 32)
    if entry.task == "segmentation":
        return [x.movedim(1, -1) for x in network.eval()(noise(2, 3, side, side)).values()]
    if entry.task == "video":
        return [network(noise(2, 3, 4, 16, 16))]
    if entry.task != "detection":
        found = network(noise(2, 3, side, side))  # in training: the auxiliary heads answer too
        return list(found) if isinstance(found, tuple) else [found]
    network.eval()
    heads = getattr(network, "roi_heads", None)
    if heads is None:
        maps = list(network.backbone(noise(1, 3, 64, 64)).values())
        found = network.head(maps)
        return [found["cls_logits"]] if isinstance(found, dict) else found[0]
    scores, offsets = heads.box_predictor(noise(3, heads.box_predictor.cls_score.in_features))
    found = [scores, offsets.view(3, -1, 4).movedim(1, -1)]
    if heads.has_mask():
        width = heads.mask_predictor.conv5_mask.in_channels
        found.append(heads.mask_predictor(noise(2, width, 3, 3)).movedim(1, -1))
    return found


def test_every_task_has_a_quick_family() -> None:
    quick = [entry for entry in ENTRIES if is_quick(entry)]
    assert len(quick) >= 15
    assert {entry.task for entry in quick} == {entry.task for entry in ENTRIES}


@all_models
@torch.no_grad()
def test_logits_of_kept_classes_are_the_files(entry: ModelEntry, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    source_names = with_background(entry, SOURCE)
    source = build(entry, num_classes=len(source_names))
    state = {f"model.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "lightning_zoo": {"class_names": source_names}}, path)
    want = logits(source, entry)
    for what, (names, pairs) in TARGETS.items():
        ours = with_background(entry, names)
        network = build(entry, num_classes=len(ours), weights=path)
        kept = keep_class_rows(
            network, model=entry.full_name, weights=path, class_names=ours,
            model_args=ARGS.get(entry.name),
        )  # fmt: skip
        assert kept.kept == tuple(ours[i] for i in pairs)
        assert kept.new == tuple(n for i, n in enumerate(ours) if i and i not in pairs)
        got = logits(network, entry)
        assert len(got) == len(want) > 0
        for a, b in zip(got, want, strict=True):
            assert a.shape[-1] == len(ours)
            for i, place in {0: 0, **pairs}.items():
                torch.testing.assert_close(
                    a[..., i], b[..., place], rtol=1e-13, atol=1e-13, msg=f"{what}: {ours[i]}"
                )
            for i in set(range(len(ours))) - {0, *pairs}:  # what is new is nobody's
                same = [j for j in range(b.shape[-1]) if torch.equal(a[..., i], b[..., j])]
                assert not same or not a[..., i].any()  # SqueezeNet's may be zeros
        # and nothing but the head differs
        values = network.state_dict()
        for name, value in source.double().state_dict().items():
            if name not in kept.tensors and "running" not in name and "tracked" not in name:
                assert torch.equal(values[name], value), name


@all_models
def test_the_head_is_what_loading_leaves_out(entry: ModelEntry) -> None:
    """Against what is new where the published weights are loaded for other classes."""
    weights = entry.default
    of_file = entry.weights[weights].num_classes if weights else 21
    args = ARGS.get(entry.name, {}) if not weights else {}
    if entry.task == "quantization":
        weights = None
    heads = head_tensors(entry.full_name, of_file, weights=weights, model_args=args)
    with hub.structure_only(), torch.device("meta"):
        few, many = (
            models.get_model(entry.full_name, weights=weights, num_classes=n, **args).state_dict()
            for n in (of_file, 3 * of_file)
        )
    assert set(heads) == {name for name in few if few[name].shape != many[name].shape}
    for name, (dim, each) in heads.items():
        assert few[name].shape[dim] == each * of_file
    several = {each for _, each in heads.values()} - {1}
    expected = {"fasterrcnn": {4}, "maskrcnn": {4}, "keypointrcnn": {4}, "retinanet": {9},
                "ssd300": {4, 6}, "ssdlite320": {6}}  # fmt: skip
    assert several == expected.get(entry.name.replace("_rcnn", "rcnn").split("_")[0], set())


# ---------------------------------------------------------------------------------------------
# Names


def test_names_that_are_alike() -> None:
    theirs = ["__background__", "person", "traffic light", "N/A", "hot dog", "Cardigan", "cardigan"]
    ours = ["background", "Traffic-Light", "PERSON", "N/A", "hotdog", "cardigan", "zebra"]
    assert match_classes(ours, theirs) == {0: 0, 1: 2, 2: 1, 4: 4, 5: 6}


def test_synonyms_count_by_the_first_and_by_all() -> None:
    theirs = ["tench, Tinca tinca", "goldfish", "cock", "hen"]
    assert match_classes(["tench", "Tinca tinca", "Goldfish, Carassius auratus"], theirs) == {
        0: 0,
        2: 1,
    }
    assert match_classes(["Tench, tinca-tinca"], theirs) == {0: 0}


def test_no_class_is_taken_twice() -> None:
    assert match_classes(["Dog", "dog", "DOG"], ["dog"]) == {1: 0}
    assert match_classes(["dog"], ["DOG", "dog", "Dog"]) == {0: 1}
    assert match_classes(["", "N/A"], ["", "N/A"]) == {}


def test_published_names_are_found() -> None:
    coco, voc = class_names("coco"), class_names("voc")
    pairs = match_classes(["background", "Bus", "dining_table", "aeroplane"], voc)
    assert pairs == {0: 0, 1: 6, 2: 11, 3: 1}
    assert len(match_classes(coco, coco)) == 81
    assert voc[0] == "__background__"


# ---------------------------------------------------------------------------------------------
# Files


def shufflenet(num_classes: int = 4, **kwargs: Any) -> nn.Module:
    return models.get_model("shufflenet_v2_x0_5", num_classes=num_classes, **kwargs)


def keep(network: nn.Module, path: Path, names: Sequence[str]) -> KeptRows:
    return keep_class_rows(network, model="shufflenet_v2_x0_5", weights=path, class_names=names)


def test_a_bare_state_dict_names_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    state = shufflenet().state_dict()
    torch.save(state, path)
    network = shufflenet(weights=path)
    kept = keep(network, path, ["a", "b", "c", "d"])
    assert (kept.named, kept.kept, kept.new) == (False, (), ())
    assert str(kept) == "head: own.pth does not name its classes, so none is kept by name"
    assert torch.equal(network.fc.weight, state["fc.weight"])


def test_the_same_classes_stay_and_draw_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    source = shufflenet()
    state = {f"model.{n}": v for n, v in source.state_dict().items()}
    names = ["a", "b", "c", "d"]
    torch.save({"state_dict": state, "lightning_zoo": {"class_names": names}}, path)
    network = shufflenet(weights=path)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert keep(network, path, names).kept == tuple(names)
    assert torch.equal(network.fc.weight, source.fc.weight)
    keep(network, path, ["a", "b", "y", "z"])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(network.fc.weight[:2], source.fc.weight[:2])
    assert not torch.isclose(network.fc.weight[2:], source.fc.weight[2:]).all(1).any()


def test_a_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = models.get_weights("shufflenet_v2_x0_5")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    source = shufflenet(num_classes=1000)
    torch.save(source.state_dict(), folder / published.file_name)
    names = ["Tabby", "tiger cat", "my cat", "golden_retriever"]
    network = shufflenet(weights="DEFAULT")
    kept = keep_class_rows(
        network, model="shufflenet_v2_x0_5", weights="DEFAULT", class_names=names
    )
    imagenet = list(published.class_names)
    places = [imagenet.index(n) for n in ("tabby", "tiger cat", "golden retriever")]
    assert torch.equal(network.fc.weight[[0, 1, 3]], source.fc.weight[places])
    assert torch.equal(network.fc.bias[[0, 1, 3]], source.fc.bias[places])
    assert str(kept) == (
        "head: 3 of 4 classes keep their rows (Tabby, tiger cat, golden_retriever), "
        "1 starts anew (my cat)"
    )
    assert table(network.load_report, kept).splitlines() == [
        f"shufflenet_v2_x0_5 from {published.file_name}",
        f"copied    {len(source.state_dict()) - 2} tensors",
        "new       2 tensors: fc.weight, fc.bias",
        str(kept),
    ]
    assert hub.from_file(network) == {n for n, _ in network.named_parameters()} - {
        "fc.weight",
        "fc.bias",
    }


def test_a_backbones_parameters_are_known(tmp_path: Path) -> None:
    """Those that a detector or a segmentation network took over, whatever their place in it."""
    path = tmp_path / "backbone.pth"
    torch.save(models.get_model("shufflenet_v2_x0_5").state_dict(), path)
    network = models.get_model("faster_rcnn", num_classes=3, weights_backbone=path,
                               **ARGS["faster_rcnn"])  # fmt: skip
    assert hub.from_file(network) == {
        n for n, _ in network.named_parameters() if n.startswith("backbone.body.")
    }


def test_a_published_file_has_its_own_number_of_keypoints() -> None:
    """With a skeleton of one's own the heat maps are new, as a head of other classes is."""
    entry = models.get_entry("keypointrcnn_resnet50_fpn")
    builder = entry.load_builder().__wrapped__
    asked = {"num_keypoints": 5, "num_classes": 2, "trained": True}
    with hub.structure_only(), torch.device("meta"):
        network, layout = hub._build_published(
            builder, hub._options(builder), asked, entry.get_weights()
        )
    own = hub.shapes(network.state_dict())
    name = "roi_heads.keypoint_predictor.kps_score_lowres"
    assert {n for n in own if own[n] != layout[n]} == {f"{name}.weight", f"{name}.bias"}
    assert layout[f"{name}.weight"] == (512, 17, 4, 4)


def test_sentences() -> None:
    one = KeptRows(("fc.weight",), ("person",), (), "a.pth", named=True)
    assert str(one) == "head: 1 of 1 classes keeps its rows (person)"
    none = KeptRows(("fc.weight",), (), tuple("abcdefgh"), "a.pth", named=True)
    assert str(none) == (
        "head: 0 of 8 classes keep their rows, 8 start anew (a, b, c, d, e, f and 2 more)"
    )
