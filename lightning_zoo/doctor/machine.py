"""Devices, memory and disks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_zoo.doctor import Finding

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
LITTLE_SHARED_MEMORY = 1 * GIB
LITTLE_TEMPORARY, LITTLE_DISK, NO_DISK = 1 * GIB, 10 * GIB, GIB // 2
FEW_FILES = 1024


def look_at_devices() -> Iterator[Finding]:
    """Yield the processors, and each GPU or the reason why there is none."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", "ok", f"{cores} cores, {torch.get_num_threads()} threads of torch")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(i)
            text = f"{facts.name}, {facts.total_memory / GIB:.0f} GiB"
            try:
                ones = torch.ones(64, 64, device=f"cuda:{i}")
                works = float((ones @ ones).sum()) == 64**3
                fix = "" if works else "the GPU computes wrongly: have it looked after"
                yield Finding(f"gpu {i}", "ok" if works else "fail", text, fix)
            except RuntimeError as error:
                line = str(error).splitlines()[0]
                fix = "end what else uses it, or install the torch that fits its driver"
                yield Finding(f"gpu {i}", "fail", f"{text}: {line}", fix)
    elif Path("/dev/nvidia0").exists():
        fix = f"install a torch that fits the driver, see nvidia-smi; here is {torch.__version__}"
        yield Finding("gpu", "warn", "there is one, and torch cannot use it", fix)
    else:
        yield Finding("gpu", "ok", "none: runs take the CPU")


def look_at_memory() -> Iterator[Finding]:
    """Yield what loader workers pass their batches through, and how many files may be open."""
    if SHARED_MEMORY.is_dir():
        size, free = (f(SHARED_MEMORY) for f in (_size, _free))
        text = f"{size / GIB:.1f} GiB, {free / GIB:.1f} GiB of it free"
        fix = "docker run --shm-size=8g, or --data.workers 0"
        little = free < LITTLE_SHARED_MEMORY
        yield Finding("/dev/shm", "warn" if little else "ok", text, fix if little else "")
    try:
        import resource
    except ImportError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= most < FEW_FILES
    fix = "ulimit -n 65536"
    yield Finding("open files", "warn" if few else "ok", f"up to {most}", fix if few else "")


def look_at_disks() -> Iterator[Finding]:
    """Yield the folder of temporary files, and the disk that runs are written to."""
    asked = os.environ.get("TMPDIR")
    if asked is not None and not Path(asked).is_dir():
        yield Finding("TMPDIR", "warn", f"there is no folder {asked}", f"mkdir -p {asked}")
    folder = Path(tempfile.gettempdir())
    with tempfile.TemporaryFile() as file:
        file.write(bytes(4096))
    free = _free(folder)
    little = free < LITTLE_TEMPORARY
    yield Finding(
        "temporary",
        "warn" if little else "ok",
        f"{folder}, {free / GIB:.1f} GiB free",
        "name a folder with more room in TMPDIR" if little else "",
    )
    here = Path.cwd()
    text = f"{here}, {_free(here) / GIB:.1f} GiB free"
    if not os.access(here, os.W_OK):
        yield Finding("disk", "warn", f"{here} cannot be written to", "name another with --out")
    elif _free(here) < NO_DISK:
        yield Finding("disk", "fail", text, "make room, or name another disk with --out")
    elif _free(here) < LITTLE_DISK:
        yield Finding("disk", "warn", text, "checkpoints of large models take gigabytes: make room")
    else:
        yield Finding("disk", "ok", text)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _size(folder: Path) -> int:
    return shutil.disk_usage(folder).total


LOOKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("devices", look_at_devices),
    ("memory", look_at_memory),
    ("disks", look_at_disks),
)
