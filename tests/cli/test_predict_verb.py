"""The verb `predict`: which thresholds it uses, its lines and bar, what mistakes say."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from videos import full_decode, moving, write_video

from lightning_zoo.cli import main
from lightning_zoo.cli.predict import Progress
from lightning_zoo.recipe.build import build

Captured = pytest.CaptureFixture[str]
SMALL = {
    "backbone": "resnet18", "returned_layers": [2, 3], "fpn_channels": 16, "min_size": 48,
    "representation_size": 32, "max_size": 96, "anchor_sizes": [16, 32, 48],
    "aspect_ratios": [1.0], "rpn_post_nms_top_n_test": 16, "box_score_thresh": 0.0,
    "box_detections_per_img": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that nobody has trained, with thresholds of its own."""
    init = {
        "model": "faster_rcnn", "num_classes": 3, "model_args": SMALL,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    }  # fmt: skip
    config: dict[str, Any] = {
        "model": {"class_path": "DetectionTask", "init_args": init},
        "data": {"class_path": "CocoDataModule", "init_args": {"root": "gone"}},
        "batch": {"size": 2, "per_device": 2},
        "trainer": {"max_epochs": 1},
    }
    torch.manual_seed(0)
    state = build(json.loads(json.dumps(config["model"]))).state_dict()
    ours = {
        "recipe": config, "class_names": ["__background__", "RBC", "WBC"],
        "thresholds": {"RBC": 0.99, "WBC": 0.05},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    torch.save({"state_dict": state, "lightning_zoo": ours}, path)
    return path


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(moving(2, 64, 96)[1]).save("photo.png")
    return Path("photo.png")


def test_thresholds_of_the_run(checkpoint: Path, photo: Path, capsys: Captured) -> None:
    assert main(["predict", str(checkpoint), str(photo)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "thresholds of the run: RBC 0.99, WBC 0.05; --threshold S sets one for all"
    assert "WBC" in second
    assert "RBC" not in second
    assert main(["predict", str(checkpoint), str(photo), "--threshold", "0", "--json"]) == 0
    out, err = capsys.readouterr()
    assert {one["label"] for one in json.loads(out)[0]["objects"]} == {"RBC", "WBC"}
    assert err == ""
    assert main(["predict", str(checkpoint), str(photo), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("thresholds of the run: ")
    assert {one["label"] for one in json.loads(out)[0]["objects"]} == {"WBC"}


def test_stopped_in_a_film(
    checkpoint: Path, photo: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(Path("a.mp4"), moving(12, 64, 96))

    def stop(self: Progress, film: Path, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "on_frame", stop)
    assert main(["predict", str(checkpoint), str(photo), "a.mp4", "--out", "out"]) == 130
    out, err = capsys.readouterr()
    assert err == "stopped\n"
    assert "photo.png  " in out, "said before the film began"
    assert len(full_decode(Path("out/a.mp4"))) == 5
    photo_entry, film_entry = json.loads(Path("out/predictions.json").read_text())
    assert (photo_entry["file"], len(film_entry["frames"])) == ("photo.png", 5)


MISTAKES = {
    "{c} photo.png --out photo.png": "--out is 'photo.png', and photo.png is a file; expected a f",
    "{c} photo.png --out photo.png/a/b": "and photo.png is a file; expected a folder",
    "{c} phto.png": "no file or folder at 'phto.png'; did you mean photo.png?",
    "{c} *.jpg": "no file fits '*.jpg'; '.' holds 1 .png",
    "{c} photo.png --out .": "--out is '.', where photo.png would be overwritten; choose another",
    "{c} photo.png --save coco": "--save coco needs a folder; add --out DIR",
    "{c} photo.png --out o --save coco,cvs": "unknown --save 'cvs'; did you mean csv?",
    "{c} photo.png --every 0": "--every is 0; expected a whole number of frames of at least 1",
    "{c} photo.png --threshold 2": "--threshold is 2.0; expected a score from 0 to 1",
    "r3d_18 photo.png --every 2": "--every is 2, but r3d_18 looks at clips, not at frames",
    "resnet51 photo.png": "no run or model 'resnet51'; did you mean resnet50?",
    "gone.ckpt photo.png": "no checkpoint at gone.ckpt",
    "resnet18 photo.png --weights gone.pth": "gone.pth",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes(checkpoint: Path, photo: Path, capsys: Captured, command: str) -> None:
    before = photo.read_bytes()
    assert main(["predict", *command.format(c=checkpoint).split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert MISTAKES[command] in err
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["photo.png"], "nothing was written"
    assert photo.read_bytes() == before


def test_out_within_the_photos(checkpoint: Path, photo: Path, capsys: Captured) -> None:
    """A second call does not take the first one's pictures for photos."""
    for _ in range(2):
        assert main(["predict", str(checkpoint), ".", "--out", "out", "--json"]) == 0
        assert [one["file"] for one in json.loads(capsys.readouterr().out)] == ["photo.png"]


def test_a_threshold_without_use(
    photo: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_zoo import models

    torch.manual_seed(0)
    torch.save(models.squeezenet1_1().state_dict(), "mine.pth")
    command = ["predict", "squeezenet1_1", "photo.png", "--weights", "mine.pth"]
    assert main([*command, "--threshold", "0.3"]) == 0
    assert capsys.readouterr().err == "--threshold is not used: the model says one class\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, bars and the lines above them; else lines alone."""
    monkeypatch.setenv("TERM", "xterm")
    for name, stdout in (("terminal", Terminal()), ("pipe", io.StringIO())):
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        with Progress(3) as progress:
            progress.on_frame(Path("films/street.mp4"), 1, 40)
            progress.on_frame(Path("films/street.mp4"), 40, 40)
            time.sleep(0.25)  # it is drawn ten times a second
            progress.print("street.mp4  40 frames [1]")
            progress.on_files(1)
        shown = stdout.getvalue()
        assert "street.mp4  40 frames [1]\n" in shown
        for part in ("40/40", "frames/s", "0/3"):
            assert (part in shown) == (name == "terminal"), part
        assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_the_bar_beside_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the lines go into a file, the bar is on the terminal and the file has none of it."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(2) as progress:
        progress.print("a.jpg  cat")
        progress.on_files(2)
    assert sys.stdout.getvalue() == "a.jpg  cat\n"  # type: ignore[attr-defined]
    assert "2/2" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_pictures_are_read_while_the_network_works(tmp_path: Path) -> None:
    """The next picture is asked for before the network has answered on the one before."""
    job = importlib.import_module("lightning_zoo.engine.predict.job")
    thresholds = importlib.import_module("lightning_zoo.engine.predict.thresholds").Thresholds()
    import threading

    from lightning_zoo.engine.predict.detection import Detector

    second = tmp_path / "b.png"
    for path in (tmp_path / "a.png", second):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    asked = threading.Event()
    read_image = job.read_image

    def read(path: Path) -> Any:
        if path == second:
            asked.set()
        return read_image(path)

    def detect(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert asked.wait(10)
        empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return [{**empty, "scores": torch.zeros(0)}]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "read_image", read)
        detector = Detector(detect, ["__background__", "cell"], thresholds)
        files = [tmp_path / "a.png", second]
        found = list(job.Job(detector, files, "detection", thresholds).run())
    assert [one.summary() for one in found] == ["nothing", "nothing"]
