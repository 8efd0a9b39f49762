"""Archives that mean harm, given to every script that unpacks some."""

import gzip
import importlib.util
import io
import lzma
import stat
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mutations import mutate

from lightning_zoo.datamodules.archives import MAX_HEADER, tar_members, write, zip_members
from lightning_zoo.errors import ZooError

SCRIPTS = sorted((Path(__file__).parents[2] / "scripts").glob("prepare_*.py"))
# where each script looks for its archives, and what a member is to be called
ZIPS = {"prepare_coco": ("train2017.zip", "train2017/000000000001.jpg")}
TARS = {
    "prepare_imagenet": ("ILSVRC2012_img_train.tar", "n01440764.tar"),
    "prepare_kinetics": ("train/a.tar.gz", "a.mp4"),
}


def load(name):
    path = next(path for path in SCRIPTS if path.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_tested():
    assert {path.stem for path in SCRIPTS} == {*ZIPS, *TARS}
    for path in SCRIPTS:
        text = path.read_text()
        assert "extract" not in text  # members come from archives.py alone
        assert "tarfile" not in text
        assert "zip_members" in text or "tar_members" in text


def tar_of(*members, mode="w", form=tarfile.GNU_FORMAT):
    """Return a tar of (name, data, fields) of each member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as tar:
        for name, data, *fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in (fields[0] if fields else {}).items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(*members):
    """Return a zip of (name, data, mode) of each member."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, *mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode[0] if mode else 0) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def sharing(zip_data, count=300):
    """Return a zip whose table names one member many times."""
    end = zip_data.rfind(b"PK\5\6")
    start = struct.unpack("<I", zip_data[end + 16 : end + 20])[0]
    entry = zip_data[start:end]
    name = entry[46:56]
    table = b"".join(entry.replace(name, f"{i:010}".encode()) for i in range(count))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(table), start, 0)
    return zip_data[:start] + table + tail


def nested(data, depth=4):
    """Return zips within zips."""
    for i in range(depth):
        data = zip_of((f"{i}.zip", data))
    return data


ZEROS = bytes(100 * 2**20)
HOSTILE_TARS = {
    "above": (lambda name: tar_of((f"../{name}", b"x")), "leave the target"),
    "deep": (lambda name: tar_of((f"a/../../{name}", b"x")), "leave the target"),
    "absolute": (lambda name: tar_of((f"/tmp/hostile/{name}", b"x")), "leave the target"),
    "windows": (lambda name: tar_of((f"C:{name}", b"x")), "special character"),
    "newline": (lambda name: tar_of((f"a\n{name}", b"x")), "special character"),
    **{
        kind: (lambda name, type=type: tar_of((name, b"", {"type": type, "linkname": "/etc/passwd"})
                                              ), "link or a device")
        for kind, type in (
            ("link", tarfile.SYMTYPE), ("hard link", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE),
            ("device", tarfile.CHRTYPE), ("disk", tarfile.BLKTYPE),
        )
    },
    "link to a folder": (
        lambda name: tar_of(("a", b"", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("a/b", b"x")),
        "link or a device",
    ),
    "twice": (lambda name: tar_of((name, tar_of(("a.JPEG", b"1"))), (name, b"2")), "there twice"),
    "holes": (
        lambda name: tar_of((name, bytes(512), {"type": tarfile.GNUTYPE_SPARSE})),
        "has holes|damaged",
    ),
    "long header": (
        lambda name: tar_of((name + "1" * 2 * MAX_HEADER, b"x")), "a header of .* bytes"
    ),
    "long numbers": (
        lambda name: tar_of((name, b"x", {"pax_headers": {"a": "1" * 2 * MAX_HEADER}}),
                            form=tarfile.PAX_FORMAT),
        "a header of .* bytes",
    ),
    "chain": (lambda name: tar_of((name, b"x", {"type": tarfile.GNUTYPE_LONGNAME}))[:512] * 3000,
              "damaged|leave|twice|refused"),
    "zeros": (lambda name: gzip.compress(tar_of((name, ZEROS)), 1),
              "more than 20 times its|holds no image"),
    "xz": (lambda name: lzma.compress(tar_of((name, b"x"))), "is damaged"),
    "cut": (lambda name: tar_of((name, bytes(99_999)))[:5000], "damaged|download it again"),
    "nothing": (lambda name: b"", "is damaged"),
    "noise": (lambda name: np.random.default_rng(0).bytes(9999), "is damaged"),
}  # fmt: skip
HOSTILE_ZIPS = {
    "above": (lambda name: zip_of((f"../{name}", b"x")), "leave the target"),
    "absolute": (lambda name: zip_of((f"/tmp/hostile/{name}", b"x")), "leave the target"),
    "backwards": (lambda name: zip_of((f"..\\{name}", b"x")), "leave the target"),
    "link": (lambda name: zip_of((name, b"/etc/passwd", stat.S_IFLNK | 0o777)), "it is a link"),
    "device": (lambda name: zip_of((name, b"", stat.S_IFCHR | 0o777)), "it is a device"),
    "twice": (lambda name: zip_of((name, b"1"), (f"{name[:-5]}2.jpg", b"1")).replace(
        f"{name[:-5]}2.jpg".encode(), name.encode()), "there twice"),
    "zeros": (lambda name: zip_of((name, ZEROS)), "more than 20 times its"),
    "shared": (lambda name: sharing(zip_of(("0123456789", np.random.default_rng(0).bytes(9999)))),
               "share their bytes"),
    "nested": (lambda name: nested(zip_of((name, ZEROS))), "refused"),
    "cut": (lambda name: zip_of((name, bytes(99_999)))[:99], "is damaged"),
    "nothing": (lambda name: b"", "is damaged"),
}  # fmt: skip


def prepare(name, folder, data):
    """Give an archive to a script; return its exit status."""
    archive = folder / "archives" / {**ZIPS, **TARS}[name][0]
    archive.parent.mkdir(parents=True)
    archive.write_bytes(data)
    options = ["--archives", str(folder / "archives"), "--root", str(folder / "root")]
    if name == "prepare_kinetics":
        options.append("--no_check")
        table = "label,youtube_id,time_start,time_end,split\nx,a,0,0,train\n"
        (folder / "archives" / "train.csv").write_text(table)
    if name == "prepare_coco":
        (folder / "archives" / "annotations_trainval2017.zip").write_bytes(
            zip_of(("annotations/instances_train2017.json", b"{}"),
                   ("annotations/person_keypoints_train2017.json", b"{}"))
        )  # fmt: skip
    return load(name).main([*options, "--only", "train"])


CASES = [(s, c) for s in TARS for c in HOSTILE_TARS] + [(s, c) for s in ZIPS for c in HOSTILE_ZIPS]


@pytest.mark.parametrize(("script", "case"), CASES)
def test_hostile_archives(script, case, tmp_path, capsys, monkeypatch):
    make, text = {**HOSTILE_TARS, **HOSTILE_ZIPS}[case]
    if script in ZIPS:
        make, text = HOSTILE_ZIPS[case]
    elif case in HOSTILE_TARS:
        make, text = HOSTILE_TARS[case]
    monkeypatch.chdir(tmp_path)
    data = make({**ZIPS, **TARS}[script][1])
    folder = tmp_path / "here"
    start = time.process_time()
    assert prepare(script, folder, data) == 1
    assert time.process_time() - start < 5
    said = capsys.readouterr().err
    assert said.startswith(f"{script}: ")
    assert said.count("\n") == 1
    with pytest.raises(AssertionError, match=text):  # that the text is in what was said
        raise AssertionError(said)
    assert [p.name for p in tmp_path.iterdir()] == ["here"]
    assert not Path("/tmp/hostile").exists()
    written = [p for p in (folder / "root").rglob("*") if p.is_file() or p.is_symlink()]
    assert all(p.is_file() and not p.is_symlink() for p in written)
    assert sum(p.stat().st_size for p in written) < 2**20


def test_damaged_archives(tmp_path):
    """Whatever happens to the bytes of a zip or a tar: its files, or an error that names it."""
    good = [(f"{i}.txt", bytes([65 + i]) * 300 * i) for i in range(5)]
    whole = {
        "a.zip": (zip_of(*good), zip_members),
        "a.tar": (tar_of(*good), tar_members),
        "b.tar": (tar_of(*((f"{n}{'x' * 200}", d) for n, d in good), form=tarfile.PAX_FORMAT),
                  tar_members),
        "a.tgz": (tar_of(*good, mode="w:gz"), tar_members),
    }  # fmt: skip
    texts = []
    for name, (data, members) in whole.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert len(list(members(path))) == 5
        for seed in range(400):
            path.write_bytes(mutate(data, np.random.default_rng(seed), data))
            target = tmp_path / "out"
            try:
                for i, member in enumerate(members(path)):
                    write(member.content, member.size, target / str(i))
            except ZooError as error:
                texts.append(f"{name}: {error}")
    assert len(texts) > 400
    for text in texts:
        name, _, said = text.partition(": ")
        assert name in said or "the archive is damaged" in said or "ends after" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == [*sorted(whole), "out"]
