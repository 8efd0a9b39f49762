"""Detectors against torchvision's, where it is installed: the same weights, images and threads.

Both sides start from the same made-up ImageNet file, so that their norms are frozen and their first
stages do not train, as in the reference runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_zoo.bench.networks import both_sides, has_torchvision, published, row
from lightning_zoo.models.registry import get_entry
from lightning_zoo.timing import interleaved, torch_threads

INFERENCE_GOAL, TRAINING_GOAL, MEMORY_GOAL = 0.9, 0.7, 0.85
SIZE = (800, 1066)
TRAINED = "fasterrcnn_resnet50_fpn"
# Published name of the backbone's file, and the classifier of ours that has its layout.
BACKBONES = {
    "resnet50-0676ba61.pth": "resnet50",
    "mobilenet_v3_large-8738ca79.pth": "mobilenet_v3_large",
    "vgg16_features-amdegroot-88682ab5.pth": "vgg16",
}


@contextlib.contextmanager
def made_up_backbones() -> Iterator[None]:
    """Let both sides find random files under the published names of the backbones."""
    from lightning_zoo import models

    before = os.environ.get("TORCH_HOME")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "hub", "checkpoints")
        folder.mkdir(parents=True)
        for file, name in BACKBONES.items():
            torch.manual_seed(0)
            state = models.get_model(name).state_dict()
            if (
                name == "vgg16"
            ):  # the file holds the features alone, for torchvision the rest as NaN
                state = {k: v for k, v in state.items() if k.startswith("features")} | {
                    k: torch.full_like(v, torch.nan) for k, v in state.items() if "classifier" in k
                }
            torch.save(state, folder / file)
        os.environ["TORCH_HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["TORCH_HOME"]
            else:
                os.environ["TORCH_HOME"] = before


def build(side: str, name: str) -> Any:
    """Return a detector of one side, ``ours`` or ``torchvision``."""
    torch.manual_seed(0)
    scratch = name.startswith("ssdlite")  # its published file starts from no backbone
    if side == "ours":
        return get_entry(name, "detection").load_builder()(pretrained_backbone=not scratch)
    import torchvision

    backbone = "IMAGENET1K_FEATURES" if name == "ssd300_vgg16" else "IMAGENET1K_V1"
    return getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None if scratch else backbone
    )


def images(count: int) -> list[Tensor]:
    """Return random images of the benchmark's size, with values from 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *SIZE, generator=generator) for _ in range(count)]


def targets(count: int) -> list[dict[str, Tensor]]:
    """Return eight objects for each image."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        corner = torch.rand(8, 2, generator=generator) * torch.tensor([600.0, 400.0])
        size = 40 + torch.rand(8, 2, generator=generator) * 300
        labels = torch.randint(1, 91, (8,), generator=generator)
        found.append({"boxes": torch.cat([corner, corner + size], dim=1), "labels": labels})
    return found


def training_step(model: Any, batch: int) -> Callable[[], None]:
    """Return a function that does one step of training."""
    model.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9
    )
    pictures, truth = images(batch), targets(batch)

    def step() -> None:
        losses = model(pictures, truth)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def inference(model: Any) -> Callable[[], None]:
    """Return a function that finds objects in one image."""
    model.eval()
    (picture,) = images(1)

    def find() -> None:
        with torch.inference_mode():
            model([picture])

    return find


def _peak_mib(side: str, name: str, training: bool, threads: int, queue: Any) -> None:
    """Put into ``queue`` how far memory rises in a second call above what stands before it."""
    torch.set_num_threads(threads)
    model = build(side, name)
    work = training_step(model, 1) if training else inference(model)
    work()  # the first call imports modules and makes the optimizer's state
    ctypes.CDLL(None).malloc_trim(0)  # hand back what the first call left
    Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark anew
    before = _status("VmRSS")
    work()
    queue.put((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def peak_mib(side: str, name: str, *, training: bool, threads: int) -> float:
    """Return the peak memory of a second call in MiB, in a process of its own (Linux)."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak_mib, args=(side, name, training, threads, queue))
    process.start()
    found = float(queue.get())
    process.join()
    return found


def detection_benchmark(
    repeats: int = 3, *, threads: int | None = None, names: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row a figure: seconds of an image, of a training step, and peak memory.

    Args:
        repeats: Measurements of each side, which take turns; the least counts.
        threads: Threads of torch; None leaves them as they are.
        names: Detectors; None takes all.
    """
    with torch_threads(threads) as count, made_up_backbones():
        for name in names or published("detection"):
            yield from _inference_rows(name, repeats, count)
        if names is None or TRAINED in names:
            yield from _training_rows(repeats, count)


def _memory(name: str, *, training: bool, threads: int) -> dict[str, float]:
    sides = ["ours", "torchvision"] if has_torchvision() else ["ours"]
    return {side: peak_mib(side, name, training=training, threads=threads) for side in sides}


def _inference_rows(name: str, repeats: int, threads: int) -> Iterator[dict[str, Any]]:
    best = interleaved(both_sides(lambda side: build(side, name), inference), repeats)
    yield row("detection", "inference", name, best, "s", INFERENCE_GOAL) | {"threads": threads}
    memory = _memory(name, training=False, threads=threads)
    yield row("detection", "inference memory", name, memory, "mib", MEMORY_GOAL) | {
        "threads": threads
    }


def _training_rows(repeats: int, threads: int) -> Iterator[dict[str, Any]]:
    sides = both_sides(lambda side: build(side, TRAINED), lambda model: training_step(model, 1))
    best = interleaved(sides, repeats)
    yield row("detection", "training step", TRAINED, best, "s", TRAINING_GOAL) | {
        "threads": threads
    }
    memory = _memory(TRAINED, training=True, threads=threads)
    yield row("detection", "training memory", TRAINED, memory, "mib", MEMORY_GOAL) | {
        "threads": threads
    }
