"""Which files `predict` takes: names, folders, patterns; what it says where there are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_zoo.engine.predict import find_files
from lightning_zoo.engine.predict.inputs import chunks, read_ahead
from lightning_zoo.engine.predict.writers import numbers_in_names, unique_names
from lightning_zoo.errors import ZooError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ["dog.jpg", "photos/a.jpg", "photos/b.PNG", "photos/notes.txt", "photos/deep/c.jpg",
             "photos/film.mp4", "photos/odd [1]/d.jpg"]  # fmt: skip
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "expected"),
    {
        "photos": "photos/a.jpg photos/b.PNG photos/deep/c.jpg photos/film.mp4 "
        "photos/odd [1]/d.jpg",
        "photos/*.jpg": "photos/a.jpg",
        "photos/*": "photos/a.jpg photos/b.PNG photos/deep/c.jpg photos/film.mp4 "
        "photos/odd [1]/d.jpg",
        "photos/**/*.jpg": "photos/a.jpg photos/deep/c.jpg photos/odd [1]/d.jpg",
        "photos/**": "photos/a.jpg photos/b.PNG photos/deep/c.jpg photos/film.mp4 "
        "photos/odd [1]/d.jpg",
        "photos/?.[jP]*": "photos/a.jpg photos/b.PNG",
        "photos/odd [1]": "photos/odd [1]/d.jpg",
        "photos/film.mp4|dog.jpg|*.jpg": "photos/film.mp4 dog.jpg",
        "photos/notes.txt": "photos/notes.txt",
    }.items(),
)  # fmt: skip
def test_what_is_found(folder: Path, inputs: str, expected: str) -> None:
    found = " ".join(path.as_posix() for path in find_files(inputs.split("|")))
    assert found == expected


@pytest.mark.parametrize(
    ("inputs", "expected"),
    {
        "dgo.jpg": "no file or folder at 'dgo.jpg'; did you mean dog.jpg?",
        "phtos/a.jpg": "no file or folder at 'phtos/a.jpg'; did you mean photos/a.jpg?",
        "zzzz/a.jpg": "no file or folder at 'zzzz/a.jpg'; there is no folder zzzz",
        "zzzz": "no file or folder at 'zzzz'",
        "photos/*.bmp": "no file fits 'photos/*.bmp'; 'photos' holds 3 .jpg, 1 .png, 1 .txt, "
        "1 .mp4",
        "phots/*.jpg": "no file or folder at 'phots' for the pattern 'phots/*.jpg'; did you mean "
        "photos?",
    }.items(),
)  # fmt: skip
def test_what_is_not_there(folder: Path, inputs: str, expected: str) -> None:
    with pytest.raises(ZooError) as caught:
        find_files([inputs])
    assert sorted(str(caught.value).split(", ")) == sorted(expected.split(", "))


def test_what_was_written_before_is_left_out(folder: Path) -> None:
    found = find_files(["photos"], leave_out=folder / "photos/deep")
    assert "photos/deep/c.jpg" not in [path.as_posix() for path in found]
    assert len(found) == 4
    assert len(find_files(["photos/deep"], leave_out=Path("photos/deep"))) == 1


def test_names_of_pictures() -> None:
    files = [Path(name) for name in ("a/x.jpg", "b/X.png", "x.mp4", "grid.jpg", "x_mask.jpg")]
    assert list(unique_names(files).values()) == ["x", "X_2", "x_3", "grid_2", "x_mask"]
    assert list(unique_names(files, ("", "_mask")).values())[-1] == "x_mask_2"


def test_numbers_in_names() -> None:
    assert numbers_in_names([Path("000139.jpg"), Path("7.png")]) == {"000139.jpg": 139, "7.png": 7}
    assert numbers_in_names([Path("7.jpg"), Path("07.png")]) is None
    assert numbers_in_names([Path("7.jpg"), Path("a.png")]) is None


def test_reading_ahead() -> None:
    """In order and in another thread, so many ahead; an error comes in its place."""
    made: list[int] = []
    threads = set()
    here = threading.Event()

    def items() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            threads.add(threading.current_thread())
            if i == 3:
                here.set()
            yield i
        raise OSError("at the end")

    ahead = read_ahead(items(), 3)
    assert made == [], "nothing before it is asked for"
    assert next(ahead) == 0
    assert here.wait(5), "three more were made without being asked for"
    rest = []
    with pytest.raises(OSError, match="at the end"):
        rest.extend(ahead)
    assert rest == [1, 2, 3, 4]
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_chunks() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
