"""One process trains in a run folder; a lock whose holder died is no lock."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_zoo.errors import ZooError
from lightning_zoo.run_lock import RunLock, process_lives
from lightning_zoo.runs import create_run

HOLDER = """
import sys, time
from pathlib import Path
from lightning_zoo.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_process_is_refused_by_name(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ZooError, match=rf"^process {holder.pid} on .* is training in .*; wait"):
        RunLock(tmp_path)
    with pytest.raises(ZooError, match="is training in"):  # asking did not take it away
        RunLock(tmp_path)


def test_lock_of_a_dead_process_is_recovered(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / "run.lock").read_text())["process"] == holder.pid
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["process"] == os.getpid()
    assert (tmp_path / "run.lock").read_text() == ""


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(ZooError, match=f"process {os.getpid()} on"):
        RunLock(tmp_path)
    RunLock(tmp_path).release()


def test_without_locks_in_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]
) -> None:
    import fcntl

    def none(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", none)
    with pytest.raises(ZooError, match=f"process {holder.pid} on"):
        RunLock(tmp_path)
    holder.kill()
    holder.wait()
    RunLock(tmp_path).release()


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"cannot write to the run folder .*; choose another one"):
        RunLock(tmp_path / "none")


def test_leftovers_of_dead_processes_go(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    run = create_run(tmp_path, "some", {}, ())
    dead = run.checkpoints / f".last.ckpt.{2**22 + 1}"  # above what Linux gives out
    living = run.checkpoints / f".best.ckpt.{holder.pid}"
    other = run.path / ".gitignore.txt"
    for path in (dead, living, other):
        path.write_text("half")
    assert not process_lives(2**22 + 1)
    run.clear_leftovers()
    assert not dead.exists()
    assert living.exists()
    assert other.exists()
