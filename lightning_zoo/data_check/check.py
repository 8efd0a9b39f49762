"""The whole check: read the labels, look at every file once, and list what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightning_zoo.data_check.classes import check_classes
from lightning_zoo.data_check.duplicates import check_duplicates, check_entries
from lightning_zoo.data_check.files import check_files
from lightning_zoo.data_check.looking import Look, all_cores, look_at_all
from lightning_zoo.data_check.mask_files import MaskLook, check_masks, count_masks, look_at_masks
from lightning_zoo.data_check.objects import check_objects
from lightning_zoo.data_check.report import SEVERITIES, CheckReport
from lightning_zoo.data_check.summary import summarise
from lightning_zoo.data_check.videos import VideoLook, check_videos, look_at_videos
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import read_data
from lightning_zoo.formats.index import DataIndex, Problem, TaskName


def check_data(
    root_or_index: str | Path | DataIndex,
    *,
    format: str = "auto",
    task: TaskName | None = None,
    val_share: float = 0.2,
    split_seed: int = 0,
    annotations: str | Path | None = None,
    files: bool = True,
    workers: int | None = None,
    progress: bool = False,
) -> CheckReport:
    """Look for what is wrong with one's own data, before a model learns from it.

    Args:
        root_or_index: Its folder, or what :func:`lightning_zoo.formats.read_data` made of it; the
            next five arguments are that function's.
        format: Name of its format; ``auto`` looks.
        task: Task of the model that is to learn from it, where two readings are possible.
        val_share: Share of the training images that validate where there is no such split.
        split_seed: Seed of that split.
        annotations: The one annotation file to read.
        files: Whether every image, mask or video is read; without, the labels alone are checked.
        workers: Threads that read files; None takes one a core.
        progress: Whether a bar is shown on a terminal.

    Raises:
        ZooError: If the data cannot be read at all.
    """
    index = (
        root_or_index
        if isinstance(root_or_index, DataIndex)
        else read_data(
            root_or_index, format=format, task=task, val_share=val_share, split_seed=split_seed,
            annotations=annotations,
        )
    )  # fmt: skip
    if not index.items:
        raise ZooError(
            f"there is nothing in {str(index.root)!r} to check: no image or video with a label"
        )
    threads = all_cores() if workers is None else max(workers, 1)
    looks: dict[str, Look] = {}
    masks: dict[str, MaskLook] = {}
    videos: dict[str, VideoLook] = {}
    names = list(dict.fromkeys(item.file for item in index.items))
    if files and index.task == "video":
        videos = look_at_videos(index.root, names, workers=threads, progress=progress)
        looks = {name: video.look for name, video in videos.items()}
    elif files:
        looks = look_at_all(index.root, names, workers=threads, progress=progress)
        if index.task == "segmentation":
            masks = look_at_masks(index, looks, workers=threads, progress=progress)
    counts: dict[str, list[int]] = {split: index.count(split) for split in index.splits}
    if masks:
        counts = count_masks(index, masks)

    def findings() -> Iterator[Problem]:
        yield from index.problems
        yield from check_entries(index)
        if videos:
            yield from check_videos(index, videos)
        elif looks:
            yield from check_files(index, looks)
        if looks:
            yield from check_duplicates(index, looks)
        if masks:
            yield from check_masks(index, masks)
        if index.task == "detection":
            yield from check_objects(index, looks)
        if masks or index.task != "segmentation":  # what masks show is not known unread
            yield from check_classes(index, counts)

    # stable: within a severity the order is that of the checks, kind by kind
    problems = sorted(findings(), key=lambda problem: SEVERITIES.index(problem.severity))
    return CheckReport(index, tuple(problems), summarise(index, counts, looks, videos))
