"""A signal ends a run after its step, whole and to be gone on with; see callbacks/stopping.py."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lightning_zoo.datamodules.image_folder import ImageFolderDataModule

RECIPE = """\
model:
  class_path: ClassificationTask
  init_args:
    model: squeezenet1_1
    mixup_alpha: 0.2
    ema_decay: 0.9
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.005, momentum: 0.9}}
data:
  class_path: ImageFolderDataModule
  init_args: {root: ROOT, train_crop: 32, eval_resize: 36, eval_crop: 32, workers: 0}
batch: {size: 8, per_device: 4}
trainer: {max_epochs: EPOCHS, accelerator: cpu, val_check_interval: 1.0}
run: {loggers: [csv], pictures: 0}
"""
EPOCHS = 14  # the signal comes in one of the first
# Validation that lasts: a signal finds the run there.
SLOW_VALIDATION = """
import sys, time
from lightning_zoo.tasks import ClassificationTask
real = ClassificationTask.validation_step
def slowly(self, batch, batch_idx):
    if not self.trainer.sanity_checking:
        open(sys.argv[1], "w").close()
        time.sleep(0.5)
    return real(self, batch, batch_idx)
ClassificationTask.validation_step = slowly
from lightning_zoo.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    ImageFolderDataModule.write_fake(root, classes=3, images=60, size=40)
    return root


def arguments(folder: Path, data: Path, epochs: int, *more: str) -> list[str]:
    recipe = folder / "some.yaml"
    recipe.write_text(RECIPE.replace("ROOT", str(data)).replace("EPOCHS", str(epochs)))
    return ["fit", "--recipe", str(recipe), "--out", str(folder / "runs"), *more]


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def only_run(folder: Path) -> Path:
    (state,) = (folder / "runs").glob("some/*/run.json")
    return state.parent


def saved(run: Path) -> dict[str, object]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def columns(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_stopped_and_gone_on(tmp_path: Path, data: Path, name: str) -> None:
    """The signal goes to the loaders' workers too, as a terminal, timeout or torchrun send it."""
    zoo = [sys.executable, "-m", "lightning_zoo"]
    workers = ["--data.workers", "2"]
    process = start([*zoo, *arguments(tmp_path, data, EPOCHS, *workers)])
    wait_for(tmp_path / "runs" / "last" / "checkpoints" / "best.ckpt", process)
    os.killpg(process.pid, signal.Signals[name])
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[name], err
    assert time.monotonic() - asked < 30  # not a measure: the machine may be busy
    assert "go on from here with the same command and --resume auto" in out
    assert out.count("stopping after this step") <= 1  # none, where validation was under way
    run = only_run(tmp_path)
    state = json.loads((run / "run.json").read_text())
    assert (state["status"], state["error"]) == ("interrupted", None)
    step = saved(run)["global_step"]
    assert isinstance(step, int)
    if name != "SIGINT":
        # in validation the run ends at once, with the step before it
        stopped = int(err.split(f"stopped by {name} after step ")[1].split()[0])
        assert stopped - step in (0, 1)
    if name != "SIGTERM":
        return
    for folder, more in ((tmp_path, ["--resume", "auto"]), (tmp_path / "whole", [])):
        folder.mkdir(exist_ok=True)
        command = [*zoo, *arguments(folder, data, EPOCHS, *workers, *more)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
    whole = only_run(tmp_path / "whole")
    ours, theirs = saved(run), saved(whole)
    assert ours["global_step"] == theirs["global_step"] == 8 * EPOCHS
    for name, tensor in theirs["state_dict"].items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, ours["state_dict"][name]), name  # type: ignore[index]
    assert columns(run) == columns(whole)


def test_stopped_in_validation(tmp_path: Path, data: Path) -> None:
    marker = tmp_path / "validating"
    command = [sys.executable, "-c", SLOW_VALIDATION, str(marker), *arguments(tmp_path, data, 3)]
    process = start(command)
    wait_for(marker, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "stopped by SIGTERM after step 8" in err
    run = only_run(tmp_path)
    assert saved(run)["global_step"] == 7  # one step before validation
    assert not (run / "checkpoints" / "best.ckpt").exists()
    more = [sys.executable, "-m", "lightning_zoo", *arguments(tmp_path, data, 1)]
    answer = subprocess.run([*more, "--resume", "auto"], capture_output=True, text=True, check=True)
    assert f"resumed  from {run / 'checkpoints' / 'last.ckpt'}" in answer.stdout
    assert saved(run)["global_step"] == 8
    assert [row["val/acc@1"] != "" for row in columns(run)] == [True]


def test_two_processes_stop_after_the_same_step(tmp_path: Path, data: Path) -> None:
    zoo = [sys.executable, "-m", "lightning_zoo"]
    process = start([*zoo, *arguments(tmp_path, data, 1000, "--devices", "2")])
    wait_for(tmp_path / "runs" / "last" / "checkpoints" / "best.ckpt", process)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    (other,) = children.stdout.split()
    os.kill(int(other), signal.SIGTERM)  # the first process has to hear of it
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "go on from here" in out
    assert "error" not in err
    run = only_run(tmp_path)
    stopped = int(err.split("stopped by SIGTERM after step ")[1].split()[0])
    assert stopped - int(saved(run)["global_step"]) in (0, 1)  # type: ignore[call-overload]
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"


def test_second_run_in_one_folder_is_refused(tmp_path: Path, data: Path) -> None:
    zoo = [sys.executable, "-m", "lightning_zoo"]
    process = start([*zoo, *arguments(tmp_path, data, 1000)])
    wait_for(tmp_path / "runs" / "last" / "checkpoints" / "best.ckpt", process)
    more = [*zoo, *arguments(tmp_path, data, 1000, "--resume", "auto")]
    answer = subprocess.run(more, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert f"error: process {process.pid} on " in answer.stderr
    assert " is training in " in answer.stderr
    process.kill()
    process.communicate()
    command = [*zoo, *arguments(tmp_path, data, 1, "--resume", "auto")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2  # the lock of the dead is none; one epoch is over already
    assert "raise --trainer.max_epochs, or start a new run without --resume" in answer.stderr
