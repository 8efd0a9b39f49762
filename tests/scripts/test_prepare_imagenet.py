"""The official archives' layout, built small, and archives that mean harm."""

import importlib.util
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lightning_zoo.datamodules.files import class_folders

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_imagenet.py"
WNIDS = ["n01440764", "n01443537", "n02110185"]


def load():
    spec = importlib.util.spec_from_file_location("prepare_imagenet", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prep = load()


def add(tar, name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def tar_of(*files, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data, *fields in files:
            add(tar, name, data, **(fields[0] if fields else {}))
    return out.getvalue()


def train_archive(folder, images=3):
    classes = [
        (f"{w}.tar", tar_of(*((f"{w}_{i}.JPEG", f"{w} {i}".encode() * 99) for i in range(images))))
        for w in WNIDS
    ]
    (folder / prep.TRAIN).write_bytes(tar_of(*classes))


def val_archives(folder, labels=(2, 1, 3, 1)):
    savemat = pytest.importorskip("scipy.io").savemat
    rows = np.zeros(4, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    # ids are not in the order of the names; the fourth is an inner node
    rows[:] = [(1, WNIDS[2], "dog"), (2, WNIDS[0], "tench"), (3, WNIDS[1], "fish"), (4, "n0", "x")]
    meta = io.BytesIO()
    savemat(meta, {"synsets": rows})
    truth = "".join(f"{label}\n" for label in labels).encode()
    kit = "ILSVRC2012_devkit_t12/data/"
    (folder / prep.DEVKIT).write_bytes(
        tar_of(
            (kit + "meta.mat", meta.getvalue()),
            (kit + "ILSVRC2012_validation_ground_truth.txt", truth),
            ("ILSVRC2012_devkit_t12/readme.txt", b"hello"),
            mode="w:gz",
        )
    )
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, len(labels) + 1)]
    (folder / prep.VAL).write_bytes(tar_of(*((name, name.encode()) for name in names)))


def files(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_both_splits(tmp_path, capsys):
    train_archive(tmp_path)
    val_archives(tmp_path)
    root = tmp_path / "imagenet"
    assert prep.main(["--archives", str(tmp_path), "--root", str(root)]) == 0
    assert files(root / "train") == [f"{w}/{w}_{i}.JPEG" for w in WNIDS for i in range(3)]
    first = root / "train" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG"
    assert first.read_bytes() == f"{WNIDS[0]} 1".encode() * 99
    expected = zip((1, 2, 3, 4), (WNIDS[0], WNIDS[2], WNIDS[1], WNIDS[2]), strict=True)
    assert files(root / "val") == sorted(f"{w}/ILSVRC2012_val_{i:08d}.JPEG" for i, w in expected)
    out = capsys.readouterr().out
    assert "train: 9 images of 3 classes" in out
    assert "val: 4 images of 3 classes" in out
    assert "fit --recipe resnet50" in out


def test_a_killed_run_continues(tmp_path, monkeypatch, capsys):
    train_archive(tmp_path)
    target = tmp_path / "train"
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
        prep.prepare_train(tmp_path / prep.TRAIN, target)
    assert class_folders(target) == WNIDS[:1]  # the half class is hidden from data modules
    monkeypatch.setattr(prep, "write", write)
    old = (target / f".{WNIDS[1]}.partial" / f"{WNIDS[1]}_0.JPEG").stat()
    prep.prepare_train(tmp_path / prep.TRAIN, target)
    assert files(target) == [f"{w}/{w}_{i}.JPEG" for w in WNIDS for i in range(3)]
    assert (target / WNIDS[1] / f"{WNIDS[1]}_0.JPEG").stat().st_ino == old.st_ino  # kept
    assert f"train 1 {WNIDS[0]}: 3 images are there" in capsys.readouterr().out


def test_a_second_run_changes_nothing(tmp_path, capsys):
    val_archives(tmp_path)
    for _ in range(2):
        prep.prepare(tmp_path, tmp_path / "root", only="val")
    assert len(files(tmp_path / "root")) == 4
    assert "is there" in capsys.readouterr().out


HOSTILE = [
    ("../n01440764_0.JPEG", {}, "leave the target"),
    ("/tmp/n01440764_0.JPEG", {}, "leave the target"),
    ("a/../../b.JPEG", {}, "leave the target"),
    ("..\\b.JPEG", {}, "leave the target|special character"),
    ("C:b.JPEG", {}, "special character"),
    ("x.JPEG", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "link or a device"),
    ("x.JPEG", {"type": tarfile.LNKTYPE, "linkname": "../../y"}, "link or a device"),
    ("x.JPEG", {"type": tarfile.CHRTYPE}, "link or a device"),
    ("x.JPEG", {"type": tarfile.FIFOTYPE}, "link or a device"),
    ("sub/x.JPEG", {}, "lies in a folder"),
    (".x.JPEG", {}, "hidden"),
]


@pytest.mark.parametrize(("name", "fields", "text"), HOSTILE)
def test_hostile_members_are_refused(tmp_path, name, fields, text):
    inner = tar_of(("good.JPEG", b"fine"), (name, b"", fields))
    (tmp_path / prep.TRAIN).write_bytes(tar_of(("n01440764.tar", inner)))
    with pytest.raises(prep.ZooError, match=text):
        prep.prepare_train(tmp_path / prep.TRAIN, tmp_path / "root" / "train")
    assert files(tmp_path) == [prep.TRAIN, "root/train/.n01440764.partial/good.JPEG"]


@pytest.mark.parametrize("name", ["../n01440764.tar", "evil.tar", "n01440764.JPEG", "n1.tar"])
def test_hostile_outer_members_are_refused(tmp_path, name):
    (tmp_path / prep.TRAIN).write_bytes(tar_of((name, tar_of(("a.JPEG", b"x")))))
    with pytest.raises(prep.ZooError, match="refused"):
        prep.prepare_train(tmp_path / prep.TRAIN, tmp_path / "train")
    assert files(tmp_path) == [prep.TRAIN]


def test_truncated_archive(tmp_path):
    train_archive(tmp_path)
    data = (tmp_path / prep.TRAIN).read_bytes()
    for end in (100, 9000, len(data) - 15000):
        (tmp_path / prep.TRAIN).write_bytes(data[:end])
        with pytest.raises(prep.ZooError, match="download it again"):
            prep.prepare_train(tmp_path / prep.TRAIN, tmp_path / f"train{end}")


def test_missing_archives_are_named(tmp_path, capsys):
    assert prep.main(["--archives", str(tmp_path), "--root", str(tmp_path / "root")]) == 1
    error = capsys.readouterr().err
    assert "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar" in error
    assert "image-net.org" in error


def test_labels_that_do_not_fit(tmp_path):
    val_archives(tmp_path)
    pixels = tar_of(("ILSVRC2012_val_00000001.JPEG", b"x"))
    (tmp_path / prep.VAL).write_bytes(pixels)
    with pytest.raises(prep.ZooError, match=r"1 images and .* 4 labels"):
        prep.prepare(tmp_path, tmp_path / "root", only="val")
    val_archives(tmp_path, labels=(9,))
    with pytest.raises(prep.ZooError, match="cannot be read"):
        prep.prepare(tmp_path, tmp_path / "other", only="val")
