"""Tables of labels: columns, delimiters, several labels, splits, files, and bad rows by line."""

import pytest

from lightning_zoo.errors import ZooError
from lightning_zoo.formats import csv_table, read_data, video_csv
from lightning_zoo.formats.csv_table import find_separator

PLAIN = [("a.jpg", "ant"), ("b.jpg", "bee"), ("c.jpg", "ant")]


def write(root, rows, *, columns="file,label", name="labels.csv", images="images/", extra=()):
    """Write a table, and an empty file for each image in it."""
    text = "\n".join([columns, *(",".join(row) for row in rows)]) + "\n"
    (root / name).write_text(text, encoding="utf-8")
    for file in {*(row[0] for row in rows), *extra} - {""}:
        (root / images / file).parent.mkdir(parents=True, exist_ok=True)
        (root / images / file).write_bytes(b"")
    return root


def read(root, **options):
    return read_data(root, val_share=0, **options)


def found(index):
    return {
        (i.split, i.file.rpartition("/")[2]): [index.classes[n] for n in i.labels]
        for i in index.items
    }


def problems(index):
    return [(p.severity, p.kind, p.where) for p in index.problems]


def test_plain(tmp_path):
    index = read(write(tmp_path, PLAIN))
    assert (index.format, index.task, index.classes) == ("csv", "classification", ("ant", "bee"))
    assert [(i.file, i.labels, i.source) for i in index.items] == [
        ("images/a.jpg", (0,), "labels.csv"),
        ("images/b.jpg", (1,), "labels.csv"),
        ("images/c.jpg", (0,), "labels.csv"),
    ]
    assert not index.problems
    assert index.decisions == (
        "format csv: the folder holds a table of images and labels (labels.csv)",
        "labels.csv: files in 'file', labels in 'label'",
        "2 classes: ant, bee",
        "splits as found: train (3 images)",
    )
    assert read(tmp_path / "labels.csv").items == index.items


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("columns", ["Image Path,Class", "filename,category", "path,label_name"])
def test_spellings(tmp_path, delimiter, columns, encoding):
    write(tmp_path, [("a.jpg", "käfer"), ("b.jpg", "bee")], columns=columns)
    path = tmp_path / "labels.csv"
    text = path.read_text("utf-8").replace(",", delimiter).replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))
    assert read(tmp_path).classes == ("bee", "käfer")


def test_not_utf_8(tmp_path):
    write(tmp_path, [("a.jpg", "käfer"), ("b.jpg", "bee")])
    path = tmp_path / "labels.csv"
    path.write_bytes(path.read_text("utf-8").encode("cp1252"))
    index = read(tmp_path)
    assert index.classes == ("bee", "käfer")
    assert problems(index) == [("note", "table is not UTF-8", "labels.csv")]


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("label", ["a;b", "b", ""], [["a", "b"], ["b"], []]),
        ("tag", ["a | b", "b", "c"], [["a", "b"], ["b"], ["c"]]),
        ("label", ['"a,b"', "b", "c"], [["a", "b"], ["b"], ["c"]]),
        ("tags", ["a b", "b c", "c a", "a"], [["a", "b"], ["b", "c"], ["a", "c"], ["a"]]),
        ("labels", ["\"['a', 'b']\"", "['b']", "[]"], [["a", "b"], ["b"], []]),
    ],
)
def test_several_labels(tmp_path, column, cells, expected):
    rows = [(f"{i}.jpg", cell) for i, cell in enumerate(cells)]
    index = read(write(tmp_path, rows, columns=f"file,{column}"))
    assert index.multilabel
    assert [labels for _, labels in sorted(found(index).items())] == expected
    assert not index.problems


def test_names_of_several_words_are_one_label():
    dogs = ["golden retriever", "black poodle", "grey wolf hound"]
    assert find_separator(dogs, plural=True) is None
    assert find_separator(["Smith, Ann", "Miller, Ben"], plural=False) is None


def test_columns_of_0_and_1(tmp_path):
    rows = [("a.jpg", "1", "0", "7"), ("b.jpg", "1", "1", "8"), ("c.jpg", "0", "0", "9")]
    index = read(write(tmp_path, rows, columns="file,ant,bee,patient"))
    assert index.multilabel
    assert index.classes == ("ant", "bee")
    assert [labels for _, labels in sorted(found(index).items())] == [["ant"], ["ant", "bee"], []]
    assert "labels.csv: files in 'file', labels in 'columns of 0 and 1' (ant, bee)" in (
        index.decisions
    )


def test_one_1_in_each_row_is_one_label(tmp_path):
    rows = [("a.jpg", "1.0", "0.0"), ("b.jpg", "0.0", "1.0")]
    index = read(write(tmp_path, rows, columns="file,ant,bee"))
    assert not index.multilabel
    assert found(index) == {("train", "a.jpg"): ["ant"], ("train", "b.jpg"): ["bee"]}


@pytest.mark.parametrize("column", ["split", "Set", "subset"])
def test_split_column(tmp_path, column):
    rows = [(*row, s) for row, s in zip(PLAIN, ("Training", "valid", "test"), strict=True)]
    rows.append(("d.jpg", "bee", "train"))
    index = read(write(tmp_path, rows, columns=f"file,label,{column}"))
    assert set(found(index)) == {
        ("train", "a.jpg"), ("train", "d.jpg"), ("val", "b.jpg"), ("test", "c.jpg")
    }  # fmt: skip


def test_folds(tmp_path):
    rows = [(f"{i}.jpg", "ab"[i % 2], str(i // 2)) for i in range(6)]
    index = read(write(tmp_path, rows, columns="file,label,fold"))
    assert [i.file for i in index.of("val")] == ["images/0.jpg", "images/1.jpg"]
    assert "fold holds numbers: 0 is validation, the others are training" in index.decisions


def test_a_table_for_each_split(tmp_path):
    write(tmp_path, PLAIN, name="train.csv", images="train/")
    write(tmp_path, [("a.jpg", "bee")], name="val.csv", images="val/")
    index = read(tmp_path)
    assert [(i.split, i.file) for i in index.items] == [
        ("train", "train/a.jpg"), ("train", "train/b.jpg"), ("train", "train/c.jpg"),
        ("val", "val/a.jpg"),
    ]  # fmt: skip


def test_splits_from_the_first_folder(tmp_path):
    rows = [("train/a.jpg", "ant"), ("train/b.jpg", "bee"), ("val/a.jpg", "ant")]
    index = read(write(tmp_path, rows, images=""))
    assert [i.split for i in index.items] == ["train", "train", "val"]
    assert "the first folder of each file is its split" in index.decisions


def test_files_found_elsewhere(tmp_path):
    rows = [("C:\\pics\\a.jpg", "ant"), ("b", "bee"), ("./c.jpeg", "ant")]
    write(tmp_path, rows)
    for old in tmp_path.rglob("*.jp*g"):
        old.unlink()
    for name in ("deep/er/a.jpg", "deep/b.png", "images/c.JPG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    index = read(tmp_path, format="csv")
    assert [i.file for i in index.items] == ["deep/b.png", "deep/er/a.jpg", "images/c.JPG"]
    assert "1 file was found by name, not where the table says" in index.decisions
    assert not index.problems


def test_bad_rows_by_line(tmp_path):
    rows = [
        *PLAIN,
        ("", "ant"),
        ("gone.jpg", "ant"),
        ("a.jpg", "ant"),
        ("b.jpg", "ant"),
        ("d.jpg", ""),
        ("e.jpg", "bee", "7"),
        ("f.jpg", "bee"),
    ]
    write(tmp_path, rows, extra=["loose.jpg"])
    (tmp_path / "images/gone.jpg").unlink()
    index = read(tmp_path)
    assert set(found(index)) == {("train", "a.jpg"), ("train", "c.jpg"), ("train", "f.jpg")}
    assert problems(index) == [
        ("error", "row without a file", "labels.csv line 5"),
        ("error", "file is missing", "labels.csv line 6"),
        ("error", "row of another length", "labels.csv line 10"),
        ("warning", "duplicate row", "labels.csv line 7"),
        ("error", "conflicting labels", "labels.csv line 8"),
        ("error", "no label", "labels.csv line 9"),
        ("note", "images without a row", "images/e.jpg"),
    ]
    conflict = index.problems[4]
    assert conflict.what == (
        "images/b.jpg is ant here and bee in labels.csv line 3; it was left out"
    )
    assert "as a;b" in conflict.fix
    assert index.unlabelled == ("images/e.jpg", "images/loose.jpg")


def test_lines_are_those_of_the_file(tmp_path):
    write(tmp_path, [('"a.jpg"', '"ant\nblack"'), ("b.jpg", "bee")])
    (tmp_path / "images/a.jpg").write_bytes(b"")
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("\ngone.jpg,ant\n")
    assert problems(read(tmp_path))[0] == ("error", "file is missing", "labels.csv line 6")


def test_bad_splits(tmp_path):
    rows = [("a.jpg", "ant", "train"), ("b.jpg", "bee", "training"), ("c.jpg", "ant", "trian"),
            ("a.jpg", "ant", "val"), ("d.jpg", "wasp", "val"), ("e.jpg", "bee", "val")]  # fmt: skip
    index = read(write(tmp_path, rows, columns="file,label,split"))
    assert set(found(index)) == {("train", "a.jpg"), ("train", "b.jpg"), ("val", "e.jpg")}
    assert problems(index) == [
        ("error", "unknown split", "labels.csv line 4"),
        ("error", "file in two splits", "labels.csv line 5"),
        ("error", "class without training", "images/d.jpg"),
    ]


def test_bad_cell(tmp_path):
    rows = [(f"{i}.jpg", str(i % 2), "1") for i in range(12)] + [("x.jpg", "yes", "1")]
    index = read(write(tmp_path, rows, columns="file,ant,bee"))
    assert len(index.items) == 12
    assert problems(index) == [("error", "cell is not 0 or 1", "labels.csv line 14")]
    assert index.problems[0].what == "ant is 'yes'"


@pytest.mark.parametrize(
    ("columns", "row", "text"),
    [
        ("file,colour", "a.jpg,red", "no column of labels.*it has the columns file, colour"),
        ("photo,label", "a.jpg,ant", "no column of files.*it has the columns photo, label"),
        ("filename,class,xmin,ymin,xmax,ymax", "a.jpg,ant,1,2,3,4", "holds boxes .*COCO, YOLO"),
        ("file,label", "gone.jpg,ant", "no row of labels.csv names an image .*line 2: there is no "
         "image 'gone.jpg'"),
        ("file,label", "a.jpg,", "no row of labels.csv names an image .*a.jpg has no label"),
    ],
)  # fmt: skip
def test_refused(tmp_path, columns, row, text):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(b"")
    (tmp_path / "labels.csv").write_text(f"{columns}\n{row}\n")
    with pytest.raises(ZooError, match=text):
        read(tmp_path, format="csv")


def test_no_table(tmp_path):
    write(tmp_path, PLAIN)
    (tmp_path / "labels.csv").write_bytes(b"")
    with pytest.raises(ZooError, match=r"labels.csv' is empty; expected a line of column names"):
        read(tmp_path, format="csv")
    (tmp_path / "labels.csv").write_bytes(b"\x89PNG\x00\x01")
    assert csv_table.recognise(tmp_path) is None
    with pytest.raises(ZooError, match=r"is no text; expected a table of files and labels"):
        read(tmp_path, format="csv")
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(ZooError, match=r"no table \(.csv, .tsv\) in"):
        read(tmp_path, format="csv")


def test_several_tables(tmp_path):
    write(tmp_path, PLAIN)
    write(tmp_path, PLAIN[:2], name="more.csv")
    with pytest.raises(
        ZooError, match=r"several tables \(labels.csv and more.csv\); .* --annotations labels.csv"
    ):
        read(tmp_path)
    assert len(read(tmp_path, annotations="more.csv").items) == 2


def test_one_class(tmp_path):
    index = read(write(tmp_path, [("a.jpg", "ant"), ("b.jpg", "ant")]))
    assert problems(index) == [("error", "one class", "ant")]


def test_numbers_in_their_order(tmp_path):
    index = read(write(tmp_path, [(f"{n}.jpg", str(n)) for n in (10, 9, 2)]))
    assert index.classes == ("2", "9", "10")


def test_videos(tmp_path):
    rows = [("a.mp4", "run", "train"), ("b.mp4", "sit", "train"), ("c.avi", "run", "val")]
    write(tmp_path, rows, columns="video,label,split", images="videos/")
    assert csv_table.recognise(tmp_path) is None
    assert video_csv.recognise(tmp_path) == "a table of videos and labels (labels.csv)"
    index = read(tmp_path)
    assert (index.format, index.task, len(index.of("val"))) == ("video_csv", "video", 1)
    write(tmp_path, [("a.mp4", "run;sit")], columns="video,labels", images="videos/")
    with pytest.raises(ZooError, match=r"several labels, or none, .* expected one label a video"):
        read(tmp_path)
