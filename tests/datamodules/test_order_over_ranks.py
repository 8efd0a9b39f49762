"""Order and augmented bytes of training, and the samples of validation, on any ranks and workers.

The data modules are found by walking the package: a new one is tested the moment it exists.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations
import numpy as np
import pytest
import torch

from lightning_zoo import datamodules
from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import loader
from lightning_zoo.datamodules.base import ZooDataModule

WORLDS, WORKERS = (1, 2, 4), (0, 1, 3)
# a step is no divisor of the samples: it is filled by going round again
SAMPLES, PLAN = 11, {"size": 8, "per_device": 2}
# where a module has such an argument: small, and as random as it gets
SMALL: dict[str, Any] = {
    "train_crop": 32, "eval_crop": 32, "eval_resize": 36, "index_workers": 0, "train_clips": 2,
    "eval_clips": 2, "clip_frames": 4, "short": "repeat", "auto_augment": "rand",
    "random_erasing": 0.5, "repeated_augmentation": 2, "augmentation": "ssd",
    "aspect_ratio_groups": 3,
}  # fmt: skip
FRAMES = {"train_resize": (36, 48), "eval_resize": (36, 48)}
MASKS = {"train_resize": (32, 64)}
# what one module has beyond one case
MORE: dict[str, tuple[dict[str, Any], ...]] = {
    "ImageFolderDataModule": (
        {"auto_augment": "trivial"},
        {"auto_augment": "imagenet", "repeated_augmentation": 1},
        {
            "auto_augment": None,
            "random_erasing": 0.0,
            "albumentations": [
                ("RandomBrightnessContrast", {"p": 1}),
                ("GaussNoise", {"p": 1}),
            ],
        },
    ),
    "CocoDataModule": (
        {"target": "masks", "augmentation": "ssdlite"},
        {"target": "keypoints", "min_keypoints": 1, "augmentation": "hflip"},
        {"aspect_ratio_groups": None},
    ),
}


def found() -> dict[str, type[ZooDataModule]]:
    """Return every data module that can write a data set of its own."""
    for module in pkgutil.iter_modules(datamodules.__path__):
        importlib.import_module(f"{datamodules.__name__}.{module.name}")

    def below(parent: type[ZooDataModule]) -> Iterator[type[ZooDataModule]]:
        for child in parent.__subclasses__():
            yield child
            yield from below(child)

    return {
        cls.__name__: cls
        for cls in below(ZooDataModule)
        if cls.__module__.startswith(datamodules.__name__)
        and cls.write_fake is not ZooDataModule.write_fake
        and getattr(cls, "LAYOUT", "")
    }


PLAIN: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in sorted(found())]
CASES = PLAIN + [(name, options) for name, variants in MORE.items() for options in variants]


def digest(value: Any) -> int:
    """Return a sum over all bytes of a sample, names included."""
    if isinstance(value, Mapping):
        parts = [(name, digest(item)) for name, item in sorted(value.items())]
        return zlib.crc32(repr(parts).encode())
    if isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(np.asarray(value))
        return zlib.crc32(array.tobytes(), zlib.crc32(f"{array.dtype}{array.shape}".encode()))
    if isinstance(value, list | tuple):
        return zlib.crc32(repr([digest(item) for item in value]).encode())
    return zlib.crc32(repr(value).encode())


def samples(batch: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return id and digest of each sample of a batch."""
    ids = batch["id"]
    assert all(len(values) == len(ids) for values in batch.values())
    return [
        (str(name), digest({key: values[i] for key, values in batch.items()}))
        for i, name in enumerate(ids)
    ]


class Ranks:
    """One data module, asked as each rank of a world in turn."""

    def __init__(self, name: str, options: dict[str, Any], root: Path) -> None:
        cls = found()[name]
        takes = inspect.signature(cls).parameters
        sizes = {**SMALL, **(FRAMES if "clip_frames" in takes else MASKS)}
        target = options.get("target")
        kind = (
            {"target": target} if "target" in inspect.signature(cls.write_fake).parameters else {}
        )
        cls.write_fake(root, classes=3, images=SAMPLES, size=48, **kind)
        chosen = {key: value for key, value in sizes.items() if key in takes}
        chosen |= options
        if "albumentations" in options:
            steps = [
                getattr(albumentations, step)(**args) for step, args in chosen["albumentations"]
            ]
            chosen["albumentations"] = steps
        self.data = cls(root=str(root), **chosen)
        self.data.setup("fit")

    def become(self, rank: int, world: int, workers: int, seed: int = 3) -> None:
        self.data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
        self.data.workers = workers
        plan = BatchPlan(**PLAN, devices=world, accumulate=4 // world)
        self.data.configure(plan, seed=seed)

    def training(self, world: int, workers: int, seed: int = 3) -> list[tuple[str, int]]:
        """Return what two epochs hold, in the order of the steps and of the chunks in them."""
        chunks: dict[tuple[int, int], list[tuple[str, int]]] = {}
        for rank in range(world):
            self.become(rank, world, workers, seed)
            batches = self.data.train_dataloader()
            for epoch in range(2):
                batches.set_epoch(epoch)
                for i, batch in enumerate(batches):
                    chunks[epoch, i * world + rank] = samples(batch)
        assert all(len(chunk) == PLAN["per_device"] for chunk in chunks.values())
        return [one for _, chunk in sorted(chunks.items()) for one in chunk]

    def validation(self, world: int, workers: int) -> Counter[tuple[str, int]]:
        """Return how often each sample is seen by all ranks together."""
        counted: Counter[tuple[str, int]] = Counter()
        for rank in range(world):
            self.become(rank, world, workers)
            for batch in self.data.val_dataloader():
                counted.update(samples(batch))
        return counted


@pytest.fixture(autouse=True)
def more_workers_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "useful_workers", lambda asked: asked)


def test_modules_are_found() -> None:
    written = {
        name
        for path in Path(datamodules.__path__[0]).glob("*.py")
        for name in re.findall(r"^class (\w+DataModule)\(", path.read_text(), re.M)
    }
    print(f"{len(found())} data modules, {len(CASES)} cases")
    assert set(found()) == written - {"ZooDataModule", "SegmentationDataModule"}  # they are bases


def compare(name: str, options: dict[str, Any], root: Path, pairs: list[tuple[int, int]]) -> None:
    """Compare worlds and workers with one rank that has no workers."""
    ranks = Ranks(name, options, root)
    expected = ranks.training(1, 0)
    assert len(expected) % PLAN["size"] == 0
    half = len(expected) // 2
    assert expected[:half] != expected[half:], "two epochs are alike"
    assert len({one for _, one in expected}) > half, "two epochs have the same bytes"
    assert ranks.training(1, 0, seed=4) != expected, "the seed changes nothing"
    once = ranks.validation(1, 0)
    assert set(once.values()) == {1}
    assert len({sample for sample, _ in once}) >= 2
    for world, workers in pairs:
        assert ranks.training(world, workers) == expected, (world, workers)
        assert ranks.validation(world, workers) == once, (world, workers)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize(("name", "options"), PLAIN)
def test_bytes_are_the_same(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    compare(name, options, tmp_path / "data", [(4, 0), (2, 3)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_bytes_are_the_same_everywhere(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    compare(name, options, tmp_path / "data", [(w, n) for w in WORLDS for n in WORKERS])
