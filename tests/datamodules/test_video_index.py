"""The index of frame times: what it holds, and that nothing is looked at twice."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import cut_file, moving, write_audio, write_video

from lightning_zoo.datamodules import video_index, video_probing
from lightning_zoo.datamodules.files import FileNames
from lightning_zoo.datamodules.video_index import VideoIndex, build_index
from lightning_zoo.transforms.video_decode import VideoError, probe, resample

NANOSECONDS = Fraction(1, 1_000_000_000)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Return a folder of videos of all kinds, good and broken."""
    root = tmp_path_factory.mktemp("kinds")
    write_video(root / "b.mp4", moving(30))
    write_video(root / "a.mkv", moving(30), fps=25)
    write_video(
        root / "variable.mkv",
        moving(12),
        pts=[i * i for i in range(12)],
        time_base=Fraction(1, 1000),
    )
    write_video(root / "turned.mp4", moving(5), rotation=90)
    write_video(root / "one.mp4", moving(1))
    write_video(root / "counted.avi", moving(9), codec="mpeg4")
    (root / "été").mkdir()
    write_video(root / "été" / "Zoë 1.mp4", moving(4))
    write_audio(root / "sound.mp4")
    (root / "empty.mp4").touch()
    cut_file(write_video(root / "cut.mp4", moving(9)), 0.5)
    return root


BROKEN = {
    "sound.mp4": "it has no video stream, only audio",
    "empty.mp4": "the file is empty",
    "cut.mp4": "it is no video, or it lacks its table of contents",
}


def names_in(root):
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*.*") if p.is_file())
    return [name for name in names if not name.startswith(".")]


@pytest.fixture
def copies(kinds, tmp_path):
    """Return a folder of the same videos without an index."""
    root = tmp_path / "data"
    for name in names_in(kinds):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((kinds / name).read_bytes())
    return root


@pytest.fixture
def looked_at(monkeypatch):
    """Return the list of files that are looked at from here on."""
    files = []

    def noted(path):
        files.append(os.path.basename(path))
        return probe(path)

    monkeypatch.setattr(video_probing, "probe", noted)
    return files


def assert_right(index, root, names):
    assert list(index.names) == list(names)
    assert len(index) == len(names)
    assert index.errors == {n: BROKEN[os.path.basename(n)] for n in names if n in BROKEN}
    for i, name in enumerate(names):
        if name in BROKEN:
            assert index.counts[i] == 0
            with pytest.raises(VideoError) as caught:
                index.frames(i)
            assert str(caught.value) == f"cannot read the video {name!r}: {BROKEN[name]}"
            continue
        ours, expected = index.frames(i), probe(root / name)
        assert index.counts[i] == len(expected)
        for field in ("pts", "keyframes"):
            assert getattr(ours, field).dtype == getattr(expected, field).dtype
            np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field))
        for field in ("time_base", "size", "rotation", "mirrored", "stream", "by_time"):
            assert getattr(ours, field) == getattr(expected, field)


def test_all_kinds(copies, looked_at, capsys):
    names = names_in(copies)
    assert len(names) == 10
    assert_right(build_index(copies, names), copies, names)
    assert sorted(looked_at) == sorted(map(os.path.basename, names))
    looked_at.clear()
    backwards = names[::-1]
    assert_right(build_index(str(copies), FileNames(backwards)), copies, backwards)
    assert_right(build_index(copies, names[3:5] * 2), copies, names[3:5] * 2)
    assert looked_at == [], "broken files are not looked at again either"
    kept = sorted(p.suffix for p in (copies / ".lightning_zoo").iterdir())
    assert kept == [".lock", ".npz"]
    assert capsys.readouterr().out == "", "a short build passes in silence"


def test_processes_find_the_same(copies, monkeypatch):
    monkeypatch.setattr(video_probing, "VIDEOS_WORTH_A_PROCESS", 1)
    names = names_in(copies)
    assert_right(build_index(copies, names, workers=2), copies, names)


def test_lengths(copies):
    names = names_in(copies)
    index = build_index(copies, names)
    for rate in (15, 10.0, 29.97, 100, None):
        expected = [
            0 if name in BROKEN else len(resample(index.frames(i), rate))
            for i, name in enumerate(names)
        ]
        assert index.lengths(rate).tolist() == expected
        assert index.lengths(rate).dtype == np.int32


def test_changed_added_and_removed(copies, looked_at):
    names = names_in(copies)
    build_index(copies, names)
    looked_at.clear()
    write_video(copies / "b.mp4", moving(8))
    write_video(copies / "sound.mp4", moving(3))
    write_video(copies / "new.mp4", moving(7))
    (copies / "one.mp4").unlink()
    names = names_in(copies)
    index = build_index(copies, names)
    assert sorted(looked_at) == ["b.mp4", "new.mp4", "sound.mp4"]
    assert index.counts[names.index("b.mp4")] == 8
    assert set(index.errors) == {"cut.mp4", "empty.mp4"}
    (place,) = (copies / ".lightning_zoo").glob("*.npz")
    assert sorted(VideoIndex.load(place).names) == names, "what is gone is forgotten"
    looked_at.clear()
    time.sleep(0.01)
    os.utime(copies / "turned.mp4")
    build_index(copies, names)
    assert looked_at == ["turned.mp4"]


def test_splits_share_the_file(copies, looked_at):
    names = names_in(copies)
    build_index(copies, names[:5])
    build_index(copies, names[5:])
    assert len(looked_at) == len(names)
    assert_right(build_index(copies, names), copies, names)
    assert len(looked_at) == len(names)


def test_missing_files_are_looked_for_again(copies):
    names = ["b.mp4", "later.mp4"]
    assert build_index(copies, names).errors == {"later.mp4": "No such file or directory"}
    write_video(copies / "later.mp4", moving(3))
    index = build_index(copies, names)
    assert (index.errors, index.counts.tolist()) == ({}, [30, 3])


def test_other_versions_start_anew(copies, looked_at, monkeypatch):
    names = names_in(copies)
    build_index(copies, names)
    looked_at.clear()
    for change in ((av, "__version__", "99.0.0"), (video_index, "FORMAT", 99)):
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            build_index(copies, names)
            assert len(looked_at) == len(names)
            build_index(copies, names)
            assert len(looked_at) == len(names)
        looked_at.clear()
    build_index(copies, names)
    assert looked_at == [], "the versions do not overwrite each other's"


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "noise": lambda data: bytes(b ^ (0xFF if i % 50 == 0 else 0) for i, b in enumerate(data)),
    "text": lambda data: b"not an index",
    "pickle": lambda data: b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file(copies, looked_at, damage):
    names = names_in(copies)
    build_index(copies, names)
    (place,) = (copies / ".lightning_zoo").glob("*.npz")
    place.write_bytes(DAMAGE[damage](place.read_bytes()))
    looked_at.clear()
    assert_right(build_index(copies, names), copies, names)
    assert len(looked_at) == len(names)


def test_damaged_journal(copies, looked_at):
    names = names_in(copies)
    build_index(copies, names)
    (place,) = (copies / ".lightning_zoo").glob("*.npz")
    whole = {"name": "gone.mp4", "file_size": 1, "mtime_ns": 2, "error": "old"}
    lines = [json.dumps(whole), "[]", "7", '{"name": "x"}', "", '{"name": "b.mp4", "file_si']
    place.with_suffix(".journal").write_text("\n".join(lines))
    (place.parent / f"{place.name}.1.part").write_text("half an index")
    looked_at.clear()
    assert_right(build_index(copies, names), copies, names)
    write_video(copies / "new.mp4", moving(3))
    names = names_in(copies)
    assert_right(build_index(copies, names), copies, names)
    assert looked_at == ["new.mp4"]
    assert sorted(p.suffix for p in place.parent.iterdir()) == [".lock", ".npz"]


SLOW = """
    import sys, time
    from lightning_zoo.datamodules import video_index, video_probing
    from lightning_zoo.transforms.video_decode import probe

    root, log, seconds, *names = sys.argv[1:]

    def slow(path):
        with open(log, "a") as file:
            file.write(path + "\\n")
        time.sleep(float(seconds))
        return probe(path)

    video_probing.probe = slow
    index = video_index.build_index(root, names)
    print(len(index), sum(index.counts.tolist()), len(index.errors))
"""


def start(root, log, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), root, log, str(seconds), *names_in(root)],
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_in_the_middle(copies, tmp_path, looked_at):
    log = tmp_path / "log"
    process = start(copies, log, 0.1)
    wait_for(lambda: len(lines(log)) >= 4)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    names = names_in(copies)
    done = {os.path.basename(name) for name in lines(log)[:-1]}  # the last was being looked at
    assert len(done) >= 3
    assert_right(build_index(copies, names), copies, names)
    assert set(looked_at) == {os.path.basename(name) for name in names} - done


def test_two_builds_at_once(copies, tmp_path):
    log = tmp_path / "log"
    names = names_in(copies)
    both = [start(copies, log, 0.05) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0][-1] == printed[1][-1] == "10 91 3"
    assert sorted(lines(log)) == sorted(str(copies / name) for name in names), "each file once"


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Return the person's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


def test_folder_that_cannot_be_written(copies, looked_at, caches):
    (copies / ".lightning_zoo").write_text("in the way")
    names = names_in(copies)
    for _ in range(2):
        assert_right(build_index(copies, names), copies, names)
    assert len(looked_at) == len(names)
    assert len(list(caches.glob("lightning_zoo/videos-*/*.npz"))) == 1


def test_read_only_folder(copies, looked_at, caches):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    names = names_in(copies)
    copies.chmod(0o500)
    try:
        for _ in range(2):
            assert_right(build_index(copies, names), copies, names)
    finally:
        copies.chmod(0o700)
    assert len(looked_at) == len(names)
    assert len(list(caches.glob("lightning_zoo/videos-*/*.npz"))) == 1


def test_index_that_came_with_a_read_only_folder(copies, looked_at, caches, monkeypatch):
    names = names_in(copies)
    build_index(copies, names)
    looked_at.clear()
    write_video(copies / "new.mp4", moving(3))
    writable = Path.open

    def refuse(path, mode="r", *args, **options):
        if ".lightning_zoo" in str(path) and mode != "rb":
            raise PermissionError(13, "Permission denied")
        return writable(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    names = names_in(copies)
    assert_right(build_index(copies, names), copies, names)
    assert looked_at == ["new.mp4"], "the rest was in the folder's own index"
    assert_right(build_index(copies, names), copies, names)
    assert looked_at == ["new.mp4"]


def test_nothing_can_be_written(copies, looked_at, caches):
    (copies / ".lightning_zoo").write_text("in the way")
    caches.write_text("in the way")
    names = names_in(copies)
    for _ in range(2):
        assert_right(build_index(copies, names), copies, names)
    assert len(looked_at) == 2 * len(names), "nothing was kept"


def test_full_disk(copies, monkeypatch, capsys):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoIndex, "save", full)
    names = names_in(copies)
    assert_right(build_index(copies, names), copies, names)
    assert "cannot be kept in" in capsys.readouterr().out


FAKE_HELPER = """
    import os, sys
    from lightning_zoo.datamodules.video_probing import examine
    import json

    for line in sys.stdin:
        if "turned" in line:
            os.abort()
        answer = json.dumps(examine(*json.loads(line))) if line.strip() else ""
        print(answer, flush=True)
"""


def test_video_that_crashes_the_decoder(copies, monkeypatch):
    monkeypatch.setattr(video_probing, "VIDEOS_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(video_probing, "HELPER", ["-c", textwrap.dedent(FAKE_HELPER)])
    names = names_in(copies)
    index = build_index(copies, names, workers=2)
    assert index.errors == {
        **BROKEN,
        "turned.mp4": "the process that read it ended with status -6",
    }
    monkeypatch.undo()
    assert_right(build_index(copies, names), copies, names)  # it may have been the memory


def test_helpers_that_do_not_start(copies, monkeypatch):
    monkeypatch.setattr(video_probing, "VIDEOS_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(video_probing, "HELPER", ["-c", "raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match="cannot import lightning_zoo from"):
        build_index(copies, names_in(copies), workers=2)


def test_progress(copies, monkeypatch, capsys):
    monkeypatch.setattr(video_probing, "SECONDS_BEFORE_LINES", 0.0)
    names = names_in(copies)
    build_index(copies, names[:4], progress=False)
    assert capsys.readouterr().out == ""
    build_index(copies, names[4:])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("frame times of videos: 1 of 6, ")
    assert line.endswith(" min left")


def test_progress_on_a_terminal(copies, monkeypatch, capsys):
    monkeypatch.setattr(video_probing, "SECONDS_BEFORE_BAR", 0.0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    build_index(copies, names_in(copies))
    assert "frame times of videos" in capsys.readouterr().out


def test_no_names(tmp_path):
    index = build_index(tmp_path, [])
    assert (len(index), index.errors, index.lengths(15).tolist()) == (0, {}, [])


def record(name, **fields):
    whole = {"file_size": 1, "mtime_ns": 2, "count": 3, "first": 7, "deltas": [5],
             "keyframes": [0], "num": 1, "den": 1_000_000_000, "height": 48, "width": 64,
             "stream": 0, "rotation": 0, "mirrored": False, "by_time": True}  # fmt: skip
    return {"name": name, **whole, **fields}


def test_ticks_of_nanoseconds(tmp_path):
    steps = [33_366_667, 3_000_000_000]
    index = VideoIndex.of([record("a", deltas=steps, first=2**40), record("b")])
    index.save(tmp_path / "a.npz")
    index = VideoIndex.load(tmp_path / "a.npz")
    expected = 2**40 + np.cumsum([0, *steps])
    np.testing.assert_array_equal(index.frames(0).pts, expected)
    np.testing.assert_array_equal(index.frames(1).pts, [7, 12, 17])


def test_bytes_of_a_video():
    """What the docstring promises, for 240,000 videos a matter of 20 MB."""
    many = 1000
    index = VideoIndex.of([record(f"{i:04d}.mp4") for i in range(many)])
    arrays = [index.rows, index.deltas.values, index.deltas.ends]
    arrays += [index.keyframes.values, index.keyframes.ends]
    assert sum(array.nbytes for array in arrays) / many < 80


def test_positions_outside():
    index = VideoIndex.of([record("a")])
    for video in (1, -1):
        with pytest.raises(IndexError, match="of 1"):
            index.frames(video)


def test_stopped_by_hand(copies, monkeypatch):
    """Ctrl-C ends the helpers, and what they found until then is not lost."""
    monkeypatch.setattr(video_probing, "VIDEOS_WORTH_A_PROCESS", 1)
    started = []
    start_one = video_probing._Helper._start

    def noted():
        started.append(start_one())
        return started[-1]

    def interrupted(self, record, note=video_index._Store._note):
        note(self, record)
        raise KeyboardInterrupt

    monkeypatch.setattr(video_probing._Helper, "_start", staticmethod(noted))
    with monkeypatch.context() as patch:
        patch.setattr(video_index._Store, "_note", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_index(copies, names_in(copies), workers=2)
    assert started
    assert all(process.returncode is not None for process in started)
    (journal,) = (copies / ".lightning_zoo").glob("*.journal")
    assert len(journal.read_text().split()) > 0
    assert_right(build_index(copies, names_in(copies)), copies, names_in(copies))
