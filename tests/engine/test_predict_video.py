"""`predict` classifies videos: which frames, figures and contact sheets, of runs and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from PIL import Image
from videos import cut_file, full_decode, moving, write_audio, write_video

import lightning_zoo
from lightning_zoo import models
from lightning_zoo.cli import main
from lightning_zoo.engine.predict import find_files
from lightning_zoo.engine.predict.video import VideoClassifier, published_video_classifier
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import ModelEntry, class_names, get_entry, get_weights
from lightning_zoo.tasks import VideoTask
from lightning_zoo.transforms.video import EvalTransform
from lightning_zoo.transforms.video_decode import VideoError

NAMES = ["archery", "bowling", "tai chi"]
SMALL = {"layers": (1, 1), "widths": (4, 8)}
SIZE: dict[str, Any] = {"eval_resize": [24, 32], "eval_crop": 20}
MEAN = torch.tensor([0.43216, 0.394666, 0.37645]).view(1, 3, 1, 1, 1)
STD = torch.tensor([0.22803, 0.22145, 0.216989]).view(1, 3, 1, 1, 1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 30 frames a second, and one that is shorter than a clip."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", moving(60, seed=1))
    (folder / "deep").mkdir()
    write_video(folder / "deep" / "other.mkv", moving(48, 40, 56, seed=2))
    write_video(folder / "short.mp4", moving(12, seed=3))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network, such as a run leaves it; the data is gone."""
    args = {"root": "gone", "clip_frames": 8, "eval_clips": 3, **SIZE}
    config: dict[str, Any] = {
        "model": {
            "class_path": "VideoTask",
            "init_args": {
                "model": "video_resnet",
                "num_classes": 3,
                "model_args": {k: list(v) for k, v in SMALL.items()},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            },
        },
        "data": {"class_path": "VideoFolderDataModule", "init_args": args},
    }
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    return write_checkpoint(path, config, NAMES, prepare=with_contrast)


def with_contrast(task: Any) -> None:
    torch.nn.init.normal_(task.model.fc.weight)


def clips_of(file: Path, places: list[list[int]], transform: EvalTransform) -> torch.Tensor:
    """Return the clips that the frames at those places of a full decode make."""
    frames = full_decode(file)
    return torch.stack([transform(frames[row]) for row in places])


def test_which_frames_are_seen(videos: Path) -> None:
    """Windows of every second frame, evenly spaced from the first to the last."""
    transform = EvalTransform((24, 32), 20)
    classifier = VideoClassifier(lambda clips: clips, transform, NAMES, 16, 15.0)
    video = classifier.read(videos / "long.mp4")
    starts = [0, 3, 7, 10, 14]  # of 15 windows in 30 frames
    places = [[2 * (start + t) for t in range(16)] for start in starts]
    assert torch.equal(video.clips, clips_of(videos / "long.mp4", places, transform))
    shown = [2 * (i * 30 // 8) for i in range(8)]
    np.testing.assert_array_equal(video.frames, full_decode(videos / "long.mp4")[shown])


def test_the_last_frame_of_a_short_video_stands(videos: Path) -> None:
    transform = EvalTransform((24, 32), 20)
    classifier = VideoClassifier(lambda clips: clips, transform, NAMES, 16, 15.0, count=2)
    video = classifier.read(videos / "short.mp4")
    places = [[min(2 * t, 10) for t in range(16)]] * 2
    assert torch.equal(video.clips, clips_of(videos / "short.mp4", places, transform))
    assert len(video.frames) == 6
    every = VideoClassifier(lambda clips: clips, transform, NAMES, 16, None)
    assert torch.equal(
        every.read(videos / "short.mp4").clips,
        clips_of(videos / "short.mp4", [[min(t, 11) for t in range(16)]] * 5, transform),
    )


def test_a_run(
    checkpoint: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_video(tmp_path / "broken.mp4", moving(40), options={"movflags": "faststart"})
    cut_file(broken, 0.6)
    write_audio(tmp_path / "sound.mp4")
    out = tmp_path / "out"
    command = ["predict", str(checkpoint), str(videos), str(tmp_path), "--out", str(out)]
    assert main(command) == 1
    printed, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith(f"skipped: cannot read the video '{broken}': ")
    assert second.startswith(
        f"skipped: cannot read the video '{tmp_path}/sound.mp4': it has no vid"
    )
    assert len(printed.splitlines()) == 4

    found = json.loads((out / "predictions.json").read_text())
    files = ["deep/other.mkv", "long.mp4", "short.mp4"]
    assert [one["file"] for one in found] == [str(videos / name) for name in files]
    task = VideoTask(
        "video_resnet", num_classes=3, model_args=SMALL, optimizer=torch.optim.SGD
    ).eval()
    task.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    starts = [0, 11, 22]  # of 23 windows of 8 in 30 frames
    places = [[2 * (start + t) for t in range(8)] for start in starts]
    clips = clips_of(videos / "long.mp4", places, EvalTransform((24, 32), 20))
    with torch.no_grad():
        probs = task.model((clips / 255 - MEAN) / STD).softmax(dim=1).mean(dim=0)
    assert dict(found[1]["top"]) == pytest.approx(
        {name: float(p) for name, p in zip(NAMES, probs, strict=True)}, abs=1e-4
    )
    assert found[1]["label"] == NAMES[int(probs.argmax())]
    assert f"{found[1]['label']} {100 * found[1]['score']:.1f} %" in printed
    assert {path.name for path in out.iterdir()} == {
        "grid.png", "long.png", "other.png", "predictions.json", "short.png",
    }  # fmt: skip
    with Image.open(out / "long.png") as sheet:
        assert sheet.width == 646
        assert sheet.height > 240, "two rows of frames and three lines"

    api = lightning_zoo.predict(checkpoint, [videos / "long.mp4"])
    assert (api[0].label, api[0].score) == (found[1]["label"], found[1]["score"])
    with pytest.raises(VideoError, match=r"cannot read the video .*broken\.mp4"):
        lightning_zoo.predict(checkpoint, [broken])


def test_the_preprocessing_of_published_models(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small network in the place of the published one: 128 x 171, 112 in the middle."""
    torch.manual_seed(1)
    network = models.get_model("video_resnet", num_classes=400, **SMALL).eval()
    torch.nn.init.normal_(network.fc.weight)
    monkeypatch.setattr(ModelEntry, "load_builder", lambda self: lambda weights: network)
    classifier = published_video_classifier(get_entry("r3d_18"), "DEFAULT")
    video = classifier.read(videos / "long.mp4")
    assert video.clips.shape == (5, 3, 16, 112, 112)
    (found,) = classifier([(videos / "long.mp4", video)])
    places = [[2 * (start + t) for t in range(16)] for start in (0, 3, 7, 10, 14)]
    clips = clips_of(videos / "long.mp4", places, EvalTransform((128, 171), 112))
    with torch.no_grad():
        probs = network((clips / 255 - MEAN) / STD).softmax(dim=1).mean(dim=0)
    best = int(probs.argmax())
    assert found.label == class_names("kinetics400")[best]
    assert found.score == pytest.approx(float(probs[best]), abs=1e-4)
    assert len(found.top) == 5


@pytest.mark.slow
def test_a_published_model(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Stand-in weights in the cache of torch.hub take the place of the published file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    network = models.get_model("mc3_18").eval()
    torch.nn.init.normal_(network.fc.weight)
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / get_weights("mc3_18").file_name)
    assert main(["predict", "mc3_18", str(videos / "long.mp4"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["label"] in class_names("kinetics400")
    assert found["score"] == found["top"][0][1]


def test_images_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photos" / "a.jpg"
    photo.parent.mkdir()
    Image.new("RGB", (20, 20)).save(photo)
    for inputs in (photo.parent, photo):
        assert main(["predict", str(checkpoint), str(inputs)]) == 2
        assert capsys.readouterr().err.splitlines() == [
            "error: video_resnet takes videos (3gp, avi, flv, m4v, mkv, mov, mp4, mpeg, mpg, ogv, "
            f"ts, webm, wmv), and '{photo}' is an image; name videos, or another model"
        ]
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "none").mkdir()
    with pytest.raises(ZooError, match=r"^no videos in .*none; expected 3gp, avi, .* files$"):
        find_files([tmp_path / "none"], "videos")
    # a file that is named is looked at, whatever it is called
    assert find_files([tmp_path / "notes.txt"], "videos") == [tmp_path / "notes.txt"]
    assert main(["predict", str(checkpoint), str(tmp_path / "notes.txt")]) == 2
    assert "skipped: cannot read the video" in capsys.readouterr().err
