"""The verb data: check, show and convert, as a person runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_zoo.cli import main
from lightning_zoo.datamodules import CocoDataModule, ImageFolderDataModule
from lightning_zoo.formats import FORMATS


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    ImageFolderDataModule.write_fake(root, classes=2, images=24, size=40)
    return root


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    CocoDataModule.write_fake(root, classes=3, images=8, size=64)
    for path in (root / "annotations").glob("person_*.json"):
        path.unlink()
    return root


def run(capsys: pytest.CaptureFixture[str], *args: Any) -> tuple[int, str]:
    status = main(["data", *map(str, args)])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out


def test_check_tells_all_that_matters(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "check", photos)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{photos}: classification, 2 classes"
    assert lines[1].startswith("  format folders: the folder holds class folders")
    for split in ("train", "val", "test"):
        assert re.search(rf"^{split} +24 images$", out, re.M)
    assert re.search(r"^class_0 +12 +12 +12 +36 +50.0%$", out, re.M)
    assert lines[-1].endswith(f"python -m lightning_zoo finetune --model resnet18 --data {photos}")


def test_check_as_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "check", photos, "--json", "--no-files")
    report = json.loads(out)
    assert status == 0
    assert report["summary"]["splits"]["train"]["classes"] == {"class_0": 12, "class_1": 12}
    assert report["next"].startswith("python -m lightning_zoo finetune")


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ImageFolderDataModule.write_fake(tmp_path / "few", classes=2, images=4, size=40)
    assert run(capsys, "check", tmp_path / "few")[0] == 0
    assert run(capsys, "check", tmp_path / "few", "--strict")[0] == 1  # few examples: a warning
    next((tmp_path / "few/train").rglob("*.jpg")).write_bytes(b"torn")
    assert run(capsys, "check", tmp_path / "few")[0] == 1
    assert run(capsys, "check", tmp_path / "few", "--no-files")[0] == 0
    assert main(["data", "check", str(tmp_path / "none")]) == 2


def test_show(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.png"
    status, said = run(capsys, "show", photos, "--n", 2, "--class", "class_1", "--out", out,
                       "--augmented")  # fmt: skip
    assert (status, said) == (0, f"{out}\n{tmp_path / 'mine_augmented.png'}\n")
    assert out.is_file()


@pytest.mark.parametrize("target", ["coco", "yolo"])
def test_convert(
    target: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    status, said = run(capsys, "convert", shapes, new, "--to", target)
    assert status == 0
    assert (
        said.splitlines()[-1] == f"written: {new}; next: python -m lightning_zoo data check {new}"
    )
    assert ("\nlost: " in said) == (target == "yolo")  # crowds and holes
    before = json.loads(run(capsys, "check", shapes, "--json")[1])["summary"]
    after = json.loads(run(capsys, "check", new, "--json")[1])["summary"]
    assert after["format"] == target
    for name, split in before["splits"].items():
        for key in ("items", "objects", "classes", "without_objects"):
            assert after["splits"][name][key] == split[key]


def test_convert_refuses(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", str(shapes), "x", "--to", "yollo"]) == 2
    assert "unknown --to 'yollo'; did you mean yolo?" in capsys.readouterr().err
    assert main(["data", "convert", str(shapes), str(shapes), "--to", "yolo"]) == 2
    assert "is there and not empty" in capsys.readouterr().err


def test_formats(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys, "formats")
    assert status == 0
    assert [line.split()[0] for line in said.splitlines()] == list(FORMATS)


@pytest.mark.parametrize("verb", ["check", "show", "convert", "formats"])
def test_help_fits_a_screen(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["data", verb, "--help"])
    assert leave.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert 4 <= len(lines) <= 24
    assert max(map(len, lines)) <= 80
