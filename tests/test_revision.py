"""The revision of a checkout against git's own word, in what people do with one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_zoo.revision import revision, source_digest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
QUIET = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "a" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "a@b.c" for who in ("AUTHOR", "COMMITTER")},
}


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=folder, env={**os.environ, **QUIET}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD").strip()


def make(folder: Path, *options: str) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", *options)
    (folder / "package" / "sub").mkdir(parents=True)
    for name in ("a.py", "package/b.py", "package/sub/c.py", "package/sub/\u00e4.py", "z" * 99):
        (folder / name).write_text(f"{name}\n")
    (folder / "link").symlink_to("package/b.py")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make(tmp_path / "checkout")


def commit(folder: Path, name: str = "a.py") -> None:
    (folder / name).write_text(os.urandom(4).hex())
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", "another")


def _branch(folder: Path) -> None:
    git(folder, "checkout", "-q", "-b", "topic/deep")
    commit(folder, "package/b.py")


def _merge(folder: Path) -> None:
    _branch(folder)
    git(folder, "checkout", "-q", "main")
    commit(folder)
    git(folder, "merge", "-q", "--no-edit", "topic/deep")


def _rebase(folder: Path) -> None:
    _branch(folder)
    git(folder, "checkout", "-q", "main")
    commit(folder)
    git(folder, "rebase", "-q", "main", "topic/deep")


def _touch(folder: Path) -> None:
    os.utime(folder / "a.py", (1, 1))


def _pack(folder: Path) -> None:
    git(folder, "pack-refs", "--all")
    git(folder, "gc", "-q")


def _detach(folder: Path) -> None:
    commit(folder)
    git(folder, "checkout", "-q", "--detach", "HEAD~1")


def _unstage(folder: Path) -> None:
    (folder / "a.py").write_text("new")
    git(folder, "add", "a.py")
    git(folder, "reset", "-q", "--hard")


STATES: list[Callable[[Path], None]] = [
    lambda folder: None, commit, _branch, _merge, _rebase, _touch, _pack, _detach, _unstage,
    lambda folder: git(folder, "update-index", "--index-version", "4") and None,
    lambda folder: (folder / "untracked.py").write_text("new") and None,
]  # fmt: skip


@pytest.mark.parametrize("change", STATES)
def test_as_git_has_it(checkout: Path, change: Callable[[Path], None]) -> None:
    change(checkout)
    assert revision(checkout) == asked(checkout)
    assert len(revision(checkout) or "") == 40


def test_a_clone(checkout: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(checkout), "clone")
    assert revision(tmp_path / "clone") == asked(checkout)


def test_worktrees(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    commit(tmp_path / "tree")
    git(checkout, "pack-refs", "--all")
    assert revision(tmp_path / "tree") == asked(tmp_path / "tree")
    assert revision(checkout) == asked(checkout) != asked(tmp_path / "tree")


def test_long_names(tmp_path: Path) -> None:
    folder = make(tmp_path / "long", "--object-format=sha256")
    assert revision(folder) == asked(folder)
    assert len(revision(folder) or "") == 64


def test_no_checkout(tmp_path: Path) -> None:
    assert revision(tmp_path) is None
    assert revision(tmp_path / "gone") is None
    git(tmp_path, "init", "-q")
    assert revision(tmp_path) is None  # no commit
    assert revision(make(tmp_path / "inside") / "package") is None  # its own folder alone counts


@pytest.mark.parametrize("file", ["HEAD", "refs/heads/main"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"ref: ref: ref", b"DIRC\0\0\0\2\0\0\0\7"]
)
def test_damage_is_no_error(checkout: Path, file: str, content: bytes) -> None:
    (checkout / ".git" / file).write_bytes(content)
    assert revision(checkout) is None


def test_references_in_a_circle(checkout: Path) -> None:
    (checkout / ".git/refs/heads/main").write_text("ref: HEAD\n")
    assert revision(checkout) is None


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "sub").mkdir(parents=True)
        (folder / "a.py").write_text("a = 1\n")
        (folder / "sub" / "b.py").write_text("b = 2\n")
        (folder / "sub" / "b.pyc").write_bytes(os.urandom(8))
    assert source_digest(one) == source_digest(two)
    (two / "sub" / "b.py").write_text("b = 3\n")
    assert source_digest(one) != source_digest(two)
