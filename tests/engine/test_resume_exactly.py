"""A run that is killed and resumed ends with the weights of the unbroken run, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lightning_zoo.datamodules.image_folder import ImageFolderDataModule

# All that draws random numbers is on: dropout, mixup, cutmix, erasing, an augmentation policy.
RECIPE = """\
model:
  class_path: ClassificationTask
  init_args:
    model: mobilenet_v3_small
    mixup_alpha: 0.2
    cutmix_alpha: 1.0
    ema_decay: 0.9
    ema_every_steps: 2
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01, momentum: 0.9}}
    lr_schedule: {class_path: CosineDecay, init_args: {by: step}}
data:
  class_path: ImageFolderDataModule
  init_args: {root: ROOT, train_crop: 32, eval_resize: 36, eval_crop: 32, workers: WORKERS,
              auto_augment: trivial, random_erasing: 0.5}
batch: {size: 8, per_device: 4}
trainer: {max_epochs: 3}
run: {loggers: [csv], checkpoint_steps: 5, pictures: 0}
"""


def checkpoint_of(out: Path) -> Path:
    return next(out.glob("killed/*/checkpoints/last.ckpt"))


def fit(recipe: Path, out: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "lightning_zoo", "fit", "--recipe", str(recipe)]
    return [*command, "--out", str(out), *more]


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_mid_epoch(tmp_path: Path, workers: int) -> None:
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=60, size=40)
    recipe = tmp_path / "killed.yaml"
    text = RECIPE.replace("ROOT", str(tmp_path / "data")).replace("WORKERS", str(workers))
    recipe.write_text(text)
    subprocess.run(fit(recipe, tmp_path / "whole"), check=True, capture_output=True)

    broken = tmp_path / "broken"
    process = subprocess.Popen(
        fit(recipe, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    step = 0
    while step != 10:  # the second save, in the middle of epoch 1 of 8 steps each
        assert time.monotonic() < deadline, "the run never saved its tenth step"
        assert process.poll() is None, "the run ended before it could be killed"
        found = list(broken.glob("killed/*/checkpoints/last.ckpt"))
        if found:
            step = torch.load(found[0], weights_only=True)["global_step"]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = checkpoint_of(broken)
    assert torch.load(killed, weights_only=True)["global_step"] < 24
    run_json = killed.parent.parent / "run.json"
    assert '"running"' in run_json.read_text()

    answer = subprocess.run(
        fit(recipe, broken, "--resume", "auto"), check=True, capture_output=True, text=True
    )
    assert f"resumed  from {killed}" in answer.stdout
    assert len(list(broken.glob("killed/*/run.json"))) == 1, "it went on in another folder"
    assert '"finished"' in run_json.read_text()
    whole = torch.load(checkpoint_of(tmp_path / "whole"), weights_only=True)
    resumed = torch.load(killed, weights_only=True)
    assert whole["global_step"] == resumed["global_step"] == 24
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name
    metrics = [
        next(p.glob("killed/*/metrics.csv")).read_text() for p in (tmp_path / "whole", broken)
    ]
    assert metrics[0] == metrics[1]


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_zoo.cli import main

    out = str(tmp_path / "runs")
    assert (
        main(["fit", "--recipe", "squeezenet1_1", "--smoke", "--resume", "auto", "--out", out]) == 0
    )
    assert (
        f"nothing to resume for squeezenet1_1 in {out}/: a new run starts"
        in capsys.readouterr().out
    )
    # the run has finished: there is nothing to resume again
    assert (
        main(["fit", "--recipe", "squeezenet1_1", "--smoke", "--resume", "auto", "--out", out]) == 0
    )
    assert "nothing to resume" in capsys.readouterr().out
    assert main(["fit", "--recipe", "squeezenet1_1", "--resume", "nowhere", "--out", out]) == 2
    assert "no run 'nowhere'" in capsys.readouterr().err
