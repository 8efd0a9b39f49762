"""The facts of the registry agree with each other and with the models."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from lightning_zoo import models
from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.models.registry import (
    ModelEntry,
    Preprocessing,
    class_names,
    real_classes,
    registry,
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENTRIES = list(registry().values())
WEIGHTS = [(entry, weights) for entry in ENTRIES for weights in entry.weights.values()]


def entry_id(value: object) -> str:
    return f"{value.task}/{value.name}" if isinstance(value, ModelEntry) else value.name


def test_there_are_all_classifiers() -> None:
    names = models.list_models("classification")
    assert len(names) == 37
    assert sorted(models.classification.__all__) == sorted(names)


@pytest.mark.parametrize("entry", ENTRIES, ids=entry_id)
def test_builder_resolves(entry: ModelEntry) -> None:
    constructor = entry.load_builder()
    assert constructor.__name__ == entry.name
    assert constructor.__doc__
    assert constructor.__doc__.rstrip().endswith(".")
    parameters = inspect.signature(constructor).parameters
    assert list(parameters)[:3] == ["pretrained", "progress", "weights"]
    assert "num_classes" in parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert inspect.signature(constructor).return_annotation is not inspect.Signature.empty
    if entry.task == "classification":
        assert getattr(models, entry.name) is constructor
        assert getattr(models.classification, entry.name) is constructor


@pytest.mark.parametrize("entry", ENTRIES, ids=entry_id)
def test_num_params(entry: ModelEntry) -> None:
    # GoogLeNet's figure is that of the published network, which has no auxiliary heads
    options = {"aux_logits": False} if entry.name == "googlenet" else {}
    if entry.task in {"detection", "segmentation"} and entry.weights:
        # with frozen norms and auxiliary heads, as the published figures count
        options["pretrained"] = True
    with hub.structure_only(), torch.device("meta"):
        model = entry.load_builder()(**options)
    assert sum(p.numel() for p in model.parameters()) == entry.num_params


@pytest.mark.parametrize("entry", ENTRIES, ids=entry_id)
def test_row_is_complete(entry: ModelEntry) -> None:
    assert entry.recipe or not entry.weights
    assert entry.paper.startswith("https://")
    assert entry.min_size >= 1
    if entry.weights:
        assert entry.default in entry.weights
        assert entry.pretrained is None or entry.pretrained in entry.weights


@pytest.mark.parametrize(("entry", "weights"), WEIGHTS, ids=entry_id)
def test_weights(entry: ModelEntry, weights: models.registry.Weights) -> None:
    assert weights.url.startswith("https://download.pytorch.org/models/")
    before = "[-_]" if entry.task == "quantization" else "-"
    prefix = re.search(rf"{before}([0-9a-f]{{8,64}})\.pth$", weights.file_name)
    assert prefix is not None
    assert weights.sha256_prefix == prefix[1]
    assert len(weights.class_names) == weights.num_classes
    assert weights.metrics or "NaN" in weights.notes[0]
    assert all(0 < value < 100 for value in weights.metrics.values())
    assert (weights.backend is not None) == (entry.task == "quantization")
    if entry.task in ("classification", "quantization"):
        assert weights.metrics.get("acc@1", 0) <= weights.metrics.get("acc@5", 0)
        assert weights.preprocessing is not None
        assert weights.preprocessing.crop <= weights.preprocessing.resize
    elif entry.task == "segmentation":
        assert list(weights.metrics) == ["miou", "pixel_acc"]
        assert weights.preprocessing == Preprocessing(520, None, IMAGENET_MEAN, IMAGENET_STD)
    elif entry.task == "video":
        assert list(weights.metrics) == ["clip_acc@1", "clip_acc@5", "acc@1", "acc@5"]
        assert list(weights.metrics.values())[::2] < list(weights.metrics.values())[1::2]
        mean, std = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
        assert weights.preprocessing == Preprocessing((128, 171), 112, mean, std, 16, 15.0)
    else:
        assert weights.preprocessing is None
    assert set(weights.build_args) <= set(inspect.signature(entry.load_builder()).parameters)


def test_files_are_distinct() -> None:
    names = [weights.file_name for _, weights in WEIGHTS]
    assert len(names) == len(set(names))


def test_there_are_all_detectors() -> None:
    names = models.list_models("detection")
    assert len(names) == 12
    assert set(names) < set(models.detection.__all__)
    for name in models.detection.__all__:
        assert callable(getattr(models.detection, name))


def test_class_names() -> None:
    coco = class_names("coco")
    assert (len(coco), coco[0], coco[1], coco[90]) == (91, "__background__", "person", "toothbrush")
    assert coco.count("N/A") == 10
    real = real_classes(coco)
    assert (len(real), real[1], real[90]) == (80, "person", "toothbrush")
    assert real_classes({3: "dog", 7: "N/A", 9: ""}) == {3: "dog"}
    assert real_classes(["background"]) == {0: "background"}  # somebody's own class
    names = class_names("imagenet1k")
    assert (len(names), names[0], names[-1]) == (1000, "tench", "toilet tissue")
    voc = class_names("voc")
    assert (len(voc), voc[0], voc[1], voc[-1]) == (21, "__background__", "aeroplane", "tvmonitor")
    assert len(real_classes(voc)) == 20
    kinetics = class_names("kinetics400")
    assert (len(kinetics), kinetics[0], kinetics[-1]) == (400, "abseiling", "zumba")
    assert list(kinetics) == sorted(set(kinetics))
    with pytest.raises(ZooError, match="unknown class list 'imagenet'; did you mean imagenet1k"):
        class_names("imagenet")


def test_unknown_names() -> None:
    with pytest.raises(ZooError, match=r"unknown model 'resnet51'; did you mean resnet50\?"):
        models.get_model("resnet51")
    with pytest.raises(ZooError, match="unknown task 'classificaton'; did you mean class"):
        models.list_models("classificaton")
    with pytest.raises(ZooError, match=r"unknown weights of resnet50 'IMAGENET1K_V3'; did you m"):
        models.get_weights("resnet50", "IMAGENET1K_V3")
    with pytest.raises(AttributeError, match="has no attribute 'resnet51'"):
        _ = models.resnet51
    with pytest.raises(AttributeError, match="has no attribute 'resnet51'"):
        _ = models.classification.resnet51


def test_listing() -> None:
    assert models.list_models("classification", contains="vgg16") == ["vgg16", "vgg16_bn"]
    assert models.get_entry("classification/resnet50") is models.get_entry("resnet50")
    assert models.get_entry("quantization/resnet50").full_name == "quantization/resnet50"
    assert models.get_entry("quantization/resnet50") is not models.get_entry("resnet50")
    assert models.get_weights("quantization/resnet50").backend == "fbgemm"
    assert models.list_models("quantization", contains="resnet") == ["resnet18", "resnet50"]
    everything = models.list_models()
    assert len(everything) == len(set(everything)) == len(ENTRIES)
    assert all(models.get_entry(name).full_name == name for name in everything)
    assert "resnet50" in dir(models)
    assert "resnet50" in dir(models.classification)
