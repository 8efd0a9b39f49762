"""Memory of loader workers that read a file of COCO's size: our index against a list of dicts."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_zoo.datamodules.coco_dataset import CocoDataset
from lightning_zoo.datamodules.coco_index import read_index
from lightning_zoo.datamodules.loader import start_worker
from lightning_zoo.errors import ZooError

GOAL = 0.1  # of the naive data set's growth in all workers
HEIGHT, WIDTH = 480, 640
MIB = 2**20


def coco_index_benchmark(
    images: int = 100_000, annotations: int = 800_000, workers: int = 4
) -> Iterator[dict[str, Any]]:
    """Measure what workers grow by while they read every annotation once.

    Both data sets read the same file in a process of their own, fork workers and read boxes,
    labels and polygons of every image in a shuffled order; no image is decoded. A worker's USS is
    the memory that it alone holds; the sum of PSS counts every page of all processes once.

    Args:
        images: Images of the file, which is made on the spot.
        annotations: Annotations of the file, polygons of 20 points.
        workers: Worker processes.

    Yields:
        One JSON-able row for ``"ours"`` and ``"list of dicts"``, and one with their ratio.

    Raises:
        ZooError: If this is no Linux, whose ``/proc`` tells the figures.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise ZooError("the benchmark coco_index needs /proc/self/smaps_rollup, so Linux")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_synthetic(path, images, annotations)
        rows = {}
        for name in ("ours", "list of dicts"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                row = pool.submit(_measure, name, path, workers).result()
            rows[name] = {"benchmark": "coco_index", "images": images,
                          "annotations": annotations, "workers": workers, **row}  # fmt: skip
            yield rows[name]
    ours, naive = (row["growth_of_all_workers_mib"] for row in rows.values())
    share = ours / naive if naive > 0 else 0.0
    yield {
        "benchmark": "coco_index",
        "ours_mib": ours,
        "list_of_dicts_mib": naive,
        "ratio": round(share, 3),
        "goal": GOAL,
        "reached": share <= GOAL,
    }


def write_synthetic(path: Path, images: int, annotations: int) -> None:
    """Write an annotation file whose polygons have 20 points of two decimals, as COCO's have."""
    rng = np.random.default_rng(0)
    pool = []
    for _ in range(500):
        corner = rng.uniform(0, (WIDTH - 100, HEIGHT - 100))
        points = np.round(rng.uniform(0, 100, (20, 2)) + corner, 2)
        box = [round(v, 2) for v in (*points.min(0), *(points.max(0) - points.min(0)))]
        pool.append(
            f'"area": {box[2] * box[3] / 2:.4f}, "bbox": {json.dumps(box)}, '
            f'"segmentation": [{json.dumps(points.ravel().tolist())}]'
        )
    with path.open("w", encoding="ascii") as file:
        file.write('{"images": [')
        for i in range(images):
            entry = {"id": i + 1, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH}
            file.write((", " if i else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for i in range(annotations):
            file.write(
                f'{", " if i else ""}{{"id": {i + 1}, "image_id": {i % images + 1}, '
                f'"category_id": {i % 80 + 1}, "iscrowd": 0, {pool[i % len(pool)]}}}'
            )
        names = [{"id": i + 1, "name": f"category {i + 1}"} for i in range(80)]
        file.write(f'], "categories": {json.dumps(names)}}}')


class _Ours(Dataset[int]):
    """Reads what training reads of our index."""

    def __init__(self, path: Path) -> None:
        labels = {number: number for number in range(1, 81)}
        index = read_index(path, labels=labels, target="masks")
        self.dataset = CocoDataset("train", path.parent, index, np.arange(len(index)))
        self.pixels = np.broadcast_to(np.uint8(0), (HEIGHT, WIDTH, 3))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, image: int) -> int:
        sample = self.dataset.training_sample(image, self.pixels)
        self.dataset.name(image)
        return len(sample.boxes)


class _ListOfDicts(Dataset[int]):
    """Reads the file's own objects, gathered by image as the usual libraries do."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_bytes())
        self.images = content["images"]
        self.by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self.images}
        for annotation in content["annotations"]:
            self.by_image[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> int:
        records = self.by_image[self.images[image]["id"]]
        boxes = np.array([record["bbox"] for record in records])
        polygons = [np.array(p) for record in records for p in record["segmentation"]]
        return len(boxes) if polygons and self.images[image]["file_name"] else 0


def _measure(name: str, path: Path, workers: int) -> dict[str, Any]:
    """Read every sample once; return times and memory in MiB."""
    torch.set_num_threads(1)
    start = time.process_time()
    dataset: Dataset[int] = _Ours(path) if name == "ours" else _ListOfDicts(path)
    built = time.process_time() - start
    # that there are more workers than cores is no matter where memory is measured
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    loader = DataLoader(
        dataset,
        batch_size=16,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,  # so that they are there to be measured
        worker_init_fn=start_worker,
        multiprocessing_context="fork",
    )
    batches = iter(loader)
    total = int(sum(next(batches).sum() for _ in range(workers)))  # every worker has begun
    pids = [process.pid for process in multiprocessing.active_children() if process.pid]
    before = [_memory(pid)["uss"] for pid in pids]
    start = time.perf_counter()
    total += int(sum(batch.sum() for batch in batches))
    seconds = time.perf_counter() - start
    after = [_memory(pid) for pid in pids]
    uss = [memory["uss"] for memory in after]
    return {
        "dataset": name,
        "objects": total,
        "build_cpu_s": round(built, 1),
        "epoch_s": round(seconds, 1),
        "main_rss_mib": round(_memory(os.getpid())["rss"] / MIB),
        "worker_uss_at_start_mib": round(sum(before) / len(before) / MIB, 1),
        "worker_uss_after_epoch_mib": round(sum(uss) / len(uss) / MIB, 1),
        "growth_of_all_workers_mib": round((sum(uss) - sum(before)) / MIB, 1),
        "pss_of_all_processes_mib": round(
            sum(m["pss"] for m in [*after, _memory(os.getpid())]) / MIB
        ),
    }


def _memory(pid: int) -> dict[str, int]:
    """Return the bytes that a process holds alone (uss), shares pro rata (pss) and maps (rss)."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return {
        "uss": found["Private_Clean"] + found["Private_Dirty"],
        "pss": found["Pss"],
        "rss": found["Rss"],
    }
