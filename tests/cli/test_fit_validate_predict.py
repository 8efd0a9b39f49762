"""From the command line to a run folder, its figures and predictions; what mistakes say."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from fakes import OVERRIDES, SIDE, Fitted
from PIL import Image
from torch import Tensor

import lightning_zoo
from lightning_zoo import models
from lightning_zoo.cli import main
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import class_names, get_weights
from lightning_zoo.recipe import load_recipe
from lightning_zoo.runs import Run

ROOT = Path(__file__).parents[2]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *args: str | Path) -> str:
    """Run a command line that is a mistake; return its one sentence."""
    status = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def prepare(path: Path, resize: int = SIDE, crop: int = SIDE) -> Tensor:
    """Return a photo as the reference prepares it, by Pillow alone: float32 (1, 3, crop, crop)."""
    image = Image.open(path).convert("RGB")
    w, h = image.size
    short = min(w, h)
    size = (resize * w // short, resize * h // short)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    image = image.crop((left, top, left + crop, top + crop))
    x = (np.asarray(image) / 255 - MEAN) / STD
    return torch.from_numpy(x).permute(2, 0, 1)[None].float()


def network_of(checkpoint: Path) -> torch.nn.Module:
    """Return the trained network as plain PyTorch."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    network = models.squeezenet1_1(num_classes=3)
    network.load_state_dict(
        {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    )
    return network.eval()


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def best_row(run: Path) -> dict[str, str]:
    """Return the first row whose accuracy no other row beats."""
    rows = [row for row in rows_of(run) if row["val/acc@1"]]
    return max(rows, key=lambda row: float(row["val/acc@1"]))


@pytest.fixture
def copy(fitted: Fitted, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    path = tmp_path / "runs" / "finetune_resnet18" / fitted.run.name
    shutil.copytree(fitted.run, path)
    return path


# fit


def test_run_folder(fitted: Fitted) -> None:
    assert sorted(p.name for p in fitted.run.iterdir()) == [
        "checkpoints", "environment.json", "metrics.csv", "pictures", "recipe.yaml", "run.json",
        "run.lock",
    ]  # fmt: skip
    assert sorted(p.name for p in (fitted.run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    assert (fitted.out / "last").resolve() == fitted.run.resolve()
    assert sorted(p.name for p in fitted.out.iterdir()) == ["finetune_resnet18", "last"]

    state = json.loads((fitted.run / "run.json").read_text())
    assert (state["recipe"], state["status"], state["error"]) == (
        "finetune_resnet18",
        "finished",
        None,
    )
    assert state["process"] == os.getpid()
    assert state["started"] <= state["finished"]
    row = rows_of(fitted.run)[-1]
    assert state["results"]["val/acc@1"] == float(row["val/acc@1"])
    assert state["results"]["train/loss_epoch"] == float(row["train/loss_epoch"])

    there = json.loads((fitted.run / "environment.json").read_text())
    assert there["lightning_zoo"] == lightning_zoo.__version__
    assert there["packages"]["torch"] == torch.__version__
    assert there["python"] == ".".join(map(str, sys.version_info[:3]))


def test_metrics_by_step(fitted: Fitted) -> None:
    rows = rows_of(fitted.run)
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    judged = [row for row in rows if row["val/acc@1"]]
    # 36 images, 12 a step: three steps an epoch, counted from 0
    assert [(int(r["step"]), float(r["epoch"])) for r in judged] == [(2, 0), (5, 1)]
    losses = [float(row["train/loss_epoch"]) for row in judged]
    assert losses[1] < losses[0]


def test_what_it_prints(fitted: Fitted) -> None:
    lines = fitted.printed.splitlines()
    assert lines[0] == (
        "recipe   finetune_resnet18: squeezenet1_1, 0.7 M parameters, 3 classes, 36 training images"
    )
    assert lines[1] == "batch    12 images a step = 1 device x 6 images x 2 batches"
    assert lines[2] == "length   2 epochs x 3 steps"
    assert lines[3] == f"run      {fitted.run} (csv)"
    header, first, second = (line.split() for line in lines[4:7])
    assert header[:2] == ["epoch", "train/loss"]
    for cells, row in zip((first, second), rows_of(fitted.run), strict=True):
        shown = dict(zip(header, cells, strict=True))
        assert shown["val/acc@1"] == f"{float(row['val/acc@1']):.2f}"
        assert shown["val/loss"] == f"{float(row['val/loss']):.4f}"
        assert shown["train/loss"] == f"{float(row['train/loss_epoch']):.4f}"
    assert lines[7] == f"best checkpoint: {fitted.run}/checkpoints/best.ckpt"
    assert lines[8] == f"next: python -m lightning_zoo validate {fitted.run}"
    assert len(lines) == 10


def test_pictures_show_something(fitted: Fitted) -> None:
    files = sorted((fitted.run / "pictures").iterdir())
    assert [f.name for f in files] == ["epoch_0000.png", "epoch_0001.png"]
    for file in files:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        colours = {tuple(p) for p in pixels.reshape(-1, 3).tolist()}
        assert len(colours) > 500  # five noisy photos
        bars = {(22, 128, 61), (190, 24, 44)} & colours
        assert bars, "no bar says right or wrong"


def test_resolved_recipe(fitted: Fitted) -> None:
    path = fitted.run / "recipe.yaml"
    written = yaml.safe_load(path.read_text())
    args = written["model"]["init_args"]
    assert args["num_classes"] == 3  # taken from the folders
    assert args["model"] == "squeezenet1_1"
    assert written["data"]["init_args"]["root"] == str(fitted.data)
    recipe = load_recipe(path)
    assert recipe.problems() == []
    for key, value in OVERRIDES.items():
        assert recipe.get(key, "absent") == yaml.safe_load(value), key
    source = load_recipe("finetune_resnet18")
    assert recipe.header == source.header
    for key in ("model.label_smoothing", "model.lr_schedule", "model.optimizer.momentum"):
        assert recipe.get(key) == source.get(key), key


def test_resolved_recipe_repeats_the_run(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    """The same figures and weights from recipe.yaml alone, through Python."""
    result = lightning_zoo.fit(fitted.run / "recipe.yaml", out=tmp_path)
    assert result.run.parent == tmp_path / fitted.run.parent.name
    assert rows_of(result.run) == rows_of(fitted.run)
    assert result.metrics == Run(fitted.run).state().results
    first, again = (torch.load(p / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
                    for p in (fitted.run, result.run))  # fmt: skip
    assert first.keys() == again.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert "best checkpoint: " in capsys.readouterr().out


def test_the_last_epoch_is_always_measured(fitted: Fitted, tmp_path: Path) -> None:
    """A run of another length than its recipe's is judged all the same."""
    changes = {"trainer.max_epochs": 2, "trainer.check_val_every_n_epoch": 7}
    result = lightning_zoo.fit(fitted.run / "recipe.yaml", changes, out=tmp_path)
    assert [bool(row["val/acc@1"]) for row in rows_of(result.run)][-1]
    assert result.best.name == "best.ckpt"


# validate and test


def evaluated(capsys: Captured, *args: str | Path) -> dict[str, Any]:
    assert main([*map(str, args), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_validate_gives_the_best_epochs_figures(fitted: Fitted, capsys: Captured) -> None:
    found = evaluated(capsys, "validate", "last", "--out", fitted.out)["metrics"]
    best = best_row(fitted.run)
    assert found["val/acc@1"] == float(best["val/acc@1"])
    assert set(found) == {k for k, v in best.items() if k.startswith("val/") and v}
    assert found["val/loss"] == pytest.approx(float(best["val/loss"]), rel=1e-5)

    name = evaluated(capsys, "validate", "finetune_resnet18", "--out", fitted.out)["metrics"]
    assert name == found
    last = fitted.run / "checkpoints/last.ckpt"
    row = rows_of(fitted.run)[-1]
    measured = evaluated(capsys, "validate", last)["metrics"]
    assert measured["val/loss"] == pytest.approx(float(row["val/loss"]), rel=1e-5)
    assert measured["val/acc@1"] == float(row["val/acc@1"])


def test_validate_agrees_with_plain_pytorch(fitted: Fitted) -> None:
    network = network_of(fitted.run / "checkpoints/best.ckpt")
    losses, right = [], 0
    for path in sorted((fitted.data / "val").rglob("*.jpg")):
        label = int(path.parent.name.removeprefix("class_"))
        with torch.no_grad():
            logits = network(prepare(path))
        losses.append(float(F.cross_entropy(logits, torch.tensor([label]))))
        right += int(logits.argmax()) == label
    assert len(losses) == 36
    result = lightning_zoo.validate(fitted.run)
    assert result.metrics["val/loss"] == pytest.approx(sum(losses) / 36, abs=2e-3)
    assert result.metrics["val/acc@1"] == pytest.approx(100 * right / 36, abs=100 / 36 + 1e-6)
    assert result.skipped == ()


def test_validate_as_people_type_it(fitted: Fitted) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_zoo", "validate", "runs/last"],
        cwd=fitted.out.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    figures = dict(line.split() for line in done.stdout.splitlines())
    best = best_row(fitted.run)
    assert figures == {
        name: f"{float(value):.4f}" if "loss" in name else f"{float(value):.3f}"
        for name, value in best.items()
        if name.startswith("val/") and value
    }


def test_check(fitted: Fitted, capsys: Captured) -> None:
    command = ["validate", str(fitted.run), "--check"]
    accuracy = float(best_row(fitted.run)["val/acc@1"])

    def check(expected: float, tolerance: float) -> tuple[int, str]:
        metrics = f"{{acc@1: {expected:.3f}}}"
        more = ["--reference.metrics", metrics, "--reference.tolerance", str(tolerance)]
        return main(command + more), capsys.readouterr().out

    status, out = check(accuracy - 5, 0)
    assert status == 0
    assert f"{accuracy:.3f}   reference {accuracy - 5:.3f} +- 0" in out
    assert out.endswith("check: passed\n")
    assert check(accuracy + 2, 2.5)[0] == 0
    status, out = check(accuracy + 2, 1.5)
    assert (status, out.splitlines()[-1]) == (1, "check: below the reference")
    assert main(command) == 1
    assert capsys.readouterr().out.endswith("check: the recipe states no reference figures\n")


def test_test_split(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    found = evaluated(capsys, "test", fitted.run)["metrics"]
    assert {"test/loss", "test/acc@1"} <= set(found)
    assert all(name.startswith("test/") for name in found)
    assert found == lightning_zoo.test(fitted.run).metrics
    # the figures of the test folder, under another name
    swapped = evaluated(capsys, "validate", fitted.run, "--data.val", "test")["metrics"]
    assert swapped["val/loss"] == pytest.approx(found["test/loss"], rel=1e-6)

    shutil.copytree(fitted.data, tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos/test")
    text = refused(capsys, "test", fitted.run, "--data.root", tmp_path / "photos")
    assert f"no folder '{tmp_path}/photos/test' (data.test; null goes without it)" in text
    assert re.search(r"\n +test/<class>/\*\.jpg +only for the verb test\n", text)
    text = refused(capsys, "test", fitted.run, "--data.test", "null")
    assert "data.test is null" in text


def test_weights_of_a_file(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    network = network_of(fitted.run / "checkpoints/best.ckpt")
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    recipe = fitted.run / "recipe.yaml"
    command = ("validate", "--recipe", recipe, "--weights")
    ours = lightning_zoo.validate(fitted.run)
    assert evaluated(capsys, *command, tmp_path / "plain.pth")["metrics"] == ours.metrics
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    torch.save(network.state_dict(), tmp_path / "zero.pth")
    zero = lightning_zoo.validate(recipe=recipe, weights=str(tmp_path / "zero.pth"))
    assert zero.metrics["val/loss"] == pytest.approx(np.log(3), rel=1e-6)

    (tmp_path / "torn.pth").write_bytes((tmp_path / "plain.pth").read_bytes()[:5000])
    assert "torn.pth is damaged" in refused(capsys, *command, tmp_path / "torn.pth")
    assert "neither a file nor a name" in refused(capsys, *command, tmp_path / "gone.pth")
    assert "add --weights DEFAULT" in refused(capsys, "validate", "--recipe", recipe)
    assert "a run brings its own" in refused(capsys, "validate", fitted.run, "--weights", "DEFAULT")
    assert "name what to measure" in refused(capsys, "validate")


# predict


def test_predict(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    photos = tmp_path / "photos"
    (photos / "deep/er").mkdir(parents=True)
    source = sorted((fitted.data / "test").rglob("*.jpg"))
    shutil.copy(source[0], photos / "cat.jpg")
    shutil.copy(source[15], photos / "deep/cat.jpg")
    shutil.copy(source[30], photos / "deep/er/grüße 猫.jpg")
    with Image.open(source[3]) as image:
        image.convert("CMYK").save(photos / "cmyk.jpg", quality=100)
        image.convert("L").save(photos / "grey.png")
    (photos / "notes.txt").write_text("no photo")
    loose = tmp_path / "loose.JPG"
    shutil.copy(source[7], loose)
    out = tmp_path / "new/out"
    command = ["predict", str(fitted.run), str(photos), str(loose), "--out", str(out)]
    assert main(command) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    assert len(printed.splitlines()) == 7
    assert f"pictures: {out}/grid.png" in printed

    found = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    below = ["cat.jpg", "cmyk.jpg", "deep/cat.jpg", "deep/er/grüße 猫.jpg", "grey.png"]
    assert [p["file"] for p in found] == [*(str(photos / n) for n in below), str(loose)]
    network = network_of(fitted.run / "checkpoints/best.ckpt")
    for p in found:
        with torch.no_grad():
            probs = network(prepare(Path(p["file"]))).softmax(1)[0].tolist()
        order = sorted(range(3), key=lambda i: -probs[i])
        scores = dict(p["top"])
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        for i in range(3):
            assert scores[f"class_{i}"] == pytest.approx(probs[i], abs=3e-3), p["file"]
        assert (p["label"], p["score"]) == tuple(p["top"][0])
        if probs[order[0]] - probs[order[1]] > 0.01:
            assert p["label"] == f"class_{order[0]}"

    names = ["cat", "cat_2", "cmyk", "grey", "grid", "grüße 猫", "loose"]
    assert sorted(f.stem for f in out.glob("*.png")) == names
    with Image.open(out / "grüße 猫.png") as picture:
        assert picture.width == 480
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 100

    api = lightning_zoo.predict(fitted.run, [photos, loose])
    assert [(p.file, p.label, p.score) for p in api] == [
        (p["file"], p["label"], p["score"]) for p in found
    ]


def test_predict_goes_on_after_a_broken_file(
    fitted: Fitted, tmp_path: Path, capsys: Captured
) -> None:
    good = next((fitted.data / "val").rglob("*.jpg"))
    shutil.copy(good, tmp_path / "good.jpg")
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    assert main(["predict", str(fitted.run), str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert [p["file"] for p in json.loads(out)] == [str(tmp_path / "good.jpg")]
    first, second = err.splitlines()
    assert first.startswith(f"skipped: cannot read the image '{tmp_path}/broken.jpg': ")
    assert second == f"skipped: cannot read the image '{tmp_path}/empty.png': the file is empty"

    assert main(["predict", str(fitted.run), str(tmp_path / "empty.png")]) == 2
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "error: none of the 1 files could be read"
    with pytest.raises(ZooError, match=r"cannot read the image .*broken\.jpg"):
        lightning_zoo.predict(fitted.run, [tmp_path])


def test_predict_with_a_published_model(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-in weights in the cache of torch.hub take the place of the published file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    network = models.squeezenet1_1().eval()
    with torch.no_grad():
        network.classifier[1].weight.mul_(40)  # so that the classes differ
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    weights = get_weights("squeezenet1_1")
    torch.save(network.state_dict(), cache / weights.url.rpartition("/")[2])
    y, x = np.mgrid[:300, :400]
    disc = 255 * ((x - 60) ** 2 + (y - 150) ** 2 < 50**2)  # at the edge: another crop cuts it
    photo = tmp_path / "photo.png"
    Image.fromarray(np.stack([x * 255 / 400, y * 255 / 300, disc], -1).astype(np.uint8)).save(photo)
    assert main(["predict", "squeezenet1_1", str(photo), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (found,) = json.loads(out)
    with torch.no_grad():
        probs = network(prepare(photo, 256, 224)).softmax(1)[0]
    names = class_names("imagenet1k")
    best = probs.argsort(descending=True)[:5].tolist()
    assert found["label"] == names[best[0]]
    scores = [score for _, score in found["top"]]
    assert scores == pytest.approx([float(probs[i]) for i in best], abs=0.01)
    near = {names[i] for i, p in enumerate(probs.tolist()) if p > float(probs[best[-1]]) - 0.01}
    assert {name for name, _ in found["top"]} <= near

    torch.save(network.state_dict(), tmp_path / "mine.pth")
    for path in cache.iterdir():
        path.unlink()
    (again,) = lightning_zoo.predict("squeezenet1_1", [photo], weights=str(tmp_path / "mine.pth"))
    assert again.label == found["label"]
    text = refused(capsys, "predict", "squeezenet1_1", photo, "--weights", "IMAGENET1K_V9")
    assert "IMAGENET1K_V1" in text


# mistakes


def test_missing_data_leaves_no_run(tmp_path: Path, capsys: Captured) -> None:
    command = ("fit", "--recipe", "finetune_resnet18", "--out", tmp_path / "runs")
    text = refused(capsys, *command, "--data.root", tmp_path / "nothing")
    assert f"no data in '{tmp_path}/nothing' (data.root); expected this layout" in text
    assert "train/<class>/*.jpg" in text
    assert "--smoke` or `python -m lightning_zoo demo`" in text
    (tmp_path / "empty").mkdir()
    assert "no data in" in refused(capsys, *command, "--data.root", tmp_path / "empty")
    assert not (tmp_path / "runs").exists()


def test_refused_runs_leave_nothing(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    command = (*fitted.command, "--out", tmp_path / "runs")
    text = refused(capsys, *command, "--model.num_classes", "7")
    assert text == (
        f"error: model.num_classes is 7 and the data in '{fitted.data}' has 3 classes; "
        "use --model.num_classes null to take the data's\n"
    )
    text = refused(capsys, *command, "--batch.size", "10", "--batch.per_device", "4")
    assert "batch.size 10 is no multiple of 1 device x 4 images = 4; choose one of: " in text
    text = refused(capsys, *command, "--model.weights", tmp_path / "gone.pth")
    assert "gone.pth" in text
    text = refused(capsys, *command, "--resume", "nothing_here")
    assert "no run 'nothing_here'; expected a run folder, 'last' or a recipe's name" in text
    text = refused(capsys, *command, "--resume", tmp_path / "gone.ckpt")
    assert "gone.ckpt" in text
    shutil.copytree(fitted.data, tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos/val")
    text = refused(capsys, *command, "--data.root", tmp_path / "photos")
    assert f"no folder '{tmp_path}/photos/val' (data.val; null goes without it)" in text
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").touch()
    text = refused(capsys, *fitted.command, "--out", tmp_path / "file")
    assert f"cannot make the run folder {tmp_path}/file/" in text
    assert "choose one with --out" in text


@pytest.mark.parametrize("verb", ["validate", "predict"])
def test_no_such_run(fitted: Fitted, tmp_path: Path, capsys: Captured, verb: str) -> None:
    photos = [str(fitted.data)] if verb == "predict" else []
    runs = "--runs" if verb == "predict" else "--out"
    text = refused(capsys, verb, tmp_path / "gone", *photos)
    assert text.count("\n") == 1
    assert f"'{tmp_path}/gone'; expected a run folder, 'last'" in text
    text = refused(capsys, verb, "finetune_resnet19", *photos, runs, fitted.out)
    assert "did you mean finetune_resnet18?" in text
    text = refused(capsys, verb, tmp_path / "gone.ckpt", *photos)
    assert text == f"error: no checkpoint at {tmp_path}/gone.ckpt\n"


@pytest.mark.parametrize("verb", ["validate", "predict", "fit"])
def test_damaged_and_foreign_checkpoints(
    fitted: Fitted, copy: Path, tmp_path: Path, capsys: Captured, verb: str
) -> None:
    out = tmp_path / "out"
    if verb == "fit":
        command = [*fitted.command, "--out", out, "--resume"]
    else:
        command = [verb]
    photos = [fitted.data / "val"] if verb == "predict" else []
    whole = (copy / "checkpoints/best.ckpt").read_bytes()

    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(whole[: len(whole) // 2])
    text = refused(capsys, *command, torn, *photos)
    assert f"{torn} is damaged" in text
    assert text.count("\n") == 1

    torch.save({"epoch": 3}, tmp_path / "other.ckpt")
    text = refused(capsys, *command, tmp_path / "other.ckpt", *photos)
    assert "other.ckpt is no checkpoint of a run: it has no 'state_dict'" in text

    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "foreign.ckpt")
    text = refused(capsys, *command, tmp_path / "foreign.ckpt", *photos)
    assert "foreign.ckpt was not made by lightning_zoo" in text

    content = torch.load(copy / "checkpoints/best.ckpt", weights_only=True)
    content["lightning_zoo"]["recipe"]["model"]["init_args"]["model"] = "squeezenet1_0"
    torch.save(content, tmp_path / "unfit.ckpt")
    if verb != "fit":  # the recipe that it carries does not fit its tensors
        text = refused(capsys, *command, tmp_path / "unfit.ckpt", *photos)
        assert "unfit.ckpt does not fit the recipe: " in text
        assert text.count("\n") == 1
    assert not out.exists()


def test_runs_without_checkpoint(copy: Path, fitted: Fitted, capsys: Captured) -> None:
    shutil.rmtree(copy / "checkpoints")
    assert "has no checkpoint yet; train it with: " in refused(capsys, "validate", copy)
    assert "has no checkpoint to resume from" in refused(
        capsys, *fitted.command, "--out", copy.parents[1], "--resume", copy
    )
    (copy / "run.json").write_text("{")
    assert "is no run folder: " in refused(capsys, "validate", copy)


def test_folder_without_images(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "notes.txt").touch()
    text = refused(capsys, "predict", fitted.run, tmp_path)
    assert text.startswith(f"error: no images or videos in {tmp_path}; expected bmp, jpeg, jpg, p")
    assert f"no file or folder at '{tmp_path}/gone'" in refused(
        capsys, "predict", fitted.run, tmp_path / "gone"
    )


def test_debug_raises(fitted: Fitted) -> None:
    with pytest.raises(ZooError, match="no file or folder at"):
        main(["predict", str(fitted.run), "gone", "--debug"])


def test_skipped_files_are_named(tmp_path: Path, fitted: Fitted, capsys: Captured) -> None:
    ImageFolderDataModule.write_fake(tmp_path / "photos", classes=3, images=6, size=40)
    broken = tmp_path / "photos/val/class_1/val_0001.jpg"
    broken.write_bytes(b"no jpeg")
    command = ["validate", str(fitted.run), "--data.root", str(tmp_path / "photos")]
    text = refused(capsys, *command)
    assert "val/class_1/val_0001.jpg" in text
    assert "--data.on_error skip" in text
    assert main([*command, "--data.on_error", "skip"]) == 0
    out = capsys.readouterr().out
    assert "1 broken files were left out: val/class_1/val_0001.jpg" in out
    five = lightning_zoo.validate(
        fitted.run, {"data.root": str(tmp_path / "photos"), "data.on_error": "skip"}
    )
    assert 5 * five.metrics["val/acc@1"] / 100 == pytest.approx(
        round(5 * five.metrics["val/acc@1"] / 100), abs=1e-5
    )


# what else may end a run


def test_several_labels_an_image(tmp_path: Path, fitted: Fitted, capsys: Captured) -> None:
    data = tmp_path / "photos"
    ImageFolderDataModule.write_fake(data, classes=3, images=6, size=40)
    lines = ["file,labels,split"]
    for split in ("train", "val"):
        for path in sorted((data / split).rglob("*.jpg")):
            name = path.parent.name
            labels = name if name != "class_2" else "class_0;class_1"
            lines.append(f"{path.relative_to(data)},{labels},{split}")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    command = [*fitted.command, "--out", str(tmp_path / "runs"), "--data.root", str(data)]
    command += ["--data.labels_csv", "labels.csv", "--batch.size", "6"]
    text = refused(capsys, *command)
    assert "several labels an image; use --model.multilabel true" in text
    more = ["--model.multilabel", "true", "--model.label_smoothing", "0"]
    assert main([*command, *more]) == 0
    assert "2 classes, 6 training images" in capsys.readouterr().out
    run = tmp_path / "runs/last"
    last = evaluated(capsys, "validate", run.resolve() / "checkpoints/last.ckpt")["metrics"]
    row = rows_of(run)[-1]
    assert last["val/map"] == pytest.approx(float(row["val/map"]), rel=1e-5)
    assert main(["predict", str(run), str(data / "val"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 6
    for p in found:
        scores = dict(p["top"])
        assert set(scores) == {"class_0", "class_1"}
        assert p["labels"] == [n for n in ("class_0", "class_1") if scores[n] >= 0.5]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory\nmore")])
def test_what_ends_a_run_is_noted(
    fitted: Fitted,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    from lightning_zoo.tasks import ClassificationTask

    def stop(self: Any, batch: Any, batch_idx: int) -> Tensor:
        raise error

    monkeypatch.setattr(ClassificationTask, "training_step", stop)
    stopped = isinstance(error, KeyboardInterrupt)
    handler = signal.getsignal(signal.SIGINT)
    status = main([*fitted.command, "--out", str(tmp_path)])
    err = capsys.readouterr().err
    assert status == (130 if stopped else 1)
    assert "Traceback" not in err
    assert ("stopped" if stopped else "error: RuntimeError: out of memory\n") in err
    assert signal.getsignal(signal.SIGINT) is handler, "Ctrl-C works again"
    state = Run(tmp_path / "last").state()
    assert state.status == ("interrupted" if stopped else "failed")
    assert state.error == (None if stopped else "RuntimeError: out of memory\nmore")
    assert state.finished is not None


def test_a_full_disk_is_one_sentence(
    fitted: Fitted, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert main([*fitted.command, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: cannot save the checkpoint ")
    assert "No space left on device" in err
    assert Run(tmp_path / "last").state().status == "failed"
    assert list((tmp_path / "last/checkpoints").iterdir()) == []
