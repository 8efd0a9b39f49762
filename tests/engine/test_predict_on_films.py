"""Image models on films: what is written plays, at the film's own times, as JSON has it."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from predictors import bar_detector, bar_segmenter, brightness_classifier
from videos import cut_file, full_decode, moving, write_audio, write_video

import lightning_zoo as lz
from lightning_zoo import models
from lightning_zoo.cli import main
from lightning_zoo.engine.predict import VideoResult
from lightning_zoo.engine.predict.films import Film, FilmWriter, find_encoder
from lightning_zoo.engine.predict.job import Job
from lightning_zoo.engine.predict.results import FrameResults
from lightning_zoo.engine.predict.thresholds import Thresholds
from lightning_zoo.transforms.decode import read_image
from lightning_zoo.transforms.video_decode import VideoError

PREDICTORS: dict[str, Callable[[], Any]] = {
    "classification": brightness_classifier,
    "detection": lambda: bar_detector(masks=True),
    "segmentation": bar_segmenter,
}


def job_of(task: str, files: Sequence[Path], out: Path | None, **more: Any) -> Job:
    return Job(PREDICTORS[task](), list(files), task, Thresholds(), out=out, **more)


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


@pytest.mark.parametrize("task", PREDICTORS)
def test_an_annotated_film(task: str, tmp_path: Path) -> None:
    """Frames, rate, size and times are the film's; pictures differ where something was drawn."""
    rate = Fraction(30000, 1001)
    source = write_video(tmp_path / "street.mp4", moving(25, 121, 161), fps=rate, audio=True,
                         pix_fmt="yuv444p")  # fmt: skip
    out = tmp_path / "out"
    job = job_of(task, [source], out)
    seen: list[tuple[Path, int, int]] = []
    (result,) = job.run(on_frame=lambda *progress: seen.append(progress))
    assert seen == [(source, done, 25) for done in range(1, 26)]
    assert isinstance(result, VideoResult)
    assert result.video == str(out / "street.mp4")
    assert (result.width, result.height, len(result.frames)) == (161, 121, 25)
    assert result.rate == pytest.approx(29.97, abs=1e-3)
    with av.open(str(out / "street.mp4")) as container:
        (stream,) = container.streams  # no sound
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (162, 122)
        assert stream.average_rate == rate
        assert stream.duration * stream.time_base == 25 / rate
    assert times_of(out / "street.mp4") == pytest.approx(times_of(source), abs=1e-9)

    before, after = full_decode(source), full_decode(out / "street.mp4")
    assert after.shape == (25, 122, 162, 3)
    for i in (0, 12, 24):
        drawn = result.frames[i].draw(before[i])
        changed = np.abs(drawn.astype(int) - before[i]).max(axis=2) > 60
        assert changed.sum() > 100
        difference = np.abs(after[i, :121, :161].astype(int) - before[i]).mean(axis=2)
        assert difference[changed].mean() > 30
        same = np.abs(after[i, :121, :161].astype(int) - drawn).mean(axis=2)
        assert same.mean() < 12, "but for what the codec loses"
        assert difference[~changed].mean() < difference[changed].mean() / 2

    plain = json.loads((out / "predictions.json").read_text())
    assert plain == json.loads(json.dumps([result.as_json()]))
    assert (out / "predictions.json").read_text().startswith('[\n {\n  "file": ')
    assert list(plain[0]) == ["file", "width", "height", "rate", "frames"]
    assert [one["frame"] for one in plain[0]["frames"]] == list(range(25))
    assert [one["time"] for one in plain[0]["frames"]] == pytest.approx(
        [i / float(rate) for i in range(25)], abs=1e-6
    )
    assert {path.name for path in out.iterdir()} == {"street.mp4", "predictions.json", "grid.png"}


@pytest.mark.parametrize("task", PREDICTORS)
def test_frames_are_images(task: str, tmp_path: Path) -> None:
    """The result of a frame is that of a picture of it; plot reads it from the film again."""
    source = write_video(tmp_path / "a.mkv", moving(10, 64, 96))
    (result,) = job_of(task, [source], None).run()
    assert result.video is None
    decoded = full_decode(source)
    predictor = PREDICTORS[task]()
    for i, frame in enumerate(result.frames):
        Image.fromarray(decoded[i]).save(tmp_path / "a.png")
        (alone,) = predictor([(tmp_path / "a.png", read_image(tmp_path / "a.png"))])
        expected = {**alone.as_json(), "file": str(source)}
        found = {k: v for k, v in frame.as_json().items() if k not in ("frame", "time")}
        assert found == expected
        assert frame.frame == i
    np.testing.assert_array_equal(
        np.asarray(result.frames[7].plot()), result.frames[7].draw(decoded[7])
    )
    np.testing.assert_array_equal(np.asarray(result.plot()), result.frames[5].draw(decoded[5]))
    assert result.frames[-1].frame == 9
    assert [one.frame for one in result.frames[2:5]] == [2, 3, 4]
    assert {entry["image_id"] for entry in result.to_coco(100)} <= set(range(100, 110))
    assert result.to_coco(100)[0]["image_id"] == 100


def test_each_third_frame(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", moving(20, 64, 96), fps=30)
    out = tmp_path / "out"
    (result,) = job_of("detection", [source], out, every=3, save=("csv", "coco")).run()
    assert [one.frame for one in result.frames] == [0, 3, 6, 9, 12, 15, 18]
    assert [one.time for one in result.frames] == pytest.approx([i / 10 for i in range(7)])
    assert result.rate == 10
    with av.open(str(out / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
    assert times_of(out / "a.mp4") == pytest.approx([i / 10 for i in range(7)])
    assert result.summary() == "7 frames, 10 a second: bar in 7, cell in 7"

    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    frames = json.loads((out / "predictions.json").read_text())[0]["frames"]
    expected = [
        [one["frame"], one["time"], thing["label"], thing["box"][0]]
        for one in frames
        for thing in one["objects"]
    ]
    found = [[row[key] for key in ("frame", "time", "label", "x")] for row in rows]
    assert found == [[str(value) for value in row] for row in expected]
    content = json.loads((out / "predictions_coco.json").read_text())
    assert [(image["id"], image["frame"]) for image in content["images"]] == [
        (i + 1, 3 * i) for i in range(7)
    ]
    assert [a["image_id"] for a in content["annotations"]] == [i // 2 + 1 for i in range(14)]


def test_times_of_a_variable_rate(tmp_path: Path) -> None:
    pts = [0, 40, 100, 120, 333, 340, 700]
    source = write_video(tmp_path / "a.mkv", moving(7, 64, 96), pts=pts,
                         time_base=Fraction(1, 1000))  # fmt: skip
    (result,) = job_of("detection", [source], tmp_path / "out").run()
    assert [one.time for one in result.frames] == pytest.approx([tick / 1000 for tick in pts])
    assert times_of(tmp_path / "out/a.mp4") == pytest.approx([tick / 1000 for tick in pts])
    assert result.rate == pytest.approx(6 / 0.7)


def test_turned_films_stand_upright(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", moving(6, 64, 96), rotation=90)
    (result,) = job_of("classification", [source], tmp_path / "out").run()
    assert (result.width, result.height) == (64, 96)
    assert full_decode(tmp_path / "out/a.mp4").shape == (6, 96, 64, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_very_short_films(count: int, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", moving(count, 64, 96))
    (result,) = job_of("detection", [source], tmp_path / "out").run()
    assert len(result.frames) == len(full_decode(tmp_path / "out/a.mp4")) == count


def test_without_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_encoder() in av.codecs_available
    module = importlib.import_module("lightning_zoo.engine.predict.films")
    monkeypatch.setattr(module, "find_encoder", lambda: "mpeg4")
    frames = moving(12, 120, 160)
    for step in (Fraction(1001, 24000), None):
        with FilmWriter(tmp_path / "a.mp4", 23.976, step) as writer:
            for i, pixels in enumerate(frames):
                writer.add(pixels, i * 1001 / 24000)
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert container.streams.video[0].codec_context.name == "mpeg4"
        assert times_of(tmp_path / "a.mp4") == pytest.approx(
            [i * 1001 / 24000 for i in range(12)], abs=1e-4
        )
        difference = np.abs(full_decode(tmp_path / "a.mp4").astype(int) - frames)
        assert difference.mean() < 15


def test_colours_stay(tmp_path: Path) -> None:
    colours = np.array([(200, 30, 40), (20, 180, 60), (30, 60, 220), (250, 250, 250)], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 64, axis=0), 32, axis=1)
    with FilmWriter(tmp_path / "a.mp4", 25, Fraction(1, 25)) as writer:
        for i in range(3):
            writer.add(picture, i / 25)
    found = full_decode(tmp_path / "a.mp4")[1][32, 16::32].astype(int)
    np.testing.assert_allclose(found, colours, atol=4)


# what goes wrong


def cut_film(path: Path) -> Path:
    """Write a film whose end is missing; what is left has its table of contents in front."""
    whole = write_video(path.with_name("whole.mkv"), moving(60, 64, 96), fps=15)
    path.write_bytes(whole.read_bytes())
    whole.unlink()
    return cut_file(path, 0.6)


def test_a_film_that_is_cut_off(tmp_path: Path) -> None:
    """Its frames before the break count, it is named, and the next film follows."""
    broken = cut_film(tmp_path / "broken.mkv")
    good = write_video(tmp_path / "good.mp4", moving(5, 64, 96))
    sound = write_audio(tmp_path / "sound.mp4")
    out = tmp_path / "out"
    named: list[str] = []
    found = list(job_of("detection", [broken, sound, good], out).run(named))
    assert [one.file for one in found] == [str(broken), str(good)]
    first, second = named
    assert first.startswith(f"cannot read the video '{broken}': the file is cut off or damaged; ")
    assert second.startswith(f"cannot read the video '{sound}': it has no video stream")
    kept = len(found[0].frames)
    assert 20 < kept < 60
    assert f"; {kept} of " in first
    assert len(full_decode(out / "broken.mp4")) == kept
    assert [len(one["frames"]) for one in json.loads((out / "predictions.json").read_text())] == [
        kept, 5,
    ]  # fmt: skip
    with pytest.raises(VideoError, match="cut off or damaged"):
        list(job_of("detection", [broken], None).run())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_done_when_it_is_stopped(error: type[BaseException], tmp_path: Path) -> None:
    """Film and tables can be read, and hold what was done by then."""
    source = write_video(tmp_path / "a.mp4", moving(40, 64, 96))
    out = tmp_path / "out"
    job = job_of("detection", [source], out, save=("csv", "coco"))

    def stop(film: Path, done: int, total: int) -> None:
        if done == 17:
            raise error

    with pytest.raises(error):
        list(job.run(on_frame=stop))
    assert len(full_decode(out / "a.mp4")) == 17
    (entry,) = json.loads((out / "predictions.json").read_text())
    assert [one["frame"] for one in entry["frames"]] == list(range(17))
    assert len(json.loads((out / "predictions_coco.json").read_text())["images"]) == 17
    assert (out / "predictions.csv").read_text().count("\n") == 1 + 2 * 17
    assert not list(out.glob(".*")), "nothing temporary"


def test_frame_results_are_a_list(tmp_path: Path) -> None:
    frames = FrameResults()
    assert len(frames) == 0
    assert list(frames) == []
    with pytest.raises(IndexError):
        frames[0]
    source = write_video(tmp_path / "a.mp4", moving(3, 64, 96))
    film = Film(source)
    film.run(bar_detector())
    assert len(film.result.frames) == 3
    with pytest.raises(IndexError):
        film.result.frames[3]


# the whole way


def test_films_among_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published classifier, whose weights are those of a file, on both at once."""
    import torch

    torch.manual_seed(0)
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "mine.pth")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(moving(2, 64, 96)[1]).save("photos/street.png")
    write_video(Path("photos/clip.mp4"), moving(8, 64, 96))
    write_video(Path("street.mp4"), moving(6, 64, 96), fps=24)
    command = ["predict", "squeezenet1_1", "street.mp4", "photos/*", "--weights", "mine.pth",
               "--out", "out", "--every", "2", "--save", "csv,coco"]  # fmt: skip
    assert main(command) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    first, second, third, last = printed.splitlines()
    assert first.startswith("street.mp4         3 frames, 12 a second: ")
    assert second.startswith("photos/clip.mp4    4 frames, 15 a second: ")
    assert third.startswith("photos/street.png  ")
    assert last == "pictures: out/grid.png and one for each file"
    assert {path.name for path in Path("out").iterdir()} == {
        "street.mp4", "clip.mp4", "street_2.png", "grid.png", "predictions.json",
        "predictions.csv", "predictions_coco.json",
    }  # fmt: skip
    again = lz.predict("squeezenet1_1", ["street.mp4", "photos"], weights="mine.pth", every=2)
    assert json.loads(Path("out/predictions.json").read_text()) == json.loads(
        json.dumps([one.as_json() for one in again])
    )
    assert sum(again[0].seen.values()) == 3
