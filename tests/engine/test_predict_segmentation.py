"""`predict` names the class of every pixel: shares, label maps, pictures; of runs and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints import write_checkpoint
from PIL import Image

import lightning_zoo
from lightning_zoo import models
from lightning_zoo.cli import main
from lightning_zoo.drawing import palette
from lightning_zoo.engine.predict.segmentation import Segmenter, upsampled_labels
from lightning_zoo.models.registry import class_names, get_weights
from lightning_zoo.tasks import SegmentationTask
from lightning_zoo.transforms.segmentation import EvalTransform

NAMES = ["__background__", "cat", "dog"]


def write_photo(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """Write a smooth, colourful photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def with_contrast(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network in evaluation whose classes differ from pixel to pixel."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                module.weight.mul_(30)
    return network.eval()


def expected_labels(network: torch.nn.Module, photo: Path, size: int) -> torch.Tensor:
    """Return the logits' argmax in the photo's own size, worked out by itself."""
    with Image.open(photo) as image:
        width, height = image.size
        factor = size / min(image.size)
        small = image.convert("RGB").resize(
            (int(width * factor), int(height * factor)), Image.Resampling.BILINEAR
        )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(np.array(small)) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = network(x)["out"]
    return F.interpolate(logits, size=(height, width), mode="bilinear").argmax(dim=1)[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network, such as a run leaves it; the data is gone."""
    config: dict[str, Any] = {
        "model": {
            "class_path": "SegmentationTask",
            "init_args": {
                "model": "lraspp",
                "num_classes": 3,
                "model_args": {"backbone": "mobilenet_v3_small"},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            },
        },
        "data": {
            "class_path": "MaskFolderDataModule",
            "init_args": {"root": "gone", "eval_resize": 64},
        },
    }
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    return write_checkpoint(path, config, NAMES, prepare=lambda task: with_contrast(task.model))


def test_a_run(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    sizes = {"cat.png": (96, 128), "cat_mask.png": (80, 60), "deep/cat.png": (50, 70)}
    for i, (name, size) in enumerate(sizes.items()):
        write_photo(photos / name, *size, seed=i)
    write_photo(photos / "large.png", 500, 660)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    out = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--out", str(out)]) == 1
    printed, err = capsys.readouterr()
    assert err.startswith(f"skipped: cannot read the image '{photos}/broken.jpg': ")
    assert f"pictures: {out}/grid.png" in printed
    assert len(printed.splitlines()) == 5

    found = json.loads((out / "predictions.json").read_text())
    names = ["cat", "cat_mask_2", "cat_2", "large"]
    assert [Path(one["file"]).relative_to(photos).as_posix() for one in found] == [
        *sizes, "large.png",
    ]  # fmt: skip
    network = SegmentationTask(
        "lraspp", num_classes=3, model_args={"backbone": "mobilenet_v3_small"},
        optimizer=torch.optim.SGD,
    )  # fmt: skip
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    for one, name in zip(found, names, strict=True):
        with Image.open(out / f"{name}_mask.png") as mask:
            assert mask.mode == "P"
            assert mask.size == (one["width"], one["height"])
            assert mask.getpalette() == palette().flatten().tolist()
            labels = torch.from_numpy(np.array(mask))
        expected = expected_labels(network.model.eval(), Path(one["file"]), 64)
        assert (labels == expected).float().mean() > 0.99
        shares = {NAMES[i]: float((labels == i).float().mean()) for i in (1, 2)}
        seen = {entry["label"]: entry["share"] for entry in one["classes"]}
        assert seen == pytest.approx({n: s for n, s in shares.items() if s}, abs=1e-5)
        assert list(seen.values()) == sorted(seen.values(), reverse=True)
        first = one["classes"][0]
        assert f"{one['file']}" in printed
        assert f"{first['label']} {100 * first['share']:.1f} %" in printed
    pictures = {path.stem for path in out.glob("*.png")}
    assert pictures == {"grid", *names, *(f"{name}_mask" for name in names)}
    with Image.open(out / "large.png") as picture:
        assert picture.width == 660, "in its own size, with a legend below"
        assert 500 < picture.height < 570
    with Image.open(out / "cat.png") as picture:
        assert picture.width == 480, "small ones are enlarged"

    api = lightning_zoo.predict(checkpoint, [photos / "cat.png"])
    assert api[0].labels.shape == (96, 128)
    assert api[0].as_json() == found[0]


def test_a_published_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-in weights in the cache of torch.hub take the place of the published file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    name = "lraspp_mobilenet_v3_large"
    network = with_contrast(models.get_model(name, pretrained_backbone=False))
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / get_weights(name).file_name)
    photo = write_photo(tmp_path / "photo.png", 120, 150)
    out = tmp_path / "out"
    assert main(["predict", name, str(photo), "--json", "--out", str(out)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {one["label"] for one in found["classes"]} <= set(class_names("voc")[1:])
    with Image.open(out / "photo_mask.png") as mask:
        labels = torch.from_numpy(np.array(mask))
    assert (labels == expected_labels(network, photo, 520)).float().mean() > 0.99


def test_nothing_to_predict_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["predict", str(checkpoint), str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: no images or videos in {tmp_path}; expected bmp, jpeg, jpg, png, tif, tiff, webp "
        "or 3gp, avi, flv, m4v, mkv, mov, mp4, mpeg, mpg, ogv, ts, webm, wmv files"
    ]
    photo = write_photo(tmp_path / "a.png", 20, 30)
    assert main(["predict", str(checkpoint), str(tmp_path), "--json"]) == 0
    assert [one["file"] for one in json.loads(capsys.readouterr().out)] == [str(photo)]


@pytest.mark.parametrize("size", [(4, 5), (40, 31), (2, 3), (1, 1)])
def test_classes_are_chosen_after_enlarging(size: tuple[int, int]) -> None:
    logits = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(size[0]))
    expected = F.interpolate(logits[None], size=size, mode="bilinear").argmax(dim=1)[0]
    found = upsampled_labels(logits, *size)
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected.byte())


def test_ties_go_to_the_first_class() -> None:
    assert upsampled_labels(torch.zeros(3, 2, 2), 4, 4).sum() == 0


def test_background_is_named_where_it_is_alone() -> None:
    def one(label: int) -> Any:
        logits = torch.zeros(3, 8, 10)
        logits[label, 2:] = 9
        segmenter = Segmenter(lambda image: logits, EvalTransform(8), NAMES)
        return segmenter([(Path("a.png"), np.zeros((8, 10, 3), np.uint8))])[0]

    assert one(0).summary() == "__background__ 100.0 %"
    assert one(0).classes == (("__background__", 1.0),)
    assert one(2).summary() == "dog 75.0 %"
