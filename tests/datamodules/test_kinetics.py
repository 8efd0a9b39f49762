"""Kinetics: the order of the classes, flat files with the official tables, what is missing."""

import csv
import inspect

import pytest

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import KineticsDataModule, VideoFolderDataModule
from lightning_zoo.datamodules.kinetics import in_order, read_table
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import class_names

TABLES = "annotations/{split}.csv"
SMALL = {
    "workers": 0,
    "index_workers": 0,
    "train_resize": (18, 24),
    "train_crop": 16,
    "eval_resize": (18, 24),
    "eval_crop": 16,
}


@pytest.fixture
def root(tmp_path):
    KineticsDataModule.write_fake(tmp_path / "data", classes=3, images=3, size=32)
    return tmp_path / "data"


@pytest.fixture
def flat(root):
    """Move the videos out of their folders."""
    for split in ("train", "val"):
        for path in list((root / split).rglob("*.mp4")):
            path.rename(root / split / path.name)
            path.parent.rmdir()
    return root


def module(root, **options):
    data = KineticsDataModule(root=str(root), **{**SMALL, **options})
    data.configure(BatchPlan(4, 4, 1, 1), seed=1)
    return data


def labelled(data, split="val"):
    dataset = data.datasets[split]
    return dict(zip(dataset.names, dataset.labels.tolist(), strict=True))


# order of the classes


def test_the_published_order_is_sorted():
    published = list(class_names("kinetics400"))
    assert len(published) == 400
    assert published == sorted(published)
    assert [n.replace("_", " ") for n in sorted(n.replace(" ", "_") for n in published)] == (
        published
    )


def test_all_classes_take_the_published_names():
    published = list(class_names("kinetics400"))
    folders = [name.replace(" ", "_") for name in reversed(published)]
    assert in_order(folders) == published
    assert in_order(folders[1:]) == sorted(folders[1:])


def test_spaces_and_underscores_are_the_same(root):
    for name in ("train", "val"):
        assert {p.name for p in (root / name).iterdir()} == {f"moving square {i}" for i in range(3)}
    (root / "train" / "moving square 1").rename(root / "train" / "moving_square_1")
    data = module(root)
    data.setup("fit")
    assert data.class_names == ["moving square 0", "moving_square_1", "moving square 2"]
    for split in ("train", "val"):
        for name, label in labelled(data, split).items():
            assert name.split("/")[1].endswith(str(label))
    (root / "train" / "moving square 1").mkdir()
    with pytest.raises(ZooError, match=r"'moving.square.1' and 'moving.square.1' differ in spaces"):
        module(root).setup("fit")


def test_validation_alone(root):
    for path in sorted((root / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "train").rmdir()
    data = module(root)
    data.setup("validate")
    assert data.num_classes == 3
    with pytest.raises(ZooError, match=r"no folder .*train"):
        module(root).setup("fit")


# tables


def test_flat_files(flat):
    data = module(flat, annotations=TABLES)
    data.setup("fit")
    assert data.class_names == [f"moving square {i}" for i in range(3)]
    assert labelled(data, "train") == {
        f"train/train__000{i}_00000{i}_00001{i}.mp4": i for i in range(3)
    }
    assert labelled(data) == {f"val/val____000{i}_00000{i}_00001{i}.mp4": i for i in range(3)}
    assert len(next(iter(data.train_dataloader()))["id"]) == 4
    assert {n.split("/")[0] for b in data.test_dataloader() for n in b["id"]} == {"val"}


def test_tables_serve_folders_too(root):
    by_folder, by_table = module(root), module(root, annotations=TABLES)
    for data in (by_folder, by_table):
        data.setup("fit")
    assert by_folder.class_names == by_table.class_names
    assert labelled(by_folder, "train") == labelled(by_table, "train")


def test_flat_files_without_tables_are_explained(flat):
    with pytest.raises(ZooError) as caught:
        module(flat).setup("fit")
    assert "no class in" in str(caught.value)
    assert "--data.annotations" in str(caught.value)


def test_lost_files_are_counted(flat):
    (flat / "val" / "val____0001_000001_000011.mp4").unlink()
    data = module(flat, annotations=TABLES)
    with pytest.warns(
        UserWarning, match=r"1 of 3 videos of .*first is 'val____0001_000001_000011'"
    ):
        data.setup("validate")
    assert data.num_classes == 3
    assert sorted(labelled(data).values()) == [0, 2]
    for path in (flat / "val").iterdir():
        path.unlink()
    with pytest.raises(ZooError, match="none of the 3 videos of"):
        module(flat, annotations=TABLES).setup("validate")


def test_another_container(flat):
    path = flat / "val" / "val____0001_000001_000011.mp4"
    path.rename(path.with_suffix(".MOV"))
    data = module(flat, annotations=TABLES)
    data.setup("validate")
    assert "val/val____0001_000001_000011.MOV" in labelled(data)


def test_missing_tables(flat):
    (flat / "annotations" / "val.csv").unlink()
    with pytest.raises(ZooError, match=r"no table .*val.csv.* \(data.annotations"):
        module(flat, annotations=TABLES).setup("fit")
    (flat / "annotations" / "train.csv").unlink()
    with pytest.raises(ZooError, match=r"no table .*train.csv"):
        module(flat, annotations=TABLES).setup("fit")
    with pytest.raises(ZooError, match=r"annotations is 'a.csv'; expected \{split\} in it"):
        module(flat, annotations="a.csv")


def write_table(path, *rows, columns=("label", "youtube_id", "time_start", "time_end", "split")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_read_table(tmp_path):
    path = write_table(
        tmp_path / "a.csv",
        ("air drumming", "-3HEpYBzzSs", "49", "59", "train"),
        ("zumba", "ab_cdefghij", "1000.0", "1010.0", "train"),
        ("zumba", "ab_cdefghij", "1000", "1010", "train"),
    )
    assert read_table(path) == {
        "-3HEpYBzzSs_000049_000059": "air drumming",
        "ab_cdefghij_001000_001010": "zumba",
    }


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "has no row"),
        ([("a", "b", "x", "10", "val")], r"line 2: time_start and time_end are \['x', '10'\]"),
        ([("a", "b", "1")], "line 2: time_start and time_end are"),
        ([("", "b", "1", "2", "val")], "line 2: label is ''"),
        ([("a", "../b", "1", "2", "val")], "youtube_id '../b'"),
        ([("a", "b", "1", "2", "val"), ("c", "b", "1", "2", "val")], "line 3: b_000001_000002 is"),
    ],
)
def test_wrong_tables(tmp_path, rows, text):
    path = write_table(tmp_path / "a.csv", *rows)
    with pytest.raises(ZooError, match=text):
        read_table(path)


def test_a_table_of_other_columns(tmp_path):
    path = write_table(tmp_path / "a.csv", columns=("youtube_id", "time_start"))
    with pytest.raises(ZooError, match="has no column 'label'; it has youtube_id, time_start"):
        read_table(path)
    path.write_bytes(b"label,youtube_id,time_start,time_end\n\xff\xfe,b,1,2\n")
    with pytest.raises(ZooError, match="codec can't decode"):
        read_table(path)


def test_a_class_that_training_lacks(flat):
    write_table(flat / "annotations" / "val.csv", ("juggling", "x", "1", "2", "val"))
    with pytest.raises(ZooError, match="has the class 'juggling', which is not among the 3"):
        module(flat, annotations=TABLES).setup("validate")


def test_arguments_are_those_of_the_folders():
    """One list of arguments, but for the tables, the test split and what is written here."""
    ours = inspect.signature(KineticsDataModule).parameters
    theirs = inspect.signature(VideoFolderDataModule).parameters
    assert set(ours) ^ set(theirs) == {"annotations", "test"}
    differing = {n for n in ours if n in theirs and ours[n].default != theirs[n].default}
    assert differing == {"root", "short"}
