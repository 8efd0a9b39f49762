"""Lay out the official ImageNet-1k archives as data/imagenet/{train,val}/<wnid>/*.JPEG.

    python scripts/prepare_imagenet.py --archives ~/downloads --root data/imagenet

It needs ILSVRC2012_img_train.tar and, for val, ILSVRC2012_img_val.tar with
ILSVRC2012_devkit_t12.tar.gz (for the labels), from https://image-net.org after registration. A run
that was killed continues where it stopped: complete classes are skipped, and folders get their
final names only when they are complete.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from lightning_zoo.datamodules.archives import Member, refused, tar_members, write
from lightning_zoo.errors import ZooError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRAIN_IMAGES, VAL_IMAGES = 1_281_167, 50_000
MAX_LABEL_FILE = 64 * 2**20  # bytes; both files of the devkit are far smaller

_WNID = re.compile(r"n[0-9]{8}")
_VAL_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archives", type=Path, default=Path(), help="folder of the archives")
    parser.add_argument("--root", type=Path, default=Path("data/imagenet"), help="folder to fill")
    parser.add_argument("--only", choices=("train", "val"), help="lay out this split alone")
    args = parser.parse_args(argv)
    try:
        prepare(args.archives, args.root, only=args.only)
    except (ZooError, OSError) as error:
        print(f"prepare_imagenet: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(archives: Path, root: Path, *, only: str | None = None) -> None:
    """Lay out both splits, or one.

    Args:
        archives: Folder that holds the archives.
        root: Folder to fill.
        only: ``"train"``, ``"val"`` or None for both.

    Raises:
        ZooError: If an archive is missing, damaged or holds what it must not.
    """
    needed = {"train": [TRAIN], "val": [VAL, DEVKIT]}
    names = [n for split, files in needed.items() if only in (None, split) for n in files]
    missing = [name for name in names if not (archives / name).is_file()]
    if missing:
        raise ZooError(
            f"no {', '.join(missing)} in {str(archives)!r} (--archives); get the ILSVRC2012 files "
            "from https://image-net.org/download-images (registration), or lay out one split by "
            "--only train or --only val"
        )
    if only != "val":
        prepare_train(archives / TRAIN, root / "train")
    if only != "train":
        prepare_val(archives / VAL, archives / DEVKIT, root / "val")
    print(f"next: python -m lightning_zoo fit --recipe resnet50 --data.root {root}")


def prepare_train(archive: Path, target: Path) -> None:
    """Lay out the training images: a tar of one tar a class.

    Args:
        archive: ILSVRC2012_img_train.tar.
        target: Folder of the split; each class gets its folder once it is complete.

    Raises:
        ZooError: If the archive is damaged or holds what it must not.
    """
    classes = images = 0
    for member in members(archive):
        wnid = member.name.removesuffix(".tar")
        if not (_WNID.fullmatch(wnid) and member.name.endswith(".tar")):
            raise refused(archive, member.name, "expected nXXXXXXXX.tar")
        classes += 1
        done = target / wnid
        if done.is_dir():
            count = len(os.listdir(done))
            images += count
            print(f"train {classes} {wnid}: {count} images are there")
            continue
        partial = target / f".{wnid}.partial"  # data modules pass over hidden folders
        count = 0
        for inner in members(archive, member.content, within=member.name):
            write(inner.content, inner.size, partial / inner.name)
            count += 1
        if not count:
            raise ZooError(f"{str(archive)!r}: {member.name} holds no image")
        partial.rename(done)
        images += count
        print(f"train {classes} {wnid}: {count} images", flush=True)
    _report("train", classes, images, TRAIN_IMAGES)


def prepare_val(archive: Path, devkit: Path, target: Path) -> None:
    """Lay out the validation images: a flat tar, and labels in the development kit.

    Args:
        archive: ILSVRC2012_img_val.tar.
        devkit: ILSVRC2012_devkit_t12.tar.gz.
        target: Folder of the split, which appears once it is complete.

    Raises:
        ZooError: If an archive is damaged, holds what it must not, or they do not fit together.
    """
    if target.is_dir():
        print(f"val: {str(target)!r} is there")
        return
    wnids = read_val_wnids(devkit)
    partial = target.parent / f".{target.name}.partial"
    images = 0
    for member in members(archive):
        found = _VAL_NAME.fullmatch(member.name)
        if not found:
            raise refused(archive, member.name, "expected ILSVRC2012_val_XXXXXXXX.JPEG")
        number = int(found.group(1))
        if not 1 <= number <= len(wnids):
            raise refused(archive, member.name, f"the development kit has {len(wnids)} labels")
        write(member.content, member.size, partial / wnids[number - 1] / member.name)
        images += 1
        if images % 5000 == 0:
            print(f"val: {images} of {len(wnids)} images", flush=True)
    if images != len(wnids):
        raise ZooError(
            f"{str(archive)!r} holds {images} images and {str(devkit)!r} {len(wnids)} labels; "
            "download both again"
        )
    partial.rename(target)
    _report("val", len(set(wnids)), images, VAL_IMAGES)


def read_val_wnids(devkit: Path) -> list[str]:
    """Return the WordNet id of every validation image, in the order of their numbers.

    Args:
        devkit: ILSVRC2012_devkit_t12.tar.gz, with data/meta.mat and
            data/ILSVRC2012_validation_ground_truth.txt.

    Raises:
        ZooError: If one of the two is missing or does not make sense.
    """
    try:
        loadmat = importlib.import_module("scipy.io").loadmat  # comes with albumentations
    except ImportError:
        raise ZooError("reading meta.mat needs SciPy: pip install scipy") from None
    wanted = {"meta.mat": b"", "ILSVRC2012_validation_ground_truth.txt": b""}
    for member in tar_members(devkit):
        name = PurePosixPath(member.name).name
        if name in wanted and PurePosixPath(member.name).parent.name == "data":
            if member.size > MAX_LABEL_FILE:
                raise refused(devkit, member.name, f"{member.size} bytes are too many")
            kept = io.BytesIO()
            shutil.copyfileobj(member.content, kept)
            wanted[name] = kept.getvalue()
    for name, data in wanted.items():
        if not data:
            raise ZooError(f"no data/{name} in {str(devkit)!r}; download it again")
    meta, truth = wanted.values()
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        wnids = [wnid_of[int(line)] for line in truth.decode("ascii").split()]
    except Exception as error:  # SciPy raises many kinds on damaged files
        raise ZooError(
            f"the labels in {str(devkit)!r} cannot be read "
            f"({type(error).__name__}: {error}); download it again"
        ) from None
    strange = [wnid for wnid in wnids if not _WNID.fullmatch(wnid)]
    if strange:
        raise ZooError(f"{str(devkit)!r} names the class {strange[0]!r}; expected nXXXXXXXX")
    return wnids


def members(
    archive: Path, content: IO[bytes] | None = None, *, within: str = ""
) -> Iterator[Member]:
    """Yield the files of a tar that has no folders; see :func:`tar_members`.

    Raises:
        ZooError: If one lies in a folder or is hidden, also for the reasons there.
    """
    for member in tar_members(archive, content, within=within):
        if "/" in member.name:
            raise refused(archive, member.name, "it lies in a folder", within)
        if member.name.startswith("."):
            raise refused(archive, member.name, "its name is hidden", within)
        yield member


def _report(split: str, classes: int, images: int, expected: int) -> None:
    print(f"{split}: {images} images of {classes} classes")
    if images != expected:
        print(f"note: the whole of ImageNet-1k has {expected} images in {split}")


if __name__ == "__main__":
    raise SystemExit(main())
