"""The same recipe on one and on two processes: the same steps, and every sample counted once."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_zoo.datamodules.image_folder import ImageFolderDataModule

# squeezenet has no batch norm; its dropout, mixup and the augmentation do draw random numbers
RECIPE = """\
model:
  class_path: ClassificationTask
  init_args:
    model: MODEL
    mixup_alpha: 0.2
    ema_decay: 0.9
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.005, momentum: 0.9}}
data:
  class_path: ImageFolderDataModule
  init_args: {root: ROOT, train_crop: 32, eval_resize: 36, eval_crop: 32, workers: 0,
              auto_augment: rand, random_erasing: 0.5, eval_batch: 3}
batch: {size: 8, per_device: 4}
trainer: {max_epochs: 2, accelerator: cpu}
run: {loggers: [csv], pictures: 0}
"""


def fit(folder: Path, model: str, devices: int) -> Path:
    recipe = folder / "ranks.yaml"
    recipe.write_text(RECIPE.replace("ROOT", str(folder / "data")).replace("MODEL", model))
    out = folder / f"on_{devices}"
    command = [sys.executable, "-m", "lightning_zoo", "fit", "--recipe", str(recipe)]
    command += ["--out", str(out), "--devices", str(devices)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    runs = list(out.glob("ranks/*/run.json"))
    assert len(runs) == 1, "each process made a folder of its own"
    assert answer.stdout.count("images a step") == 1, "each process spoke"
    arithmetic = {1: "1 device x 4 images x 2 batches", 2: "2 devices x 4 images x 1 batch"}
    assert f"8 images a step = {arithmetic[devices]}" in answer.stdout
    return runs[0].parent


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_step_is_one_step(tmp_path: Path) -> None:
    # 23 images: neither the batch nor the ranks divide them
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=23, size=40)
    one, two = (fit(tmp_path, "squeezenet1_1", n) for n in (1, 2))
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two)
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for name, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], tensor, rtol=1e-5, atol=1e-6)
    last = [rows(run)[-1] for run in (one, two)]
    for name in ("val/acc@1", "val/ema_acc@1"):
        assert last[0][name] == last[1][name]
    assert float(last[0]["val/loss"]) == pytest.approx(float(last[1]["val/loss"]), rel=1e-5)
    losses = [
        float(row["train/loss_epoch"])
        for row in (*rows(one), *rows(two))
        if row["train/loss_epoch"]
    ]
    assert losses[: len(losses) // 2] == pytest.approx(losses[len(losses) // 2 :], rel=1e-5)


def test_ranks_with_another_number_of_batches(tmp_path: Path) -> None:
    """Batch norm broadcasts its buffers in training; in evaluation no rank may wait for another."""
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=7, size=40)
    run = fit(tmp_path, "mobilenet_v3_small", 2)  # 4 and 3 validation images: 2 batches and 1
    accuracy = float(rows(run)[-1]["val/acc@1"])
    assert (accuracy * 7 / 100) == pytest.approx(round(accuracy * 7 / 100), abs=1e-4)
