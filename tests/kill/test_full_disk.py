"""A disk that is full, read-only or over its quota: one sentence, and the last save stays whole."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_cases import finished_runs, load, unlike, write_data, write_recipe
from kill_zygote import Death, Kill, Zygote

REFUSALS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "over quota": errno.EDQUOT}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classification")
    write_data("classification", folder / "data")
    return write_recipe(folder, "classification", folder / "data", workers=0)


@pytest.fixture(scope="module")
def whole(
    zygote: Zygote, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Death]:
    """The run that nothing disturbs, and its file operations."""
    out = tmp_path_factory.mktemp("whole")
    death = zygote.fit(out, ["--recipe", str(recipe)], [None])
    assert death.statuses == [0], death.log
    (run,) = finished_runs(out)
    return run, death


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs rights that this process lacks")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def sentence(death: Death) -> str:
    """Return the one sentence that the run ended with."""
    assert death.statuses in ([1], [2]), f"{death.statuses}\n{death.log}"
    assert "Traceback" not in death.log, death.log
    found = [line for line in death.log.splitlines() if line.startswith("error: ")]
    assert len(found) == 1, death.log
    assert "this was not foreseen" not in death.log, death.log
    return found[0]


def check_whole(out: Path) -> bool:
    """See that what a run left can be read; return whether it left a checkpoint."""
    for path in out.glob("killed/*/metrics.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                assert row["step"].isdecimal()
    checkpoints = list(out.glob("killed/*/checkpoints/*.ckpt"))
    for path in checkpoints:
        load(path)
    return bool(checkpoints)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_from_some_moment_on(
    refusal: str, zygote: Zygote, recipe: Path, whole: tuple[Path, Death], tmp_path: Path
) -> None:
    """Twice in a run, somewhere else for each kind of refusal; then the disk is well again."""
    run, death = whole
    number = REFUSALS[refusal]
    out = tmp_path / "out"
    args = ["--recipe", str(recipe), "--resume", "auto"]
    first = list(REFUSALS).index(refusal)
    middle = [i for i, name in enumerate(death.operations) if name.startswith("write .last")]
    for nth in (middle[len(middle) // 2 + 40 * first], 150 + 100 * first):
        text = sentence(zygote.fit(out, args, [Kill(nth=nth, error=number)]))
        assert os.strerror(number) in text
        assert check_whole(out)
    assert zygote.fit(out, args, [None]).statuses == [0]
    (resumed,) = finished_runs(out)
    assert not unlike(run, resumed)


def test_the_best_cannot_be_named(
    zygote: Zygote, recipe: Path, whole: tuple[Path, Death], tmp_path: Path
) -> None:
    """The save is there and its second name is refused; the run that goes on gives it."""
    run, death = whole
    out = tmp_path / "out"
    args = ["--recipe", str(recipe), "--resume", "auto"]
    nth = death.operations.index("link last.ckpt") + 1
    text = sentence(zygote.fit(out, args, [Kill(nth=nth, error=errno.ENOSPC)]))
    assert "cannot name" in text
    assert text.endswith(f"{os.strerror(errno.ENOSPC)}; the last whole checkpoint is "
                         f"{next(out.glob('killed/*/checkpoints/last.ckpt'))}")  # fmt: skip
    assert zygote.fit(out, args, [None]).statuses == [0]
    (resumed,) = finished_runs(out)
    assert not unlike(run, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_at_every_kind_of_moment(
    refusal: str, zygote: Zygote, recipe: Path, whole: tuple[Path, Death], tmp_path: Path
) -> None:
    """At the first and a later one of each operation on each file."""
    kinds: dict[str, list[int]] = {}
    for i, name in enumerate(whole[1].operations):
        kinds.setdefault("".join(c for c in name if not c.isdigit()), []).append(i + 1)
    moments = sorted({n for found in kinds.values() for n in (found[0], found[-1])})
    for nth in moments:
        out = tmp_path / f"out_{nth}"
        death = zygote.fit(out, ["--recipe", str(recipe)], [Kill(nth=nth, error=REFUSALS[refusal])])
        if death.statuses != [0]:  # what is not needed may fail
            assert os.strerror(REFUSALS[refusal]) in sentence(death), f"operation {nth}"
        check_whole(out)
        shutil.rmtree(out, ignore_errors=True)


def test_small_disk(
    zygote: Zygote, recipe: Path, whole: tuple[Path, Death], small_disk: Path
) -> None:
    """The disk holds the last checkpoint, and not the next one beside it."""
    out = small_disk / "out"
    size = (whole[0] / "checkpoints" / "last.ckpt").stat().st_size
    room = os.statvfs(small_disk)
    (small_disk / "other").write_bytes(bytes(room.f_bavail * room.f_frsize - int(1.7 * size)))
    args = ["--recipe", str(recipe), "--resume", "auto"]
    text = sentence(zygote.fit(out, args, [None]))
    (last,) = out.glob("killed/*/checkpoints/last.ckpt")
    assert "cannot save the checkpoint" in text
    assert "the last whole checkpoint is" in text
    assert check_whole(out)
    assert {path.name for path in last.parent.iterdir()} <= {"last.ckpt", "best.ckpt"}
    (small_disk / "other").unlink()  # someone made room
    assert zygote.fit(out, args, [None]).statuses == [0]
    (resumed,) = finished_runs(out)
    assert not unlike(whole[0], resumed)


def test_largest_file(zygote: Zygote, recipe: Path, tmp_path: Path) -> None:
    """A limit on the size of files, as batch systems set it."""
    death = zygote.fit(tmp_path / "out", ["--recipe", str(recipe)], [None], largest_file=100_000)
    assert "cannot save the checkpoint" in sentence(death)
    assert not list((tmp_path / "out").rglob("*.ckpt*"))


def test_folder_that_cannot_be(zygote: Zygote, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    death = zygote.fit(tmp_path / "file" / "out", ["--recipe", str(recipe)], [None])
    text = sentence(death)
    assert "cannot make the run folder" in text
    assert "--out" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_rights(zygote: Zygote, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    assert "cannot make the run folder" in sentence(
        zygote.fit(out, ["--recipe", str(recipe)], [None])
    )


def test_read_only_disk(zygote: Zygote, recipe: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    death = zygote.fit(small_disk / "out", ["--recipe", str(recipe)], [None])
    assert "cannot make the run folder" in sentence(death)


def test_missing_temporary_folder(
    zygote: Zygote, recipe: Path, whole: tuple[Path, Death], tmp_path: Path
) -> None:
    """TMPDIR names no folder: the system's one is taken, by workers and ranks too."""
    for ranks, workers in ((1, 2), (2, 0)):
        out = tmp_path / f"out_{ranks}"
        args = ["--recipe", str(recipe), "--data.workers", str(workers)]
        death = zygote.fit(out, args, [None] * ranks, env={"TMPDIR": str(tmp_path / "nowhere")})
        assert death.statuses == [0] * ranks, death.log
    (run,) = finished_runs(tmp_path / "out_1")
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] == 6
