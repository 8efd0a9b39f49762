"""The process that decodes damaged files for ``sweep.py``; it tells what came of each."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mutations import mutate

from lightning_zoo.errors import ZooError

SPACE = 16 * 2**30  # bytes of addresses; a decoder that asks for more gets an error

STRANGE = (
    *(None, "1", True, 1.5, -1, 0, 2**31, 2**32, 2**63, 2**200, [], {}, [1, 2]),
    *(float("nan"), float("inf"), -1e300, 1e5, 99_999.0),
)

TEXTS = {".json", ".xml", ".yaml", ".csv", ".txt"}
VALUES = (
    *(b"nan", b"inf", b"-inf", b"NaN", b"Infinity", b"1e400", b"-1", b"0", b"null", b"{}", b"[]"),
    *(b"99999999999999999999999", b"9" * 5000, b"1.5", b"-0.0", b'""', b"true", b"\xff", b"\0"),
    *(b"4294967295", b"9223372036854775807", b"1e308", b"\xd9\xa3", b"../../x", b"/etc/passwd"),
)


def _mutated(folder: str, number: int) -> bytes:
    seeds = sorted(Path(folder).iterdir())
    rng = np.random.default_rng(number)
    seed, donor = (seeds[int(i)].read_bytes() for i in rng.integers(len(seeds), size=2))
    return mutate(seed, rng, donor)


def image(number: int, folder: str) -> None:
    """Decode a damaged image, as data sets do."""
    from lightning_zoo.transforms.decode import decode_image

    decode_image(_mutated(folder, number), name="damaged.jpg")


def image_everywhere(number: int, folder: str, scratch: str) -> None:
    """Give a damaged image to all that reads one: samples, masks, headers, the check of data."""
    from lightning_zoo.data_check.looking import look_at
    from lightning_zoo.formats.images import image_size
    from lightning_zoo.transforms.decode import DecodeError, read_image
    from lightning_zoo.transforms.label_maps import read_label_map

    path = Path(scratch, "damaged.png")
    path.write_bytes(_mutated(folder, number))
    look_at(path)
    refused = None
    for read in (image_size, read_label_map, read_image):
        try:
            read(path)
        except DecodeError as error:
            refused = error
    if refused is not None:
        raise refused


def video(number: int, folder: str, scratch: str) -> None:
    """Look through a damaged video, take a clip from it and stream it."""
    from lightning_zoo.transforms.video_decode import probe, read_frames, resample, stream_frames

    path = Path(scratch, "damaged.mp4")
    path.write_bytes(_mutated(folder, number))
    frames = probe(path)
    resample(frames, 15)
    read_frames(path, frames, [0, len(frames) // 2, len(frames) - 1])
    for _ in stream_frames(path, frames, every=4):
        pass


def file(number: int, *files: str) -> None:
    """Read one of some files, as what its extension says."""
    from lightning_zoo.transforms.decode import read_image
    from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS, probe, read_frames

    path = Path(files[number])
    if path.suffix[1:] not in VIDEO_EXTENSIONS:
        read_image(path)
        return
    frames = probe(path)
    read_frames(path, frames, np.linspace(0, len(frames) - 1, 16).astype(int))


def rle(number: int, each: str) -> None:
    """Read an annotation file of ``each`` damaged run lengths and polygons; decode its masks."""
    from lightning_zoo.datamodules.coco_index import make_index
    from lightning_zoo.transforms.masks import Masks, rle_runs

    rng = random.Random(number)
    count = int(each)
    images: list[Any] = []
    annotations: list[Any] = []
    for i in range(count):
        height, width = rng.randint(1, 40), rng.randint(1, 40)
        images.append({"id": i, "file_name": "a.jpg", "height": height, "width": width})
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 1, 1],
                            "segmentation": _damaged_mask(rng, height, width)})  # fmt: skip
    damaged = [annotation["segmentation"] for annotation in annotations]
    index = make_index(
        {"images": images, "annotations": annotations}, Path("damaged.json"),
        labels={1: 1}, target="masks", policy="skip",
    )  # fmt: skip
    for row in np.flatnonzero(index.usable).tolist():
        image = int(index.ids[row]) - 1
        height, width = (int(n) for n in index.sizes[image])
        (mask,) = Masks([index.segment(row)], height, width).decode()
        given = damaged[image]
        if isinstance(given, dict):  # the same by another way
            runs = given["counts"]
            if not isinstance(runs, list):
                runs = rle_runs(runs if isinstance(runs, bytes) else runs.encode())
            slow = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
            if not np.array_equal(mask, slow):
                raise AssertionError(f"{given} of {height} x {width} gives another mask")
    good = int(index.usable.sum())
    if not 0.1 * count < good < 0.9 * count:
        raise AssertionError(f"{good} of {count} masks can be decoded")


def _damaged_mask(rng: random.Random, height: int, width: int) -> Any:
    """Return the mask of an annotation, damaged in one of many ways; now and then it is whole."""
    from lightning_zoo.transforms.masks import compress

    if rng.random() < 0.05:
        points: list[Any] = [round(rng.uniform(-5, 45), 2) for _ in range(2 * rng.randint(2, 8))]
        if rng.random() < 0.6:
            points[rng.randrange(len(points))] = rng.choice(STRANGE)
        if rng.random() < 0.2:
            points.pop()
        return [points, points] if rng.random() < 0.2 else [points]
    ends = sorted(rng.randint(0, height * width) for _ in range(rng.randint(1, 8)))
    runs: list[Any] = [b - a for a, b in pairwise([0, *ends, height * width])]
    size: list[Any] = [height, width]
    if rng.random() < 0.05:
        size[rng.randrange(2)] = rng.choice(STRANGE)
    kind = rng.randrange(5)
    if kind == 0:  # a list of numbers; mostly two of them change and their sum does not
        change = rng.choice((1, 3, 2**31, 2**32, 2**34, -1, -7))
        runs[rng.randrange(len(runs))] += change
        if rng.random() < 0.8:
            runs[rng.randrange(len(runs))] -= change
        if rng.random() < 0.1:
            runs[rng.randrange(len(runs))] = rng.choice(STRANGE)
        return {"size": size, "counts": runs}
    text = bytearray(compress(runs))
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(text))
        what = rng.randrange(5)
        if what == 0:
            text[at] ^= 1 << rng.randrange(8)
        elif what == 1:  # a character that is one of its
            text[at] = 48 + rng.randrange(64)
        elif what == 2:
            text[at:at] = text[: rng.randint(1, 9)]
        elif what == 3:
            text[at:at] = b"o" * rng.randint(1, 7)  # a number goes on
        elif len(text) > 1:
            del text[at : at + rng.randint(1, 3)]
        text = text or bytearray(b"0")
    return {"size": size, "counts": text.decode("latin-1") if kind < 4 else bytes(text)}


def labels(number: int, folder: str) -> None:
    """Read and check a data set one of whose label files is damaged; they are mended afterwards."""
    from lightning_zoo.data_check import check_data

    roots = sorted(Path(folder).iterdir())
    root = roots[number % len(roots)]
    texts = sorted(p for p in root.rglob("*") if p.suffix in TEXTS)
    rng = np.random.default_rng(number)
    path = texts[int(rng.integers(len(texts)))]
    whole = path.read_bytes()
    damaged = mutate(whole, rng, whole)
    if rng.random() < 0.5:  # a value that is one, and makes no sense
        numbers = list(re.finditer(rb"-?\d+\.?\d*", whole))
        if numbers:
            at = numbers[int(rng.integers(len(numbers)))]
            word = VALUES[int(rng.integers(len(VALUES)))]
            damaged = whole[: at.start()] + word + whole[at.end() :]
    path.write_bytes(damaged)
    try:
        check_data(root, workers=1)
    finally:
        path.write_bytes(whole)


def crash(number: int) -> None:
    """Do what ``sweep.py`` must notice: number 1 crashes, 2 hangs, 3 raises, 4 grows."""
    if number == 1:
        os.kill(os.getpid(), 11)
    if number == 2:
        time.sleep(60)
    if number == 3:
        raise KeyError("three")
    if number == 4:
        np.ones(2**27, np.uint8)
    if number == 5:
        raise ZooError("cannot read 'damaged.jpg': five")


def _peak() -> float:
    """Return the megabytes that the process had at its largest since :func:`_forget`."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _say(**told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Decode the files of the command line."""
    name, first, end, *arguments = sys.argv[1:]
    decode: Callable[..., None] = globals()[name]
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(int(first), int(end)):
        _say(kind="begin", number=number)
        _forget()
        kind, text = "read", ""
        start = time.process_time()  # others may share the cores
        try:
            decode(number, *arguments)
        except ZooError as error:
            kind, text = "refused", str(error)
        except Exception as error:
            kind, text = "other error", f"{type(error).__name__}: {error}"
        seconds = time.process_time() - start
        _say(kind=kind, text=text, number=number, seconds=seconds, peak=_peak())


if __name__ == "__main__":
    main()
