"""Whether what a run is made of works here: decoders, one network of each task, two processes."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_zoo.doctor import Finding
from lightning_zoo.models.registry import ModelEntry, registry, tasks

# Codecs of the videos that people have, by FFmpeg's names
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg")
SIDE = 32  # pixels
FRAMES = 12
CLASSES = 3
SMALLER = {"min_size": 64, "max_size": 64}  # of a detector that resizes by itself
SECONDS_TO_MEET = 20


def look_at_images() -> Iterator[Finding]:
    """Yield a finding for JPEG and PNG: written by Pillow, read as a run reads them."""
    from PIL import Image

    from lightning_zoo.transforms.decode import read_image

    row = np.arange(SIDE, dtype=np.uint8) * 8
    pixels = np.stack(np.broadcast_arrays(row[:, None], row[None], row[:, None] // 2), axis=2)
    with tempfile.TemporaryDirectory(prefix="lightning_zoo_") as folder:
        for name in ("jpg", "png"):
            file = Path(folder) / f"picture.{name}"
            Image.fromarray(pixels).save(file)
            expected = np.asarray(Image.open(file).convert("RGB"))
            if np.array_equal(read_image(file), expected):
                yield Finding(name, "ok", "OpenCV and Pillow read the same bytes")
            else:
                fix = "pip install --force-reinstall opencv-python-headless pillow"
                yield Finding(name, "fail", "OpenCV and Pillow read different bytes", fix)


def look_at_videos() -> Iterator[Finding]:
    """Yield a finding for mp4, written and read by PyAV, and one for the codecs."""
    import av

    from lightning_zoo.loggers.wandb_images import encode_mp4
    from lightning_zoo.transforms.video_decode import probe, read_frames

    shades = np.linspace(0, 240, FRAMES).astype(np.uint8)
    clip = np.broadcast_to(shades[:, None, None, None], (FRAMES, 64, 64, 3))
    with tempfile.TemporaryDirectory(prefix="lightning_zoo_") as folder:
        file = Path(folder) / "clip.mp4"
        file.write_bytes(encode_mp4(clip, 15.0))
        frames = probe(file)
        found = read_frames(file, frames, range(len(frames))).astype(int)
    reinstall = "pip install --force-reinstall av"
    if found.shape == clip.shape and np.abs(found - clip).max() < 24:
        yield Finding("mp4", "ok", f"{FRAMES} frames written and read, PyAV {av.__version__}")
    else:
        yield Finding("mp4", "fail", "what is read is not what was written", reinstall)
    missing = [name for name in CODECS if name not in av.codecs_available]
    if missing:
        text = f"FFmpeg reads no {', '.join(missing)}"
        yield Finding("codecs", "warn", text, f"{reinstall} (its own wheels have them)")
    else:
        yield Finding("codecs", "ok", ", ".join(CODECS))


def look_at_networks() -> Iterator[Finding]:
    """Yield a finding for the smallest network of each task: forward, backward, on each device."""
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for task in tasks():
        of_task = [entry for entry in registry().values() if entry.task == task]
        entry = min(of_task, key=lambda entry: (entry.num_params, entry.name))
        times = []
        for device in devices:
            start = time.perf_counter()
            gradient = gradient_norm(entry, device)
            times.append(f"{time.perf_counter() - start:.1f} s on {device}")
            if not np.isfinite(gradient) or gradient == 0:
                text = f"{entry.full_name}: the gradient on {device} is {gradient}"
                yield Finding(task, "fail", text, "pip install --force-reinstall torch")
                break
        else:
            text = f"{entry.full_name}, forward and backward: {', '.join(times)}"
            yield Finding(task, "ok", text)


def gradient_norm(entry: ModelEntry, device: str) -> float:
    """Return the norm of a network's gradient after one forward and one backward pass."""
    arguments: dict[str, Any] = {"num_classes": CLASSES}
    if entry.task == "detection":
        arguments |= {"pretrained_backbone": False, "trainable_backbone_layers": None}
        if "320" not in entry.name:
            arguments |= SMALLER
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = entry.load_builder()(**arguments).to(device).train()
        side = max(SIDE, entry.min_train_size)
        if entry.task == "video":
            output = network(torch.rand(2, 3, 8, side, side, device=device))
        elif entry.task == "detection":
            box = torch.tensor([[8.0, 8.0, 40.0, 48.0]], device=device)
            target = {"boxes": box, "labels": torch.ones(1, dtype=torch.int64, device=device)}
            images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, device=device)] * 2
            output = network(images, [dict(target) for _ in images])
        else:
            output = network(torch.rand(2, 3, side, side, device=device))
        loss = torch.stack([part.float().square().mean() for part in _tensors(output)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.norm() for p in network.parameters() if p.grad is not None]
    return float(torch.stack(gradients).norm()) if gradients else 0.0


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of what a network returns: one, a dictionary or a sequence of them."""
    if isinstance(output, Tensor):
        yield output
    elif output is not None:
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def look_at_ranks() -> Iterator[Finding]:
    """Yield whether two ranks can add up a number over gloo, as runs on several devices do."""
    dist: Any = torch.distributed

    if not dist.is_available() or not dist.is_gloo_available():
        yield Finding("ranks", "warn", "this torch has no gloo", "install torch's own wheel")
        return
    sums: list[float] = [0.0, 0.0]
    errors: list[str] = []

    def meet(rank: int, file: str) -> None:
        try:
            store = dist.FileStore(file, 2)
            limit = timedelta(seconds=SECONDS_TO_MEET)
            group = dist.ProcessGroupGloo(store, rank, 2, limit)
            number = torch.tensor([rank + 1.0])
            group.allreduce([number]).wait()
            sums[rank] = float(number)
        except RuntimeError as error:
            errors.append(str(error).splitlines()[0])

    with tempfile.TemporaryDirectory(prefix="lightning_zoo_") as folder:
        file = str(Path(folder) / "store")
        threads = [threading.Thread(target=meet, args=(rank, file)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if sums == [3.0, 3.0]:
        yield Finding("ranks", "ok", "two add up over gloo")
    else:
        what = errors[0] if errors else f"the sum of 1 and 2 is {sums}"
        fix = "let this host's name be known to itself (/etc/hosts), or GLOO_SOCKET_IFNAME=lo"
        yield Finding("ranks", "fail", what, fix)


LOOKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("images", look_at_images),
    ("videos", look_at_videos),
    ("networks", look_at_networks),
    ("ranks", look_at_ranks),
)
