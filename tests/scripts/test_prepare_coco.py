"""The official archives' layout, built small, a loopback server, and archives that mean harm."""

import http.server
import importlib.util
import io
import json
import re
import threading
import zipfile
from pathlib import Path

import pytest

from lightning_zoo.datamodules import CocoDataModule

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_coco.py"


def load():
    spec = importlib.util.spec_from_file_location("prepare_coco", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prep = load()


def zip_of(*files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, *mode in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode:
                info.external_attr = mode[0] << 16
            archive.writestr(info, data)
    return out.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a folder with the three archives, made of a small data set."""
    made = tmp_path_factory.mktemp("made")
    CocoDataModule.write_fake(made, images=5, size=48)
    folder = tmp_path_factory.mktemp("archives")
    for split in ("train2017", "val2017"):
        files = [(f"{split}/{p.name}", p.read_bytes()) for p in sorted((made / split).iterdir())]
        (folder / f"{split}.zip").write_bytes(zip_of((f"{split}/", b""), *files))
    texts = [(f"annotations/{p.name}", p.read_bytes()) for p in (made / "annotations").iterdir()]
    captions = ("annotations/captions_train2017.json", b"{}")
    (folder / prep.ANNOTATIONS).write_bytes(zip_of(*texts, captions))
    return folder


@pytest.fixture
def archives(source, tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def server(source, monkeypatch):
    """Serve the archives; ``server.plan`` says how to answer the next requests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.asked.append((self.path, self.headers.get("Range")))
            data = (source / self.path.rpartition("/")[2]).read_bytes()
            how = served.plan.pop(0) if served.plan else "whole"
            start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
            if how == "404":
                self.send_error(404)
                return
            if how == "page":
                data, start = b"<html>hello</html>", 0
            if start and start >= len(data):
                self.send_error(416)
                return
            if start and how != "no ranges":
                self.send_response(206)
                rest = data[start:]
            else:
                self.send_response(200)
                rest = data
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: len(rest) // 2] if how == "half" else rest)

        def log_message(self, *args):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked, served.plan = [], []
    served.url = f"http://127.0.0.1:{served.server_address[1]}"
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def files(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_both_splits(archives, tmp_path, capsys):
    root = tmp_path / "coco"
    assert prep.main(["--archives", str(archives), "--root", str(root)]) == 0
    found = files(root)
    assert len(found) == 4 + 10
    assert "annotations/person_keypoints_val2017.json" in found
    assert "annotations/captions_train2017.json" not in found
    out = capsys.readouterr().out
    assert "train2017: 5 images" in out
    assert "of 4 categories" in out
    assert "note: the whole of COCO 2017 has 118287 images in train2017" in out
    assert "fit --recipe maskrcnn_r50_fpn" in out
    for target in ("masks", "keypoints"):
        data = CocoDataModule(root=str(root), target=target, workers=0)
        data.setup("fit")
        assert len(list(data.val_dataloader())) == 5


def test_a_second_run_changes_nothing(archives, tmp_path, capsys):
    root = tmp_path / "coco"
    prep.prepare(archives, root, only="val")
    before = {name: (root / name).stat().st_mtime_ns for name in files(root)}
    for path in archives.iterdir():
        path.unlink()  # nothing is needed any more
    prep.prepare(archives, root, only="val")
    assert {name: (root / name).stat().st_mtime_ns for name in files(root)} == before
    assert "is there" in capsys.readouterr().out
    assert not (root / "train2017").exists()


def test_a_killed_run_continues(archives, tmp_path, monkeypatch):
    root, write, calls = tmp_path / "coco", prep.write, []

    def dies(content, size, path):
        if len(calls) == 3:
            path.with_name(f".{path.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        calls.append(path)
        write(content, size, path)

    monkeypatch.setattr(prep, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        prep.prepare_images(archives / "val2017.zip", root / "val2017")
    assert not (root / "val2017").exists()
    kept = (root / ".val2017.partial" / "000000002000.jpg").stat()
    monkeypatch.setattr(prep, "write", write)
    prep.prepare_images(archives / "val2017.zip", root / "val2017")
    assert len(files(root / "val2017")) == 5
    assert (root / "val2017" / "000000002000.jpg").stat().st_ino == kept.st_ino


def test_download(server, source, tmp_path):
    archives, root = tmp_path / "new", tmp_path / "coco"
    arguments = ["--archives", str(archives), "--root", str(root), "--download"]
    assert prep.main([*arguments, "--url", server.url + "/"]) == 0
    assert len(files(root)) == 14
    assert sorted(path for path, _ in server.asked) == [
        "/annotations/annotations_trainval2017.zip", "/zips/train2017.zip", "/zips/val2017.zip"
    ]  # fmt: skip
    assert files(archives) == files(source)


@pytest.mark.parametrize("second", ["whole", "no ranges"])
def test_a_broken_download_goes_on(server, source, tmp_path, second):
    path, url = tmp_path / "val2017.zip", f"{server.url}/zips/val2017.zip"
    server.plan = ["half", second]
    with pytest.raises(prep.ZooError, match=r"broke off after \d+ of \d+ bytes; run the command"):
        prep.download(url, path)
    assert not path.exists()
    half = (tmp_path / ".val2017.zip.part").stat().st_size
    prep.download(url, path)
    assert path.read_bytes() == (source / "val2017.zip").read_bytes()
    assert server.asked[1][1] == f"bytes={half}-"
    assert files(tmp_path) == ["val2017.zip"]


def test_a_download_that_was_complete(server, source, tmp_path):
    part = tmp_path / ".val2017.zip.part"
    part.write_bytes((source / "val2017.zip").read_bytes())
    prep.download(f"{server.url}/zips/val2017.zip", tmp_path / "val2017.zip")
    assert files(tmp_path) == ["val2017.zip"]


def test_downloads_that_fail(server, tmp_path):
    path, url = tmp_path / "val2017.zip", f"{server.url}/zips/val2017.zip"
    server.plan = ["404", "page"]
    with pytest.raises(prep.ZooError, match=r"cannot fetch http.*: 404"):
        prep.download(url, path)
    with pytest.raises(prep.ZooError, match="is no zip archive"):
        prep.download(url, path)
    with pytest.raises(prep.ZooError, match=r"cannot fetch .*run the command again"):
        prep.download("http://127.0.0.1:9/x.zip", path)
    assert files(tmp_path) == []


HOSTILE = [
    ("../000000000001.jpg", "leave the target"),
    ("/tmp/000000000001.jpg", "leave the target"),
    ("val2017/../../000000000001.jpg", "leave the target"),
    ("val2017\\..\\x.jpg", "leave the target"),
    ("val2017\\x.jpg", "special character"),
    ("C:x.jpg", "special character"),
    ("val2017/x.jpg", "expected val2017/XXXXXXXXXXXX.jpg"),
    ("val2017/a/000000000001.jpg", "expected val2017/"),
    ("train2017/000000000001.jpg", "expected val2017/"),
]


@pytest.mark.parametrize(("name", "text"), HOSTILE)
def test_hostile_members_are_refused(tmp_path, name, text):
    good = ("val2017/000000000007.jpg", b"fine")
    (tmp_path / "val2017.zip").write_bytes(zip_of(good, (name, b"evil")))
    with pytest.raises(prep.ZooError, match=text):
        prep.prepare_images(tmp_path / "val2017.zip", tmp_path / "root" / "val2017")
    assert files(tmp_path) == ["root/.val2017.partial/000000000007.jpg", "val2017.zip"]


def test_links_and_monsters_are_refused(tmp_path, monkeypatch):
    path, target = tmp_path / "val2017.zip", tmp_path / "val2017"
    path.write_bytes(zip_of(("val2017/000000000001.jpg", b"/etc/passwd", 0o120777)))
    with pytest.raises(prep.ZooError, match="it is a link"):
        prep.prepare_images(path, target)
    monkeypatch.setattr(prep, "MAX_IMAGE", 1000)
    path.write_bytes(zip_of(("val2017/000000000001.jpg", b"0" * 1001)))
    with pytest.raises(prep.ZooError, match="1001 bytes are too many"):
        prep.prepare_images(path, target)
    path.write_bytes(zip_of(("annotations/../x.json", b"{}")))
    with pytest.raises(prep.ZooError, match="leave the target"):
        prep.prepare_annotations(path, target, ["x.json"])
    path.write_bytes(zip_of(("annotations/evil.sh", b"{}")))
    with pytest.raises(prep.ZooError, match=r"expected annotations/<name>.json"):
        prep.prepare_annotations(path, target, ["x.json"])


def test_damaged_archives(archives, tmp_path):
    data = (archives / "val2017.zip").read_bytes()
    for content in (data[: len(data) // 2], b"", data[:200] + b"\0" * 50 + data[250:]):
        (archives / "val2017.zip").write_bytes(content)
        with pytest.raises(prep.ZooError, match=r"damaged.*download it again"):
            prep.prepare_images(archives / "val2017.zip", tmp_path / "val2017")
    assert not (tmp_path / "val2017").exists()


def test_what_does_not_fit_together(archives, tmp_path, capsys):
    root = tmp_path / "coco"
    prep.prepare(archives, root, only="val")
    (root / "val2017" / "000000002000.jpg").unlink()
    with pytest.raises(prep.ZooError, match=r"1 images of .* the first is 000000002000.jpg"):
        prep.prepare(archives, root, only="val")
    (root / "annotations" / "instances_val2017.json").write_text(
        json.dumps({"categories": [{"id": 1, "name": "x"}], "images": [1]})
    )
    with pytest.raises(prep.ZooError, match="no annotation file"):
        prep.prepare(archives, root, only="val")
    lacking = zip_of(("annotations/captions_val2017.json", b"{}"))
    (archives / prep.ANNOTATIONS).write_bytes(lacking)
    with pytest.raises(prep.ZooError, match=r"has no instances_train2017.json, person_keypoints"):
        prep.prepare(archives, root, only="train")


def test_missing_archives_are_named(tmp_path, capsys):
    assert prep.main(["--archives", str(tmp_path), "--root", str(tmp_path / "root")]) == 1
    error = capsys.readouterr().err
    assert "no train2017.zip, val2017.zip, annotations_trainval2017.zip" in error
    assert "--download fetches them from http://images.cocodataset.org" in error
