"""Tables of labels: a column of files, and one or more of labels.

Read are CSV, semicolons and tabs, with or without a byte-order mark. A label column holds one
label, or several with ``;`` ``|`` or ``,`` between (where the column's name is a plural, spaces
too); or each class has a column of 0 and 1. The split is a column, or the name of the table
(``train.csv``, ``val.csv``), or the first folder of the files.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lightning_zoo.batch import counted
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.class_folders import (
    IMAGES,
    Kind,
    alike,
    count_splits,
    listed,
    one_class,
    stranger,
)
from lightning_zoo.formats.files import (
    IMAGE_EXTENSIONS,
    files_below,
    has_extension,
    relative,
    split_folders,
    split_of,
)
from lightning_zoo.formats.index import SPLITS, DataIndex, Item, Problem, SplitName
from lightning_zoo.transforms.video_decode import VIDEO_EXTENSIONS

if TYPE_CHECKING:
    from lightning_zoo.formats.recognise import Options

FILE = ("file", "filename", "file_name", "image", "image_path", "path", "filepath", "file_path",
        "img", "img_path", "image_file", "image_name", "image_id", "video", "video_path",
        "video_name", "video_id", "clip", "id", "name")  # fmt: skip
SINGLE = ("label", "class", "category", "class_name", "label_name", "target", "tag")
PLURAL = ("labels", "classes", "categories", "tags")
SPLIT = ("split", "set", "subset", "fold", "partition")
BOXES = frozenset(
    {"xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "bbox", "x_min", "y_min"}
)
SUFFIXES = (".csv", ".tsv")
ONES = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
BASES = ("images", "image", "imgs", "img", "photos", "videos", "clips", "data")
HEAD = 65536  # bytes that recognising looks at
ROWS = replace(IMAGES, format="csv")


@dataclass(frozen=True)
class Table:
    """A table as it is in its file.

    Attributes:
        path: The file.
        columns: Names of the columns as they are written.
        rows: Number of the line where each row begins, and its cells.
        encoding: Encoding of the text.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    encoding: str = "utf-8"

    def find(self, names: Sequence[str]) -> int | None:
        """Return the place of the first of those names that is a column; case does not count."""
        plain = [re.sub(r"[\s-]+", "_", c.strip().lower()) for c in self.columns]
        return next((plain.index(name) for name in names if name in plain), None)

    @property
    def file(self) -> int | None:
        """Place of the column of files."""
        return self.find(FILE)

    @property
    def has_boxes(self) -> bool:
        """Whether its rows are boxes: a corner is a column."""
        return self.find(sorted(BOXES)) is not None

    @property
    def label(self) -> int | None:
        """Place of the column of labels."""
        return self.find((*SINGLE, *PLURAL))

    def one_hot(self) -> list[int]:
        """Return the places of the columns of 0 and 1; a wrong cell now and then is allowed."""
        other = {self.file, self.find(SPLIT)}
        return [
            i
            for i in range(len(self.columns))
            if i not in other
            and sum(len(r) > i and r[i].strip() in ONES for _, r in self.rows)
            >= max(1.0, 0.9 * len(self.rows))
        ]


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says: where it stands, the file and its split, and its labels."""

    where: str
    file: str
    split: SplitName
    labels: tuple[str, ...]


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder holds a table of images, or None."""
    return recognise_tables(root, annotations, ROWS)


def read(root: Path, options: Options) -> DataIndex:
    """Return the images of a table, or of one for each split.

    Raises:
        ZooError: If there is no table, it is not clear which, or it lacks a column.
    """
    return read_tables(root, options.annotations, ROWS)


def recognise_tables(root: Path, annotations: Path | None, kind: Kind) -> str | None:
    """Return why the folder holds a table of images, or of videos; None where it does not."""
    names = []
    for path in [annotations] if annotations is not None else _files(root):
        try:
            table = parse(path, most=HEAD)
        except ZooError:
            continue
        if _is_of(table, root, kind):
            names.append(path.name)
    if not names:
        return None
    word = "a table" if len(names) == 1 else "tables"
    return f"{word} of {kind.noun}s and labels ({listed(sorted(names), 4)})"


def read_tables(root: Path, annotations: Path | None, kind: Kind) -> DataIndex:
    """Return what the tables of a folder say.

    Raises:
        ZooError: If there is none, it is not clear which, or it lacks a column.
    """
    tables = _choose(root, annotations, kind)
    problems: list[Problem] = []
    decisions: list[str] = []
    finder = Finder(root, kind, tables)
    rows: list[Row] = []
    forms = [_labels_of(table, kind) for table in tables]
    for table, form in zip(tables, forms, strict=True):
        if table.encoding not in ("utf-8", "utf-16"):
            problems.append(
                Problem(
                    "note", "table is not UTF-8", table.path.name,
                    f"it was read as {table.encoding}", "save it as UTF-8 if names look wrong",
                )
            )  # fmt: skip
        said = table.columns[form.column] if form.column is not None else "columns of 0 and 1"
        decisions.append(f"{_name(table.path, root)}: files in {table.columns[form.file]!r}, "
                         f"labels in {said!r}{form.how}")  # fmt: skip
        rows += _rows(table, form, root, finder, kind, problems, decisions)
    decisions += finder.decisions()
    multilabel = any(form.separator is not None or form.several for form in forms)
    rows = _without_repeats(rows, problems, multilabel)
    if not multilabel:
        kept = []
        for row in rows:
            if row.labels:
                kept.append(row)
            else:
                problems.append(_problem(row.where, "no label", f"{row.file} has no label",
                                         "write its label"))  # fmt: skip
        rows = kept
    if not rows:
        first = f"; the first problem: {problems[0].where}: {problems[0].what}" if problems else ""
        raise ZooError(
            f"no row of {_name(tables[0].path, root)} names {_a(kind.noun)} of {str(root)!r} with "
            f"a label{first}; the files are looked for beside the table and in images/"
        )
    classes = _classes(rows, forms)
    items, strangers = _items(rows, classes, kind)
    unlabelled = sorted(finder.names - finder.found)
    used = [split for split in SPLITS if any(i.split == split for i in items)]
    decisions.append(
        f"{counted(len(classes), 'class', 'es')}: {listed(classes)}"
        + (f"; {_a(kind.noun)} may have several" if multilabel else "")
    )
    decisions.append(count_splits(items, used, kind.noun))
    if unlabelled:
        problems.append(
            Problem(
                "note", f"{kind.noun}s without a row", unlabelled[0],
                f"{counted(len(unlabelled), kind.noun)} of the folder "
                f"{'is' if len(unlabelled) == 1 else 'are'} in no table",
                "add rows for them if they have labels",
            )
        )  # fmt: skip
    return DataIndex(
        root=root,
        format=kind.format,
        task=kind.task,
        classes=tuple(classes),
        items=tuple(items),
        decisions=tuple(decisions),
        problems=(*problems, *strangers, *alike(classes),
                  *([] if multilabel else one_class(classes, kind.noun))),
        multilabel=multilabel,
        unlabelled=tuple(unlabelled),
    )  # fmt: skip


def parse(path: Path, *, most: int | None = None) -> Table:
    """Return a table's columns and rows.

    Args:
        path: The file.
        most: Bytes to read; the last row may then be cut off, and is left out.

    Raises:
        ZooError: If it is no text, or has no line.
    """
    try:
        with path.open("rb") as file:
            data = file.read() if most is None else file.read(most)
    except OSError as error:
        raise ZooError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    if most is not None and len(data) == most:
        data = data[: data.rfind(b"\n") + 1]
    text, encoding = _decode(data)
    if "\0" in text:
        raise ZooError(f"{str(path)!r} is no text; expected a table of files and labels")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        before = 0
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((before + 1, tuple(cells)))
            before = reader.line_num
    except csv.Error as error:
        raise ZooError(f"{str(path)!r}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ZooError(f"{str(path)!r} is empty; expected a line of column names and rows below")
    return Table(path, rows[0][1], tuple(rows[1:]), encoding)


class Finder:
    """Finds the files that the rows of tables name.

    They are looked for in the table's folder and the root, there also below ``images/`` and the
    folder of the split; then anywhere by their name alone, with or without extension, if there is
    one of that name.

    Attributes:
        names: All files of the kind, relative to the root.
        found: Those that rows have named, good and bad.
    """

    def __init__(self, root: Path, kind: Kind, tables: Sequence[Table]) -> None:
        self.names = set(files_below(root, kind.extensions))
        self.found: set[str] = set()
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_name[PurePosixPath(name).name.lower()].append(name)
            self._by_stem[PurePosixPath(name).stem.lower()].append(name)
        folders = {p.name: p.name.lower() for p in root.iterdir() if p.is_dir()}
        bases = [name for name, plain in folders.items() if plain in BASES]
        self._bases: dict[str, list[str]] = {}
        splits = [("", split_folders(root)), *((b, split_folders(root / b)) for b in bases)]
        for split in SPLITS:
            inner = [f"{base}/{name}".lstrip("/") for base, found in splits
                     for name, meant in found.items() if meant == split]  # fmt: skip
            deeper = [f"{i}/{b}" for i in inner for b in BASES]
            self._bases[split] = ["", *bases, *inner, *deeper]
        self._beside = {
            t.path: relative(t.path.parent, root).removeprefix(".")
            if t.path.is_relative_to(root)
            else ""
            for t in tables
        }
        self._extensions = kind.extensions
        self._how: Counter[str] = Counter()

    def __call__(self, table: Path, text: str, split: SplitName) -> str | None:
        """Return the file that a cell means, relative to the root; None where there is none."""
        value = re.sub(r"^(\./)+", "", text.replace("\\", "/"))
        for base in (self._beside[table], *self._bases[split]):
            name = f"{base}/{value}" if base else value
            if name in self.names:
                self.found.add(name)
                return name
        plain = PurePosixPath(value).name.lower()
        by_name = self._by_name.get(plain, [])
        if len(by_name) == 1:
            self._how["by name, not where the table says"] += 1
            self.found.add(by_name[0])
            return by_name[0]
        stem = plain.rpartition(".")[0] if has_extension(plain, self._extensions) else plain
        by_stem = self._by_stem.get(stem, [])
        if not by_name and len(by_stem) == 1:
            self._how["by name without the extension"] += 1
            self.found.add(by_stem[0])
            return by_stem[0]
        return None

    def decisions(self) -> list[str]:
        """Return how files were found that do not lie where the table says."""
        return [f"{n} {'file was' if n == 1 else 'files were'} found {how}" for how, n in
                self._how.items()]  # fmt: skip


@dataclass(frozen=True)
class _Form:
    """Where a table has what: places of columns, and what stands between labels."""

    file: int
    split: int | None
    column: int | None
    one_hot: tuple[int, ...]
    names: tuple[str, ...]  # of the columns of 0 and 1
    separator: str | None
    several: bool  # columns of 0 and 1 where a row has none or several

    @property
    def how(self) -> str:
        if self.column is None:
            return f" ({', '.join(self.names[:4])}{' ...' if len(self.names) > 4 else ''})"
        if self.separator is None:
            return ""
        said = "a space" if self.separator == " " else repr(self.separator)
        return f", with {said} between several"


def _labels_of(table: Table, kind: Kind) -> _Form:
    """Return where the table has its labels.

    Raises:
        ZooError: If it has none.
    """
    file, split, label = table.file, table.find(SPLIT), table.label
    columns = ", ".join(c.strip() for c in table.columns)
    if file is None:
        raise ZooError(
            f"{str(table.path)!r} has no column of files; expected one named file, filename, "
            f"{kind.noun} or path, and it has the columns {columns}"
        )
    if table.has_boxes:
        raise ZooError(
            f"{str(table.path)!r} holds boxes (its columns are {columns}), and boxes are read as "
            "COCO, YOLO or VOC; convert it to one of them"
        )
    if label is not None:
        plural = table.find(PLURAL) == label
        cells = [_plain(row[label]) for _, row in table.rows if len(row) > label]
        return _Form(file, split, label, (), (), find_separator(cells, plural=plural), False)
    ones = table.one_hot()
    if not ones:
        raise ZooError(
            f"{str(table.path)!r} has no column of labels; expected one named label, class, "
            "category, labels or tags, or a column of 0 and 1 for each class, and it has the "
            f"columns {columns}"
        )
    sums = {
        sum(ONES.get(r[i].strip(), 0) for i in ones) for _, r in table.rows if len(r) > ones[-1]
    }
    names = tuple(table.columns[i].strip() for i in ones)
    return _Form(file, split, None, tuple(ones), names, None, sums != {1})


def find_separator(cells: Iterable[str], *, plural: bool) -> str | None:
    """Return what stands between several labels in a column, None where each cell is one label.

    Args:
        cells: The column's cells.
        plural: Whether the column's name says that there may be several.
    """
    distinct = set(cells)
    for separator in (";", "|"):
        if any(separator in cell for cell in distinct):
            return separator
    if any("," in cell for cell in distinct) and (plural or not any(", " in c for c in distinct)):
        return ","
    words = {word for cell in distinct for word in cell.split()}
    # combinations of few words, where names of several words would make more words than names
    if plural and any(" " in cell.strip() for cell in distinct) and len(words) < len(distinct):
        return " "
    return None


def _rows(
    table: Table,
    form: _Form,
    root: Path,
    finder: Finder,
    kind: Kind,
    problems: list[Problem],
    decisions: list[str],
) -> list[Row]:
    """Return the good rows of a table; the others become problems."""
    name = _name(table.path, root)
    own = split_of(table.path.stem)
    splits = _splits(table, form, own, decisions)
    rows = []
    for line, cells in table.rows:
        where = f"{name} line {line}"
        if len(cells) != len(table.columns) and any(c.strip() for c in cells[len(table.columns) :]):
            problems.append(_problem(where, "row of another length",
                                     f"it has {len(cells)} cells for {len(table.columns)} columns",
                                     "quote cells that hold the delimiter"))  # fmt: skip
            continue
        cells = (*cells, *[""] * (len(table.columns) - len(cells)))
        text = cells[form.file].strip()
        if not text:
            problems.append(_problem(where, "row without a file", "its file is empty",
                                     "write the file, or remove the row"))  # fmt: skip
            continue
        split = own or "train"
        if form.split is not None:
            value = cells[form.split].strip().lower()
            if value not in splits:
                problems.append(_problem(where, "unknown split",
                                         f"{text} has the split {cells[form.split]!r}",
                                         "write train, val or test"))  # fmt: skip
                finder(table.path, text, "train")
                continue
            split = splits[value]
        elif splits:
            split = splits[text.replace("\\", "/").removeprefix("./").partition("/")[0].lower()]
        file = finder(table.path, text, split)
        if file is None:
            problems.append(_problem(where, "file is missing",
                                     f"there is no {kind.noun} {text!r} in the folder",
                                     "put it there, or remove the row"))  # fmt: skip
            continue
        if form.column is not None:
            labels = _split(_plain(cells[form.column]), form.separator)
        else:
            bad = [i for i in form.one_hot if cells[i].strip() not in ONES]
            if bad:
                problems.append(_problem(where, "cell is not 0 or 1",
                                         f"{table.columns[bad[0]].strip()} is {cells[bad[0]]!r}",
                                         "write 0 or 1"))  # fmt: skip
                continue
            labels = tuple(n for n, i in zip(form.names, form.one_hot, strict=True)
                           if ONES[cells[i].strip()])  # fmt: skip
        rows.append(Row(where, file, split, labels))
    return rows


def _splits(
    table: Table, form: _Form, own: SplitName | None, decisions: list[str]
) -> dict[str, SplitName]:
    """Return what the values of the split column mean, or the first folders of the files."""
    if form.split is None:
        heads = {
            cells[form.file].strip().replace("\\", "/").removeprefix("./").partition("/")[0].lower()
            for _, cells in table.rows
            if len(cells) > form.file and cells[form.file].strip()
        }
        found = {head: split_of(head) for head in heads}
        if own is None and all(found.values()):
            decisions.append("the first folder of each file is its split")
            return {head: split for head, split in found.items() if split is not None}
        return {}
    values = {c[form.split].strip().lower() for _, c in table.rows if len(c) > form.split}
    numbers = sorted(v for v in values if v.isdecimal())
    if len(numbers) > 1 and not any(map(split_of, values)):
        decisions.append(
            f"{table.columns[form.split].strip()} holds numbers: {numbers[0]} is validation, the "
            "others are training"
        )
        return {v: "val" if v == numbers[0] else "train" for v in numbers}
    return {value: split for value in values if (split := split_of(value)) is not None}


def _without_repeats(rows: list[Row], problems: list[Problem], multilabel: bool) -> list[Row]:
    """Return the rows without files that stand in several; of those that agree, the first."""
    first: dict[str, Row] = {}
    torn: set[str] = set()
    for row in rows:
        known = first.setdefault(row.file, row)
        if known is row:
            continue
        if {*known.labels} != {*row.labels}:
            torn.add(row.file)
            problems.append(_problem(
                row.where, "conflicting labels",
                f"{row.file} is {_said(row.labels)} here and {_said(known.labels)} in "
                f"{known.where}; it was left out",
                "keep the right row" if multilabel
                else "keep the right row; several labels stand in one row, as a;b",
            ))  # fmt: skip
        elif known.split != row.split:
            problems.append(_problem(
                row.where, "file in two splits",
                f"{row.file} is in {row.split} here and in {known.split} in {known.where}, which "
                "was kept",
                "keep one of the rows",
            ))  # fmt: skip
        else:
            problems.append(Problem(
                "warning", "duplicate row", row.where,
                f"{row.file} stands in {known.where} already", "remove the row",
            ))  # fmt: skip
    return [row for file, row in first.items() if file not in torn]


def _classes(rows: Sequence[Row], forms: Sequence[_Form]) -> list[str]:
    """Return the classes of training, sorted; numbers by value."""
    if all(form.column is None for form in forms):
        return list(forms[0].names)
    train = [row for row in rows if row.split == "train"] or rows
    names = {label for row in train for label in row.labels}
    return sorted(names, key=lambda n: (0, int(n), n) if n.isdecimal() else (1, 0, n))


def _items(
    rows: Sequence[Row], classes: Sequence[str], kind: Kind
) -> tuple[list[Item], list[Problem]]:
    place = {name: i for i, name in enumerate(classes)}
    items, strangers = [], defaultdict(list)
    for row in rows:
        unknown = [label for label in row.labels if label not in place]
        if unknown:
            strangers[unknown[0], row.split].append(row.file)
            continue
        labels = tuple(sorted({place[label] for label in row.labels}))
        source = row.where.rpartition(" line ")[0]
        items.append(Item(row.file, row.split, labels=labels, source=source))
    items.sort(key=lambda i: (SPLITS.index(i.split), i.file))
    return items, [
        stranger(name, split, files, classes, kind.noun)
        for (name, split), files in strangers.items()
    ]


def _choose(root: Path, annotations: Path | None, kind: Kind) -> list[Table]:
    """Return the tables that are meant.

    Raises:
        ZooError: If there is none, or it is not clear which.
    """
    if annotations is not None:
        return [parse(annotations)]
    paths = _files(root)
    if not paths:
        raise ZooError(
            f"no table (.csv, .tsv) in {str(root)!r}; expected one with a column of files and one "
            "of labels"
        )
    heads = {}
    for path in paths:
        try:
            heads[path] = parse(path, most=HEAD)
        except ZooError:
            if len(paths) == 1:
                raise
    fitting = [path for path, head in heads.items() if _is_of(head, root, kind)]
    named = [path for path in fitting if split_of(path.stem) is not None]
    if any(split_of(path.stem) == "train" for path in named):
        fitting = named
    elif len(fitting) > 1:
        names = " and ".join(_name(p, root) for p in fitting[:4])
        raise ZooError(
            f"{str(root)!r} holds several tables ({names}); name one by --annotations "
            f"{_name(fitting[0], root)}"
        )
    # without one that fits, the first tells what it lacks
    return [parse(path) for path in fitting or paths[:1]]


def _files(root: Path) -> list[Path]:
    """Return the tables of a folder, sorted."""
    return sorted(
        p for p in root.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )  # fmt: skip


def _is_of(table: Table, root: Path, kind: Kind) -> bool:
    """Tell whether the rows of a table name files of the kind, with labels."""
    place = table.file
    if place is None or table.has_boxes or (table.label is None and not table.one_hot()):
        return False
    cells = [row[place].strip() for _, row in table.rows[:100] if len(row) > place]
    if not any(cells):
        return False
    images = sum(has_extension(c, IMAGE_EXTENSIONS) for c in cells)
    videos = sum(has_extension(c, VIDEO_EXTENSIONS) for c in cells)
    if images or videos:
        return (videos > images) == (kind.noun == "video")
    # names without extension: what lies there decides
    stems = {PurePosixPath(name).stem for name in files_below(root, kind.extensions)}
    return any(PurePosixPath(c.replace("\\", "/")).name in stems for c in cells)


def _decode(data: bytes) -> tuple[str, str]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace"), "utf-16"
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), "Windows-1252"


def _delimiter(text: str) -> str:
    """Return what stands between the cells: what the header has, the most of them."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", header)
    return max((",", ";", "\t"), key=outside.count)


def _plain(cell: str) -> str:
    """Return a cell without the brackets and quotes of a written list."""
    text = cell.strip()
    if text.startswith("[") and text.endswith("]"):
        return ";".join(part.strip().strip("'\"") for part in text[1:-1].split(","))
    return text


def _split(text: str, separator: str | None) -> tuple[str, ...]:
    parts = [text] if separator is None else text.split(separator)
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _said(labels: Sequence[str]) -> str:
    return " and ".join(labels) or "without a label"


def _problem(where: str, kind: str, what: str, fix: str) -> Problem:
    return Problem("error", kind, where, what, fix)


def _name(path: Path, root: Path) -> str:
    return relative(path, root) if path.is_relative_to(root) else str(path)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
