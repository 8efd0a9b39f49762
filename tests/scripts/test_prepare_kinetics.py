"""The archives' layout, built small, and archives that mean harm."""

import importlib.util
import io
import tarfile
from pathlib import Path

import pytest

from lightning_zoo.datamodules import KineticsDataModule

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_kinetics.py"
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def load():
    spec = importlib.util.spec_from_file_location("prepare_kinetics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prep = load()


def tar_of(*files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data, *fields in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in (fields[0] if fields else {}).items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a folder of archives, two a split, in both ways of naming them."""
    made = tmp_path_factory.mktemp("made")
    KineticsDataModule.write_fake(made, classes=3, images=6, size=32)
    folder = tmp_path_factory.mktemp("archives")
    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    for split in ("train", "val"):
        text = (made / "annotations" / f"{split}.csv").read_bytes()
        (folder / "annotations" / f"{split}.csv").write_bytes(text)
        videos = sorted((made / split).rglob("*.mp4"), key=lambda path: path.name)
        for part in (0, 1):
            files = [(f"./{p.name}", p.read_bytes()) for p in videos[part::2]]
            name = f"val/part_{part}.tar" if split == "val" else f"k400_train_part_{part}.tar.gz"
            mode = "w" if split == "val" else "w:gz"
            (folder / name).write_bytes(tar_of(("./", b"", {"type": tarfile.DIRTYPE}), *files,
                                               ("list.txt", b"hello"), mode=mode))  # fmt: skip
    return folder


@pytest.fixture
def archives(source, tmp_path):
    folder = tmp_path / "archives"
    for path in source.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return folder


def videos(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*.mp4"))


TRAIN = [f"train/moving_square_{i % 3}/train__000{i}_00000{i}_00001{i}.mp4" for i in range(6)]


def test_both_splits(archives, tmp_path, capsys):
    root = tmp_path / "kinetics"
    command = ["--archives", str(archives), "--root", str(root), "--workers", "0"]
    assert prep.main(command) == 0
    assert [name for name in videos(root) if name.startswith("train")] == sorted(TRAIN)
    assert len(videos(root)) == 12
    out = capsys.readouterr().out
    assert "train 2 of 2 k400_train_part_1.tar.gz: 3 videos" in out
    assert "val: 6 of 6 videos, 3 classes" in out
    assert f"fit --recipe r3d_18 --data.root {root}\n" in out
    assert not list(root.glob("*.txt"))
    data = KineticsDataModule(root=str(root), workers=0)
    data.setup("fit")
    assert data.class_names == [f"moving_square_{i}" for i in range(3)]
    assert data.num_train_samples == 30
    assert prep.main(command) == 0
    assert "is there" in capsys.readouterr().out


def test_a_killed_run_continues(archives, tmp_path, monkeypatch, capsys):
    root = tmp_path / "root"
    write, calls = prep.write, []

    def dies(content, size, path):
        if len(calls) == 4:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        calls.append(path)
        write(content, size, path)

    monkeypatch.setattr(prep, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        prep.prepare(archives, root, workers=None)
    assert not (root / "train").exists()
    assert len(videos(root)) == 4
    old = {name: (root / name).stat().st_ino for name in videos(root)}
    monkeypatch.setattr(prep, "write", write)
    capsys.readouterr()
    prep.prepare(archives, root, only="train", workers=None)
    assert videos(root) == sorted(TRAIN)
    for name, inode in old.items():
        assert (root / name.replace(".train.partial", "train")).stat().st_ino == inode
    out = capsys.readouterr().out
    assert "train 2 of 2" in out
    assert "train 1 of 2" not in out  # that archive was done
    assert not list(root.rglob("*.part"))


def test_archives_that_come_later_are_added(archives, tmp_path, capsys):
    root, late = tmp_path / "root", archives / "k400_train_part_1.tar.gz"
    content = late.read_bytes()
    late.unlink()
    prep.prepare(archives, root, only="train", workers=None)
    assert "train: 3 of 6 videos, 3 classes; the others are listed in" in capsys.readouterr().out
    missing = (root / "missing_train.txt").read_text().splitlines()
    assert missing[0] == "train__0001_000001_000011 moving square 1"
    assert len(missing) == 3
    late.write_bytes(content)
    prep.prepare(archives, root, only="train", workers=None)
    assert videos(root) == sorted(TRAIN)
    assert not (root / "missing_train.txt").exists()


def test_broken_videos_are_listed_and_replaced(archives, tmp_path, capsys):
    part, root = archives / "k400_train_part_1.tar.gz", tmp_path / "root"
    name = "train__0001_000001_000011.mp4"
    with tarfile.open(part) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    whole = files[f"./{name}"]
    part.write_bytes(tar_of(*files.items(), (name, b"no video")))
    prep.prepare(archives, root, only="train", workers=0)
    out = capsys.readouterr().out
    assert "train: 1 videos cannot be used" in out
    assert out.endswith("--data.on_error skip\n")
    listed = (root / "broken_train.txt").read_text()
    assert listed.startswith(f"train/moving_square_1/{name} ")
    replacement = tar_of((f"replacement/{name}", whole))
    (archives / "replacement_for_corrupted_k400.tgz").write_bytes(replacement)
    prep.prepare(archives, root, only="train", workers=0)
    assert not (root / "broken_train.txt").exists()
    assert (root / "train" / "moving_square_1" / name).read_bytes() == whole


HOSTILE = [
    ("../train__0000_000000_000010.mp4", {}, "leave the target"),
    ("/tmp/train__0000_000000_000010.mp4", {}, "leave the target"),
    ("a\\b.mp4", {}, "special character"),
    ("C:b.mp4", {}, "special character"),
    ("x.mp4", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "link or a device"),
    ("x.mp4", {"type": tarfile.LNKTYPE, "linkname": "../y"}, "link or a device"),
    ("x.mp4", {"type": tarfile.FIFOTYPE}, "link or a device"),
]


@pytest.mark.parametrize(("name", "fields", "text"), HOSTILE)
def test_hostile_members_are_refused(archives, tmp_path, name, fields, text):
    (archives / "k400_train_part_0.tar.gz").write_bytes(tar_of((name, b"", fields)))
    with pytest.raises(prep.ZooError, match=text):
        prep.prepare(archives, tmp_path / "root", only="train", workers=None)
    assert not videos(tmp_path / "root")


def test_hostile_labels_are_refused(archives, tmp_path):
    row = "../../evil,train__0000,0,10,train,0\n"
    (archives / "annotations" / "train.csv").write_text(HEADER + row)
    with pytest.raises(prep.ZooError, match="is no name of a folder"):
        prep.prepare(archives, tmp_path / "root", only="train", workers=None)


@pytest.mark.parametrize(
    ("split", "name"), [("train", "k400_train_part_0.tar.gz"), ("val", "val/part_0.tar")]
)
def test_truncated_archives(archives, tmp_path, split, name):
    path = archives / name
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        within = tar.getmembers()[2].offset_data + 9  # within the second video
    for end in (5, within if split == "val" else len(data) // 2):
        path.write_bytes(data[:end])
        with pytest.raises(prep.ZooError, match="download it again"):
            prep.prepare(archives, tmp_path / f"{end}", only=split, workers=None)
        assert not (tmp_path / f"{end}" / split).exists()


def test_an_archive_of_another_split(archives, tmp_path):
    (archives / "val" / "part_1.tar").rename(archives / "k400_train_part_7.tar")
    with pytest.raises(prep.ZooError, match=r"part_7.tar' stands in train.csv; is it .* another"):
        prep.prepare(archives, tmp_path / "root", only="train", workers=None)


def test_what_is_missing_is_named(tmp_path, capsys):
    command = ["--archives", str(tmp_path), "--root", str(tmp_path / "root")]
    assert prep.main(command) == 1
    error = capsys.readouterr().err
    assert "no train.csv" in error
    assert "cvdfoundation" in error
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text(HEADER + f"a,{split},0,10,{split},0\n")
    assert prep.main(command) == 1
    assert "no archive of train in" in capsys.readouterr().err
