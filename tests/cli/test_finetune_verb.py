"""From a folder to a trained, measured model and its report, by one command."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_zoo import models
from lightning_zoo.cli import main
from lightning_zoo.datamodules import ImageFolderDataModule, OwnObjectsDataModule
from lightning_zoo.runs import Run

Captured = pytest.CaptureFixture[str]
SIZES = [
    "--data.train_crop", "40", "--data.eval_crop", "40", "--data.eval_resize", "40",
    "--run.pictures", "4",
]  # fmt: skip
SMALL = [*SIZES, "--batch", "4"]


@dataclasses.dataclass(frozen=True)
class Made:
    data: Path
    out: Path
    run: Path
    printed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Fine-tune on class folders without a split, from random weights."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("finetuned")
    whole, data, out = folder / "whole", folder / "leaves", folder / "runs"
    ImageFolderDataModule.write_fake(whole, classes=2, images=24, size=48)
    (whole / "train").rename(data)  # class folders alone: the split is to be made
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main([
            "finetune", "--model", "squeezenet1_1", "--data", str(data), "--weights", "none",
            "--epochs", "2", "--out", str(out), *SMALL,
        ])  # fmt: skip
    assert status == 0
    return Made(data, out, (out / "last").resolve(), printed.getvalue())


def test_it_says_what_was_decided_and_why(made: Made) -> None:
    assert "leaves: folders, 20 train images, 4 val images, 2 classes (class_0, class_1)" in (
        made.printed
    )
    assert "no validation split" in made.printed
    assert "--model.optimizer.lr 0.0001  (random weights, a network without norms)" in made.printed
    assert "--batch.size" not in made.printed  # that was given, not chosen
    assert made.run.parent == made.out / "leaves_squeezenet1_1"
    for verb in ("validate", "predict", "export"):
        assert f"python -m lightning_zoo {verb} {made.run}" in made.printed


def test_the_report_is_there(made: Made) -> None:
    page = (made.run / "report.html").read_text()
    assert "class_1" in page
    assert "leaves" in page


def test_the_recipe_is_complete_and_reruns(made: Made, capsys: Captured) -> None:
    text = (made.run / "recipe.yaml").read_text()
    assert text.startswith(f"# squeezenet1_1 on {made.data}: ")
    assert "# model.optimizer.lr 0.0001: random weights, a network without norms" in text
    config = yaml.safe_load(text)
    assert config["model"]["init_args"]["num_classes"] == 2
    assert main(["fit", "--recipe", str(made.run / "recipe.yaml"), "--out", str(made.out)]) == 0
    again = (made.out / "last").resolve()
    assert again != made.run
    assert again.parent == made.run.parent
    state, other = (torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
                    for r in (made.run, again))  # fmt: skip
    assert all(torch.equal(state[name], other[name]) for name in state)
    capsys.readouterr()


def test_validate_and_predict_take_the_run(made: Made, capsys: Captured, tmp_path: Path) -> None:
    assert main(["validate", str(made.run), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    results = Run(made.run).state().results
    assert figures["metrics"].keys() <= results.keys()
    photos = str(made.data / "class_0")
    assert main(["predict", str(made.run), photos, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/predictions.json").is_file()


def test_a_dry_run_writes_the_recipe_to_stdout(made: Made, capsys: Captured) -> None:
    before = sorted(made.out.rglob("run.json"))
    command = ["finetune", "--model", "resnet18", "--data", str(made.data), "--weights", "none"]
    assert main([*command, "--dry-run", "--out", str(made.out), "--epochs", "7"]) == 0
    out, err = capsys.readouterr()
    config = yaml.safe_load(out)
    assert config["trainer"]["max_epochs"] == 7
    assert config["data"]["class_path"] == "OwnImagesDataModule"
    assert "chosen" in err
    assert sorted(made.out.rglob("run.json")) == before


def test_starting_from_a_run_keeps_its_classes(
    made: Made, capsys: Captured, tmp_path: Path
) -> None:
    """Another data set, of one class that the run knows and one that it does not."""
    ImageFolderDataModule.write_fake(tmp_path / "new", classes=3, images=24, size=48)
    for split in ("train", "val", "test"):
        (tmp_path / "new" / split / "class_2").rename(tmp_path / "new" / split / "berry")
    command = [
        "finetune", "--model", "squeezenet1_1", "--data", str(tmp_path / "new"), "--weights",
        str(made.run), "--epochs", "1", "--out", str(tmp_path / "runs"), "--no-report", *SMALL,
    ]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 classes keep their rows (class_0, class_1), 1 starts anew (berry)" in printed
    assert not (tmp_path / "runs/last/report.html").exists()


def test_without_the_published_file_it_says_where_to_put_it(
    made: Made, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    command = ["finetune", "--model", "resnet18", "--data", str(made.data)]
    assert main([*command, "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    name = models.get_weights("resnet18").file_name
    assert f"resnet18 starts from {name} (45 MiB), which is not in {tmp_path}" in error
    assert "--weights PATH" in error
    assert "--weights none" in error
    assert not (tmp_path / "runs").exists()


def test_a_missing_backbone_is_named_too(
    made: Made, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    OwnObjectsDataModule.write_fake(tmp_path / "boxes", classes=2, images=8, size=64)
    command = ["finetune", "--model", "faster_rcnn", "--data", str(tmp_path / "boxes")]
    assert main([*command, "--out", str(tmp_path / "runs"), "--resume", "auto"]) == 2
    out, error = capsys.readouterr()
    assert "nothing to resume for boxes_faster_rcnn" in out
    assert "faster_rcnn starts from resnet50-" in error
    assert "--weights none" in error
    assert error.count("\n") == 1


def test_rate_and_batch_may_be_found_by_trying(
    made: Made, capsys: Captured, tmp_path: Path
) -> None:
    command = [
        "finetune", "--model", "squeezenet1_1", "--data", str(made.data), "--weights", "none",
        "--epochs", "1", "--find-lr", "--batch", "auto", "--out", str(tmp_path), "--no-report",
    ]  # fmt: skip
    assert main([*command, *SIZES]) == 0
    text = (tmp_path / "last/recipe.yaml").read_text()
    config = yaml.safe_load(text)
    rate = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert f"# model.optimizer.lr {rate}: found by trying" in text
    assert f"# batch.per_device {config['batch']['per_device']}: found by trying" in text
    assert "# model.optimizer.lr 0.0001" not in text
    assert "suggest" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_with_its_own_settings(
    made: Made, capsys: Captured, tmp_path: Path
) -> None:
    command = [
        "finetune", "--model", "squeezenet1_1", "--data", str(made.data), "--weights", "none",
        "--out", str(tmp_path / "runs"), "--no-report",
    ]  # fmt: skip
    assert main([*command, "--epochs", "1", *SMALL]) == 0
    (run,) = (tmp_path / "runs/leaves_squeezenet1_1").iterdir()
    Run(run).update(status="interrupted")
    assert main([*command, "--resume", "auto", "--trainer.max_epochs", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"resume   {run}, with the settings of its recipe" in printed
    assert Run(run).state().status == "finished"
    assert len(list((tmp_path / "runs/leaves_squeezenet1_1").iterdir())) == 1


WRONG = {
    "--model resnet18 --data {data} --weights none --freeze_epochs 2":
        "--freeze_epochs holds layers that start from weights, and resnet18 starts from none here",
    "--model resnet18 --data {data} --weights {tmp}/damaged.pth":
        "{tmp}/damaged.pth is damaged",
    "--model resnet18 --data {data} --weights {tmp}/nothing.pth":
        "resnet18: weights='{tmp}/nothing.pth' is neither a file nor a name of weights",
    "--model resnet18 --data {data} --weights IMAGENET1K_V3":
        "unknown weights of resnet18 'IMAGENET1K_V3'; did you mean IMAGENET1K_V1?",
    "--model quantization/resnet18 --data {data}":
        "quantization/resnet18 is an INT8 network; fine-tune resnet18, then: python -m",
    "--model fasterrcnn_resnet50_fpn --data {data} --weights none":
        "fasterrcnn_resnet50_fpn is a detection model and '{data}' holds data for classification",
    "--model mc3_18 --data {data} --weights none":
        "mc3_18 is a video model and '{data}' holds data for classification (folders)",
    "--model resnet18 --data {tmp}/empty --weights none": "is an empty folder; expected images",
    "--model resnet18 --data {tmp}/one --weights none":
        "'{tmp}/one' has the class 'cat' alone, and there is nothing to tell it from",
    "--model resnet18 --data {data} --weights none --data.val_share 2": "val_share is 2",
    "--model resnet18 --data {data} --weights none --format yoli":
        "unknown format 'yoli'; did you mean yolo?",
    "--model resnet18 --data {data} --weights none --resume nowhere": "no run 'nowhere'",
    "--model resnet18 --data {data} --weights none --data.train_corp 5":
        "unknown argument of OwnImagesDataModule 'train_corp'; did you mean train_crop?",
    "--model resnet18 --data {data} --weights none --trainer.max_epochs many":
        "max_epochs is 'many'",
}  # fmt: skip


@pytest.mark.parametrize("command", WRONG)
def test_what_cannot_be_done_is_said_in_one_sentence(
    command: str, made: Made, capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"no file of weights")
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copytree(made.data / "class_0", tmp_path / "one" / "cat")
    places = {"data": str(made.data), "tmp": str(tmp_path)}
    words = [word.format(**places) for word in command.split()]
    out = tmp_path / "runs"
    status = main(["finetune", *words, "--out", str(out)])
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert WRONG[command].format(**places) in error
    assert not list(out.rglob("run.json"))
