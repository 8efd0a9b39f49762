"""Lay out Kinetics-400 as data/kinetics400/{train,val}/<class>/*.mp4.

    python scripts/prepare_kinetics.py --archives ~/downloads --root data/kinetics400

It needs, in one folder, what https://github.com/cvdfoundation/kinetics-dataset lists:

    train.csv, val.csv           the tables, here or in a folder ``annotations``
    train/*.tar.gz               the archives of a split, in its folder,
    k400_train_part_*.tar.gz     or here with k400_ and the split in their names
    replacement*.tgz             videos that replace damaged ones of either split

A run that was killed continues where it stopped, archives that come later are added by another run,
and folders get their final names only when all archives are laid out. Videos that the tables name
and no archive holds (Kinetics has lost some) are listed in ``missing_<split>.txt``; in the end all
videos are looked through, which training would do otherwise, and those that cannot be read are
listed in ``broken_<split>.txt``.

Videos are not encoded anew. The published scores were measured on videos whose shorter side has 480
pixels; smaller ones score lower.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lightning_zoo.datamodules import KineticsDataModule
from lightning_zoo.datamodules.archives import tar_members, write
from lightning_zoo.datamodules.base import Split
from lightning_zoo.datamodules.files import files_below, has_extension
from lightning_zoo.datamodules.kinetics import read_table
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS

SOURCE = "https://github.com/cvdfoundation/kinetics-dataset"
SPLITS: tuple[Split, ...] = ("train", "val")
ENDINGS = (".tar", ".tar.gz", ".tgz")
DONE = ".archives"  # names and sizes of those that a split was made of; hidden from data modules


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archives", type=Path, default=Path(), help="folder of the archives")
    parser.add_argument(
        "--root", type=Path, default=Path("data/kinetics400"), help="folder to fill"
    )
    parser.add_argument("--only", choices=SPLITS, help="lay out this split alone")
    parser.add_argument("--no_check", action="store_true", help="do not look through the videos")
    parser.add_argument("--workers", type=int, default=4, help="processes that look through them")
    args = parser.parse_args(argv)
    try:
        workers = None if args.no_check else args.workers
        prepare(args.archives, args.root, only=args.only, workers=workers)
    except (ZooError, OSError) as error:
        print(f"prepare_kinetics: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(
    archives: Path, root: Path, *, only: Split | None = None, workers: int | None = 4
) -> None:
    """Lay out both splits, or one.

    Args:
        archives: Folder that holds the archives and tables.
        root: Folder to fill.
        only: ``"train"``, ``"val"`` or None for both.
        workers: Processes that look through the videos; None leaves that to training.

    Raises:
        ZooError: If a table or archive is missing, damaged or holds what it must not.
    """
    splits = [split for split in SPLITS if only in (None, split)]
    tables = {split: find_table(archives, split) for split in splits}
    sources = {split: find_archives(archives, split) for split in splits}
    broken = 0
    for split in splits:
        table = read_table(tables[split])
        prepare_split(sources[split], table, root / split, name=tables[split].name)
        report(root, split, table)
        if workers is not None:
            broken += check(root, split, workers)
    skip = " --data.on_error skip" if broken else ""
    print(f"next: python -m lightning_zoo fit --recipe r3d_18 --data.root {root}{skip}")


def find_table(archives: Path, split: str) -> Path:
    """Return the table of a split.

    Raises:
        ZooError: If it is not there.
    """
    for path in (archives / "annotations" / f"{split}.csv", archives / f"{split}.csv"):
        if path.is_file():
            return path
    raise ZooError(f"no {split}.csv in {str(archives)!r} (--archives); get it from {SOURCE}")


def find_archives(archives: Path, split: str) -> list[Path]:
    """Return the archives of a split, replacements last.

    Raises:
        ZooError: If there is none.
    """
    places = [*archives.glob(f"{split}/*"), *archives.glob(f"k400_{split}_*")]
    found = sorted(path for path in places if path.name.endswith(ENDINGS))
    if not found:
        raise ZooError(
            f"no archive of {split} in {str(archives)!r} (--archives); expected {split}/*.tar.gz "
            f"or k400_{split}_*.tar.gz of {SOURCE}, or lay out one split by --only"
        )
    more = (path for path in archives.glob("replacement*") if path.name.endswith(ENDINGS))
    return [*found, *sorted(more)]


def prepare_split(
    archives: Sequence[Path], table: Mapping[str, str], target: Path, *, name: str
) -> None:
    """Lay out the videos of a split.

    Args:
        archives: Its archives; later ones replace videos of earlier ones.
        table: Label of each file, without extension.
        target: Folder of the split, which appears once it is complete.
        name: Name of the table, for errors.

    Raises:
        ZooError: If an archive is damaged, holds what it must not, or no video of the table.
    """
    partial = target.parent / f".{target.name}.partial"  # data modules pass over hidden folders
    marks = {path: f"{path.name} {path.stat().st_size}\n" for path in archives}
    if target.is_dir():
        done = _read_marks(target)
        if done.issuperset(marks.values()):
            print(f"{target.name}: {str(target)!r} is there")
            return
        target.rename(partial)
    partial.mkdir(parents=True, exist_ok=True)
    done = _read_marks(partial)
    for number, archive in enumerate(archives, start=1):
        replaces = archive.name.startswith("replacement")  # what came by now, hence never done
        if marks[archive] in done and not replaces:
            continue
        videos = lay_out(archive, table, partial)
        if not videos and not replaces:
            raise ZooError(
                f"no video of {str(archive)!r} stands in {name}; is it an archive of another split?"
            )
        with (partial / DONE).open("a", encoding="utf-8") as file:
            file.write(marks[archive])
        print(
            f"{target.name} {number} of {len(archives)} {archive.name}: {videos} videos", flush=True
        )
    partial.rename(target)


def lay_out(archive: Path, table: Mapping[str, str], target: Path) -> int:
    """Lay out the videos of an archive that the table names; return their number.

    Raises:
        ZooError: If the archive is damaged or holds what it must not.
    """
    videos = 0
    for member in tar_members(archive):
        path = PurePosixPath(member.name)
        label = table.get(path.stem)
        if label is None or not has_extension(path.name, VIDEO_EXTENSIONS):
            continue
        if "/" in label or "\\" in label or label.startswith("."):
            raise ZooError(f"the label {label!r} of {path.stem} is no name of a folder")
        write(member.content, member.size, target / label.replace(" ", "_") / path.name)
        videos += 1
    return videos


def report(root: Path, split: str, table: Mapping[str, str]) -> None:
    """Compare a split's folder with its table; say what there is, and list what is missing."""
    there = {PurePosixPath(file).stem for file in files_below(root / split, VIDEO_EXTENSIONS)}
    missing = [f"{stem} {table[stem]}" for stem in sorted(set(table) - there)]
    classes = {table[stem] for stem in there if stem in table}
    text = f"{split}: {len(there)} of {len(table)} videos, {len(classes)} classes"
    path = root / f"missing_{split}.txt"
    print(f"{text}; the others are listed in {str(path)!r}" if missing else text, flush=True)
    _write_list(path, missing)


def check(root: Path, split: Split, workers: int) -> int:
    """Look through a split's videos; list those that cannot be read and return their number.

    The frame times that this finds are kept, so that training need not look again.
    """
    data = KineticsDataModule(root=str(root), on_error="skip", index_workers=workers)
    dataset = data.make_dataset(split)
    problems = [f"{name} {reason}" for name, reason in dataset.problems] if dataset else []
    path = root / f"broken_{split}.txt"
    if problems:
        print(
            f"{split}: {len(problems)} videos cannot be used (broken, or shorter than a clip); "
            f"they are listed in {str(path)!r}, the first is {problems[0]}"
        )
    _write_list(path, problems)
    return len(dataset.index.errors) if dataset else 0


def _read_marks(folder: Path) -> set[str]:
    path = folder / DONE
    return set(path.read_text("utf-8").splitlines(keepends=True)) if path.is_file() else set()


def _write_list(path: Path, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if text:
        path.write_text(text, encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main())
