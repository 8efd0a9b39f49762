"""The doctor finds what is wrong, says what to do, and touches nothing that does harm."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

import lightning_zoo as lz
from lightning_zoo.cli import main
from lightning_zoo.doctor import Finding, machine, versions, working
from lightning_zoo.models.registry import tasks

ROOT = Path(__file__).parents[2]


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.process_time()
    assert main(["doctor", "--json"]) == 0
    took = time.process_time() - start
    told = json.loads(capsys.readouterr().out)
    assert took < 20
    assert told["ok"] is True
    found = {finding["subject"]: finding for finding in told["findings"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {Requirement(line).name for line in project["dependencies"]}
    expected = {"python", "optional", "cpu", "disk", "jpg", "png", "mp4", "codecs", "ranks"}
    assert {*needed, *expected, *tasks()} <= set(found)
    for finding in found.values():
        assert finding["found"]
        assert bool(finding["fix"]) == (finding["status"] != "ok"), finding
    print(f"{len(found)} findings, {took:.1f} s")


def look(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None]) -> dict[str, Finding]:
    """Return the findings on versions where these packages have others."""
    real = versions.installed
    monkeypatch.setattr(
        versions, "installed", lambda name: changes[name] if name in changes else real(name)
    )
    return {finding.subject: finding for finding in versions.look_at_versions()}


@pytest.mark.parametrize("package", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_harmful_versions(monkeypatch: pytest.MonkeyPatch, package: str, version: str) -> None:
    finding = look(monkeypatch, {package: version})[package]
    assert finding.status == "fail"
    assert "stole credentials" in finding.found
    assert finding.fix.startswith(f"pip uninstall {package}, change every key")


@pytest.mark.parametrize(
    ("changes", "subject", "status", "text"),
    [
        ({"torch": "2.10.0"}, "torch", "fail", "2.10.0; we need >=2.11"),
        ({"torch": "2.13.0+cu130"}, "torch", "ok", "2.13.0+cu130"),
        ({"torch": "2.12.0.dev20260101"}, "torch", "ok", "2.12.0.dev20260101"),
        ({"av": None}, "av", "fail", "not installed"),
        ({"albumentations": "3.0.0"}, "albumentations", "fail", "3.0.0; we need <3,>=2.0.8"),
        ({"albumentationsx": "2.1.0"}, "albumentationsx", "fail", "in albumentations' place"),
        ({"opencv-python": "5.0.0"}, "opencv", "warn", "overwrite each other"),
        (
            {"opencv-python-headless": None, "opencv-python": "5.0.0"},
            "opencv-python-headless",
            "ok",
            "another of OpenCV's packages",
        ),
        (
            {"opencv-python-headless": None},
            "opencv-python-headless",
            "fail",
            "not installed",
        ),
        ({"torchao": "0.1.0"}, "torchao", "warn", "0.1.0, too old"),
    ],
)
def test_versions(
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str | None],
    subject: str,
    status: str,
    text: str,
) -> None:
    finding = look(monkeypatch, changes)[subject]
    assert finding.status == status
    assert text in finding.found
    assert bool(finding.fix) == (status != "ok")


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions.sys, "version_info", (3, 10, 2, "final", 0))
    finding = next(versions.look_at_versions())
    assert (finding.status, finding.found) == ("fail", "3.10.2")
    assert finding.fix == "install Python >=3.11"


def test_requirements_of_a_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a checkout, they are those of the installed package: the same."""
    python, from_checkout = versions.requirements()
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*facts["dependencies"], *(
        f'{line}; extra == "{extra}"'
        for extra, packages in facts["optional-dependencies"].items() for line in packages
    )]  # fmt: skip

    class Metadata(dict[str, str]):
        def get_all(self, name: str) -> list[str]:
            assert name == "Requires-Dist"
            return lines

    monkeypatch.setattr(versions, "__file__", str(tmp_path / "a" / "b" / "versions.py"))
    monkeypatch.setattr(
        versions.importlib.metadata, "metadata", lambda name: Metadata({"Requires-Python": python})
    )
    assert versions.requirements() == (python, from_checkout)
    assert len(from_checkout) > 20


def test_what_does_harm_is_not_imported(tmp_path: Path) -> None:
    """A lightning of a refused version ends the look before anything imports it."""
    (tmp_path / "lightning-2.6.3.dist-info").mkdir()
    (tmp_path / "lightning-2.6.3.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: lightning\nVersion: 2.6.3\n"
    )
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning/__init__.py").write_text("open('harm', 'w')\n")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from lightning_zoo.cli import main\nstatus = main(['doctor'])\n"
        "assert not {'torch', 'lightning', 'cv2', 'wandb'} & set(sys.modules)\nsys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "FAIL  lightning " in done.stdout
    assert "2.6.3 carried code that stole credentials" in done.stdout
    assert "1 failure\n" in done.stdout
    assert not (tmp_path / "harm").exists()


def only(look: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in look()}


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=64 * 2**20, free=60 * 2**20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    finding = only(machine.look_at_memory)["/dev/shm"]
    assert finding.status == "warn"
    assert "--shm-size" in finding.fix


def test_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    found = only(machine.look_at_disks)
    assert found["TMPDIR"].status == "warn"
    assert found["TMPDIR"].fix == f"mkdir -p {tmp_path / 'gone'}"
    for free, status in ((2**20, "fail"), (2**30, "warn"), (2**40, "ok")):
        usage = SimpleNamespace(total=2**41, free=free)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder, u=usage: u)
        assert only(machine.look_at_disks)["disk"].status == status


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    assert only(machine.look_at_memory)["open files"].status == "warn"


def test_decoders_that_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning_zoo.transforms.decode as decode

    real = decode.read_image
    monkeypatch.setattr(decode, "read_image", lambda file: real(file)[..., ::-1])
    found = only(working.look_at_images)
    assert {found["jpg"].status, found["png"].status} == {"fail"}


def test_missing_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"hevc", "av1"})
    finding = only(working.look_at_videos)["codecs"]
    assert (finding.status, finding.found) == ("warn", "FFmpeg reads no hevc, av1")


def test_a_network_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "gradient_norm", lambda entry, device: float("nan"))
    found = only(working.look_at_networks)
    assert list(found) == tasks()
    assert {finding.status for finding in found.values()} == {"fail"}


def test_ranks_that_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    def refuse(*args: Any) -> None:
        raise RuntimeError("no interface\nmore")

    monkeypatch.setattr(dist, "ProcessGroupGloo", refuse)
    finding = only(working.look_at_ranks)["ranks"]
    assert (finding.status, finding.found) == ("fail", "no interface")
    assert "/etc/hosts" in finding.fix


def test_a_look_that_breaks_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("first", "ok", "fine")
        raise OSError("the disk\nis gone")

    monkeypatch.setattr(machine, "LOOKS", (("disks", broken),))
    monkeypatch.setattr(working, "LOOKS", ())
    checkup = lz.check_machine()
    assert not checkup.ok
    last = checkup.findings[-1]
    assert (last.subject, last.status, last.found) == ("disks", "fail", "OSError: the disk")
    assert "--debug" in last.fix
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  disks " in printed
    assert "fix: see it with" in printed
    with pytest.raises(OSError, match="is gone"):
        main(["doctor", "--debug"])
