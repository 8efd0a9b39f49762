"""Two processes build one index at once, train on the clips of one, and count each once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_zoo.datamodules import VideoFolderDataModule

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import VideoFolderDataModule


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"train": [], "val": []}

    def entries(self, batch):
        sums = batch["video"].flatten(1).sum(1).tolist()
        return list(zip(batch["id"], batch["clip"].tolist(), sums))

    def training_step(self, batch, batch_idx):
        self.seen["train"] += [(self.global_step, *entry) for entry in self.entries(batch)]
        return self.weight.sum() * batch["video"].float().mean()

    def validation_step(self, batch, batch_idx):
        self.seen["val"] += self.entries(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


if __name__ == "__main__":
    root, devices = Path(sys.argv[1]), int(sys.argv[2])
    data = VideoFolderDataModule(
        root=str(root),
        workers=0,
        index_workers=0,
        train_clips=3,
        train_resize=(18, 24),
        train_crop=16,
        eval_resize=(18, 24),
        eval_crop=16,
    )
    data.configure(BatchPlan(8, 2, devices, 4 // devices), seed=1)
    net = Net()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=2,
        accumulate_grad_batches=4 // devices,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(net, data)
    (root.parent / f"{devices}_{trainer.global_rank}.json").write_text(json.dumps(net.seen))
"""


@pytest.mark.slow
def test_two_processes_see_what_one_sees(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    seen = {}
    for devices in (2, 1):
        root = tmp_path / f"data{devices}"
        VideoFolderDataModule.write_fake(root, classes=3, images=7, size=32)
        subprocess.run(
            [sys.executable, str(script), str(root), str(devices)],
            check=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=240,
        )
        ranks = [json.loads((tmp_path / f"{devices}_{r}.json").read_text()) for r in range(devices)]
        seen[devices] = {
            name: sorted(entry for rank in ranks for entry in rank[name]) for name in ranks[0]
        }
    assert seen[1] == seen[2]
    assert len(seen[2]["train"]) == 2 * 3 * 8  # epochs x steps x clips: 21 of them and 3 to fill
    assert len(seen[2]["val"]) == 2 * 7 * 5
    assert len({(name, clip) for name, clip, _ in seen[2]["val"]}) == 7 * 5
