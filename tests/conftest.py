"""A home of the tests' own, and one small run that many of them look at."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import OVERRIDES, Fitted


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hide the person's own caches, keys and settings; one thread, as others share the cores."""
    import torch

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        hidden = ("WANDB_", "LIGHTNING_ZOO_", "TORCH_MODEL_ZOO", "XDG_CACHE_HOME")
        for name in [n for n in os.environ if n.startswith(hidden)]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
        patch.setenv("ORT_DISABLE_TELEMETRY", "1")  # for tests that import onnxruntime themselves
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("COLUMNS", "80")
        torch.set_num_threads(1)
        yield folder


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Train a small network for two epochs through the command line."""
    from lightning_zoo.cli import main
    from lightning_zoo.datamodules import ImageFolderDataModule

    folder = tmp_path_factory.mktemp("fitted")
    data, out = folder / "photos", folder / "runs"
    ImageFolderDataModule.write_fake(data, classes=3, images=36, size=40)
    command = ["fit", "--recipe", "finetune_resnet18", "--data.root", str(data), "--out", str(out)]
    for key, value in OVERRIDES.items():
        command += [f"--{key}", value]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(command) == 0
    (run,) = (out / "finetune_resnet18").iterdir()
    return Fitted(data, out, run, command, printed.getvalue())
