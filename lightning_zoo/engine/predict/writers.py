"""What ``predict`` leaves in a folder.

<name>.png               one picture a file; of segmentation also <name>_mask.png, the labels
<name>.mp4               films of image models, annotated
grid.png                 the first files beside each other
predictions.json         a list with one entry a file; films have a list of frames
predictions_coco.json    images, annotations with scores, categories: pycocotools.COCO loads it
predictions.csv          one row an object, of classifiers and segmentation one a class
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from lightning_zoo.drawing import Tile, draw_grid, draw_tile
from lightning_zoo.drawing.segmentation import is_background
from lightning_zoo.engine.predict.films import Film
from lightning_zoo.engine.predict.inputs import kind_of
from lightning_zoo.engine.predict.results import Result, VideoResult
from lightning_zoo.engine.predict.sources import Predictor
from lightning_zoo.errors import ZooError, unknown

SAVE = ("json", "coco", "csv")
COLUMNS = ("file", "frame", "time", "label", "score", "x", "y", "width", "height")
GRID = 24
SIDE = 480  # pixels of a small picture


def check_out(out: Path) -> Path:
    """Return the folder, which need not be there yet.

    Raises:
        ZooError: If it can be none.
    """
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise ZooError(f"--out is {str(out)!r}, and {there} is a file; expected a folder")
    if not os.access(there, os.W_OK):
        raise ZooError(f"--out is {str(out)!r}, and {there} cannot be written to")
    return out


def check_targets(out: Path, files: Sequence[Path], endings: Sequence[str]) -> None:
    """Refuse to write over one of the files that are read.

    Raises:
        ZooError: If one of them would be.
    """
    sources = {file.resolve() for file in files}
    for name in unique_names(files, endings).values():
        for target in (f"{name}.mp4", *(f"{name}{ending}.png" for ending in endings), "grid.png"):
            if (out / target).resolve() in sources:
                raise ZooError(
                    f"--out is {str(out)!r}, where {target} would be overwritten; "
                    "choose another folder"
                )


def check_save(save: Sequence[str], out: Path | None) -> None:
    """Refuse formats that are unknown or have no folder to go to."""
    for name in save:
        if name not in SAVE:
            raise unknown("--save", name, SAVE)
    if out is None and save:
        raise ZooError(f"--save {','.join(save)} needs a folder; add --out DIR")


class Writer:
    """Writes results as they come; what has come is complete after Ctrl-C, too.

    Args:
        folder: The folder, made if it is not there.
        files: All files there will be.
        predictor: What draws the results.
        endings: What follows the names of a file's pictures.
        frame_by_frame: Whether films become films.
        save: Further tables: ``coco``, ``csv``; there is always ``predictions.json``.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        predictor: Predictor,
        *,
        endings: Sequence[str] = ("",),
        frame_by_frame: bool = True,
        save: Sequence[str] = (),
    ) -> None:
        self._folder, self._predictor = folder, predictor
        self._names = unique_names(files, endings)
        self._tiles: list[Tile] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._tables: list[_Json | _Coco | _Csv] = [_Json(folder / "predictions.json")]
        if "coco" in save:
            films = frame_by_frame and any(kind_of(file) == "videos" for file in files)
            numbers = None if films else numbers_in_names(files)
            self._tables.append(_Coco(folder / "predictions_coco.json", predictor, numbers))
        if "csv" in save:
            self._tables.append(_Csv(folder / "predictions.csv"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for table in self._tables:
            table.close()
        if self._tiles:
            draw_grid(self._tiles).save(self._folder / "grid.png")

    def film(self, file: Path) -> Path:
        """Return where a file's annotated film goes."""
        return self._folder / f"{self._names[file]}.mp4"

    def _picture(self, file: Path, ending: str) -> Path:
        return self._folder / f"{self._names[file]}{ending}.png"

    def add(self, file: Path, image: Any, result: Result) -> None:
        """Write a result and its pictures."""
        tile = self._predictor.tile(image, result)
        pictures = self._predictor.pictures(image, result)
        if "" not in pictures:
            pictures[""] = draw_tile(tile, SIDE)
        for ending, picture in pictures.items():
            picture.save(self._picture(file, ending))
        self._add(result, tile)

    def add_film(self, film: Film) -> None:
        """Write the results of a film, which was written while it ran."""
        self._add(film.result, film.tile)

    def _add(self, result: Result, tile: Tile | None) -> None:
        for table in self._tables:
            table.add(result)
        if tile is not None and len(self._tiles) < GRID:
            self._tiles.append(_small(tile))


def _small(tile: Tile) -> Tile:
    """Return a tile whose image takes little memory until the grid is drawn."""
    image = Image.fromarray(tile.image)
    if not tile.wide:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return replace(tile, image=np.asarray(image))


def unique_names(files: Sequence[Path], endings: Sequence[str] = ("",)) -> dict[Path, str]:
    """Return a name for each file's pictures: its stem, with a number where stems meet.

    Args:
        files: The files.
        endings: What follows the name, one for each picture of a file.
    """
    names: dict[Path, str] = {}
    used: set[str] = {"grid"}
    for file in files:
        name, n = file.stem, 2
        # some file systems do not tell small letters from capitals
        while not used.isdisjoint((name + ending).casefold() for ending in endings):
            name, n = f"{file.stem}_{n}", n + 1
        used |= {(name + ending).casefold() for ending in endings}
        names[file] = name
    return names


def numbers_in_names(files: Sequence[Path]) -> dict[str, int] | None:
    """Return the image number of each file where all names are numbers, as COCO's are."""
    if not all(file.stem.isdecimal() for file in files):
        return None
    numbers = {str(file): int(file.stem) for file in files}
    return numbers if len(set(numbers.values())) == len(files) else None


class _Table:
    """A text file that appears under its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self.file = open(self._temporary, "w", encoding="utf-8", newline="")  # noqa: SIM115

    def close(self) -> None:
        self.file.close()
        os.replace(self._temporary, self._path)


class _Json(_Table):
    """A list with one entry a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._count = 0

    def add(self, result: Result) -> None:
        self.file.write(",\n" if self._count else "[\n")
        self._count += 1
        if not isinstance(result, VideoResult):
            self.file.write(_within(_dumps(result.as_json(), indent=1)))
            return
        # frame after frame, as all of them together may be large
        self.file.write(_within(_dumps(result.head(), indent=1).removesuffix("\n}")))
        self.file.write(',\n  "frames": [')
        for i, frame in enumerate(result.frames_as_json()):
            self.file.write((",\n   " if i else "\n   ") + _dumps(frame))
        self.file.write("\n  ]\n }")

    def close(self) -> None:
        self.file.write("\n]\n" if self._count else "[]\n")
        super().close()


class _Coco(_Table):
    """What a COCO file holds, with scores. Images are numbered from 1, or by their names' numbers.

    The list of annotations is COCO's results format; images that are frames have ``frame`` and
    ``time`` too.
    """

    def __init__(self, path: Path, predictor: Predictor, numbers: dict[str, int] | None) -> None:
        super().__init__(path)
        self._predictor, self._numbers = predictor, numbers
        # they follow the annotations
        self._images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._image_count = self._count = 0
        self.file.write('{"annotations": [')

    def add(self, result: Result) -> None:
        for one in result.frames if isinstance(result, VideoResult) else [result]:
            self._add(one)

    def _add(self, one: Any) -> None:
        self._images.write(",\n" if self._image_count else "\n")
        self._image_count += 1
        number = self._numbers[one.file] if self._numbers else self._image_count
        size = {"width": one.width, "height": one.height}
        image = {"id": number, "file_name": one.file, **size, **one.place()}
        self._images.write(_dumps(image))
        for entry in one.to_coco(number):
            self.file.write(",\n" if self._count else "\n")
            self._count += 1
            if "keypoints" in entry:
                entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])
            self.file.write(_dumps({"id": self._count, **entry, "iscrowd": 0}))

    def close(self) -> None:
        self.file.write('\n],\n"images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self.file)
        self._images.close()
        self.file.write(f'\n],\n"categories": {_dumps(_categories(self._predictor), indent=1)}}}\n')
        super().close()


def _categories(predictor: Predictor) -> list[dict[str, Any]]:
    skeleton = getattr(predictor, "skeleton", None)
    points = {}
    if skeleton is not None:
        bones = [[a + 1, b + 1] for a, b in skeleton.bones]  # COCO counts from 1
        points = {"keypoints": list(skeleton.names), "skeleton": bones}
    names = enumerate(predictor.class_names)
    return [{"id": i, "name": name, **points} for i, name in names if not is_background(name)]


class _Csv(_Table):
    """One row an object; of classifiers a class that is on, of segmentation a class' share."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows = csv.DictWriter(self.file, COLUMNS, lineterminator="\n")
        self._rows.writeheader()

    def add(self, result: Result) -> None:
        for row in result.rows():
            self._rows.writerow({"file": result.file, **row})


def _within(text: str) -> str:
    """Return JSON one step further to the right."""
    return " " + text.replace("\n", "\n ")


def _dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
