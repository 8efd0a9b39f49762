"""Lay out COCO 2017 as data/coco/{train2017,val2017}/*.jpg and data/coco/annotations/*.json.

    python scripts/prepare_coco.py --archives ~/downloads --root data/coco
    python scripts/prepare_coco.py --archives ~/downloads --root data/coco --download

It needs train2017.zip, val2017.zip and annotations_trainval2017.zip of https://cocodataset.org in
one folder; ``--download`` fetches those that are missing (19.3, 0.8 and 0.3 GB). A run that was
killed continues where it stopped: downloads go on at their last byte, images that are there are
kept, and folders get their final names only when they are complete.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from lightning_zoo.datamodules.archives import refused, write, zip_members
from lightning_zoo.datamodules.coco_index import check_categories, read_json
from lightning_zoo.errors import ZooError

URL = "http://images.cocodataset.org"  # its TLS certificate is another host's
ANNOTATIONS = "annotations_trainval2017.zip"
FOLDERS = {"train2017.zip": "zips", "val2017.zip": "zips", ANNOTATIONS: "annotations"}
IMAGES = {"train2017": 118_287, "val2017": 5_000}
KINDS = ("instances", "person_keypoints")
MAX_IMAGE, MAX_JSON = 64 * 2**20, 4 * 2**30  # bytes; the real ones are far smaller
TIMEOUT = 60  # seconds without a byte

_JSON = re.compile(r"annotations/(\w+)\.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archives", type=Path, default=Path(), help="folder of the archives")
    parser.add_argument("--root", type=Path, default=Path("data/coco"), help="folder to fill")
    parser.add_argument("--only", choices=("train", "val"), help="lay out this split alone")
    parser.add_argument("--download", action="store_true", help="fetch the missing archives")
    parser.add_argument("--url", default=URL, help=f"where to fetch them ({URL})")
    args = parser.parse_args(argv)
    try:
        prepare(args.archives, args.root, only=args.only, url=args.url if args.download else None)
    except (ZooError, OSError) as error:
        print(f"prepare_coco: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(archives: Path, root: Path, *, only: str | None = None, url: str | None = None) -> None:
    """Lay out both splits, or one.

    Args:
        archives: Folder that holds the archives.
        root: Folder to fill.
        only: ``"train"``, ``"val"`` or None for both.
        url: Server to fetch missing archives from; None fetches nothing.

    Raises:
        ZooError: If an archive is missing, damaged or holds what it must not, or if annotations
            and images do not fit together.
    """
    splits = [f"{only}2017"] if only else list(IMAGES)
    names = [f"{split}.zip" for split in splits if not (root / split).is_dir()]
    files = [f"{kind}_{split}.json" for split in splits for kind in KINDS]
    if not all((root / "annotations" / file).is_file() for file in files):
        names.append(ANNOTATIONS)
    missing = [name for name in names if not (archives / name).is_file()]
    if missing and url is None:
        raise ZooError(
            f"no {', '.join(missing)} in {str(archives)!r} (--archives); --download fetches them "
            f"from {URL}, or lay out one split by --only train or --only val"
        )
    for name in missing:
        download(f"{str(url).rstrip('/')}/{FOLDERS[name]}/{name}", archives / name)
    if ANNOTATIONS in names:
        prepare_annotations(archives / ANNOTATIONS, root / "annotations", files)
    for split in splits:
        prepare_images(archives / f"{split}.zip", root / split)
        check(root, split)
    print(f"next: python -m lightning_zoo fit --recipe maskrcnn_r50_fpn --data.root {root}")


def prepare_images(archive: Path, target: Path) -> None:
    """Lay out the images of a split.

    Args:
        archive: train2017.zip or val2017.zip.
        target: Folder of the split, which appears once it is complete.

    Raises:
        ZooError: If the archive is damaged or holds what it must not.
    """
    if target.is_dir():
        print(f"{target.name}: {str(target)!r} is there")
        return
    wanted = re.compile(rf"{target.name}/([0-9]{{12}}\.jpg)")
    partial = target.parent / f".{target.name}.partial"
    images = 0
    for member in zip_members(archive):
        found = wanted.fullmatch(member.name)
        if not found:
            raise refused(archive, member.name, f"expected {target.name}/XXXXXXXXXXXX.jpg")
        if member.size > MAX_IMAGE:
            raise refused(archive, member.name, f"{member.size} bytes are too many")
        write(member.content, member.size, partial / found.group(1))
        images += 1
        if images % 10_000 == 0:
            print(f"{target.name}: {images} images", flush=True)
    if not images:
        raise ZooError(f"{str(archive)!r} holds no image; download it again")
    partial.rename(target)


def prepare_annotations(archive: Path, target: Path, files: Sequence[str]) -> None:
    """Lay out annotation files.

    Args:
        archive: annotations_trainval2017.zip.
        target: Folder to put them in.
        files: Names of the wanted files.

    Raises:
        ZooError: If the archive is damaged, holds what it must not, or lacks a file.
    """
    done = set()
    for member in zip_members(archive):
        found = _JSON.fullmatch(member.name)
        if not found:
            raise refused(archive, member.name, "expected annotations/<name>.json")
        name = f"{found.group(1)}.json"
        if name not in files:
            continue
        if member.size > MAX_JSON:
            raise refused(archive, member.name, f"{member.size} bytes are too many")
        write(member.content, member.size, target / name)
        done.add(name)
        print(f"annotations: {name}", flush=True)
    absent = [name for name in files if name not in done]
    if absent:
        raise ZooError(f"{str(archive)!r} has no {', '.join(absent)}; download it again")


def check(root: Path, split: str) -> None:
    """Compare a split's images with its annotation file, and say how many there are.

    Raises:
        ZooError: If an image is missing.
    """
    path = root / "annotations" / f"instances_{split}.json"
    content = read_json(path)
    categories = check_categories(content.get("categories"), path)
    try:
        named = {image["file_name"] for image in content["images"]}
        annotations = len(content["annotations"])
    except (KeyError, TypeError):
        raise ZooError(f"{str(path)!r} is no annotation file of COCO's; remove it") from None
    present = {name for name in os.listdir(root / split) if not name.startswith(".")}
    absent = sorted(named - present)
    if absent:
        raise ZooError(
            f"{len(absent)} images of {str(path)!r} are not in {str(root / split)!r}, the first is "
            f"{absent[0]}; remove that folder and lay it out again"
        )
    print(
        f"{split}: {len(present)} images, {annotations} annotations of {len(categories)} categories"
    )
    if len(present) != IMAGES[split]:
        print(f"note: the whole of COCO 2017 has {IMAGES[split]} images in {split}")


def download(url: str, path: Path) -> None:
    """Fetch a file; an attempt that was cut short goes on at its last byte.

    Args:
        url: Address of the file.
        path: The file, which appears once it is complete.

    Raises:
        ZooError: If the server does not give it, or the connection breaks.
    """
    part = path.with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != 206:  # the server begins anew
                have = 0
            length = response.headers.get("Content-Length")
            size = None if length is None else have + int(length)
            _fetch(response, part, have, size, path)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise ZooError(f"cannot fetch {url}: {error.code} {error.reason}") from None
        # there is nothing behind the last byte: all is here, or it is something else altogether
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ZooError(f"cannot fetch {url}: {reason}; run the command again to go on") from None
    if not zipfile.is_zipfile(part):
        part.unlink()
        raise ZooError(f"what {url} gave is no zip archive; run the command again")
    part.replace(path)


def _fetch(response: IO[bytes], part: Path, have: int, size: int | None, path: Path) -> None:
    """Append a response to a partial file of ``have`` bytes until it has ``size``."""
    free = shutil.disk_usage(part.parent).free
    if size is not None and size - have > free:
        raise ZooError(f"{path.name} needs {size - have} bytes and {free} are free")
    report = have
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        while block := response.read(2**20):
            file.write(block)
            have += len(block)
            if have - report >= 2**28:
                report = have
                print(f"{path.name}: {have >> 20} of {(size or 0) >> 20} MiB", flush=True)
    if size is not None and have != size:
        raise ZooError(
            f"{path.name} broke off after {have} of {size} bytes; run the command again to go on"
        )


if __name__ == "__main__":
    raise SystemExit(main())
