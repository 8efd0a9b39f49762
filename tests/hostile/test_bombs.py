"""Small files that claim to be huge: refused before memory or hours go into them."""

import csv
import json
import time

import pytest
from hostile_media import (
    OFFSET,
    encode,
    jpeg_of,
    jpeg_of_many_scans,
    mp4,
    photo,
    png_of,
    png_with_long_chunk,
)
from PIL import Image
from sweep import sweep

from lightning_zoo.cli import main
from lightning_zoo.data_check.looking import look_at
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import read_data
from lightning_zoo.formats.voc import MAX_XML, XmlError, parse_xml
from lightning_zoo.keypoints import get_skeleton
from lightning_zoo.plain_yaml import MAX_CHARACTERS
from lightning_zoo.transforms.decode import MAX_PIXELS, DecodeError, decode_image
from lightning_zoo.transforms.mp4_claims import exaggeration
from lightning_zoo.transforms.video_decode import VideoError, probe

SMALL = encode(photo(64, 48), "JPEG")
BILLION = 10**9
IMAGES = {
    "large.png": (png_of(50_000, 50_000), "50000 x 50000 pixels are more than the limit"),
    "large.jpg": (jpeg_of(65_000, 65_000), "65000 x 65000 pixels are more than the limit"),
    "claims.png": (png_of(13_000, 13_000), "bytes cannot hold 13000 x 13000 pixels; it is damaged"),
    "claims.jpg": (jpeg_of(13_000, 13_000), "bytes cannot hold 13000 x 13000 pixels; it is damage"),
    "cmyk.jpg": (
        jpeg_of(60_000, 2000, encode(photo().convert("CMYK"), "JPEG")),
        "60000 x 2000 pixels are more than the limit",
    ),
    "sixteen.png": (
        png_of(9000, 9000, encode(photo().convert("I;16"), "PNG")), "bytes cannot hold"
    ),
    "chunk.png": (png_with_long_chunk(2**31 - 1), "cannot read the image"),
    "scans.jpg": (jpeg_of_many_scans(60), "8000 x 8000 pixels are stored in 69 passes"),
    "large.gif": (
        encode(Image.new("P", (1, 1)), "GIF").replace(b"\1\0\1\0", b"\xff\xff\xff\xff"),
        "4294836225 pixels",
    ),
    "script.jpg": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "of a known kind"
    ),
    "dicom.jpg": (b"\x89HDF\r\n\x1a\n" + bytes(99), "of a known kind"),
}  # fmt: skip
VIDEOS = {
    "table.mp4": (mp4(SMALL, frames=BILLION), f"it claims {BILLION} frames in"),
    "bytes.mp4": (mp4(SMALL, frames=80_000_000, size=1), "it claims 80000000 frames in"),
    "chunks.mp4": (mp4(SMALL, frames=10**7, size=1, chunks=1000), "it claims 10000000 frames in"),
    "runs.mp4": (mp4(SMALL, frames=0, runs=1000, run_length=10**7), f"{10**10} frames in"),
    "edits.mp4": (mp4(SMALL, times=500, edits=5000), "it claims 5000 edits of 500 frames in"),
    "hidden.mp4": (mp4(SMALL) + b"\0\0\0\x10moov\0\0\0\x08cmov", "it claims a compressed table"),
    "size.mp4": (mp4(SMALL, times=3, width=65_000, height=65_000), None),
    "frames.mp4": (
        mp4(jpeg_of(9000, 9000, encode(Image.new("RGB", (64, 48)), "JPEG")), times=3,
            width=9000, height=9000),
        "9000 x 9000 pixels are more than",
    ),
    "years.mp4": (mp4(SMALL, times=5000, seconds=3500, ticks=1), "its 5000 frames last 4860 hours"),
    "overflow.mp4": (mp4(SMALL, times=9, seconds=2**31, ticks=1), "frames last"),
    "concat.mp4": (b"ffconcat version 1.0\nfile other.mp4\n", "it is no video"),
    "playlist.mp4": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "it is no video",
    ),
    "photo.mp4": (SMALL, "it is no video"),
}  # fmt: skip


def test_images(tmp_path):
    for name, (data, _) in IMAGES.items():
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in IMAGES]
    outcome = sweep("file", files, len(files))
    print(outcome)
    assert not outcome.bad
    assert outcome.kinds == {"refused": len(files)}
    assert outcome.peak[0] < 200
    for name, (data, text) in IMAGES.items():
        with pytest.raises(DecodeError, match=text):
            decode_image(data, name=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "1", "WEBP", "TIFF", "CMYK"])
def test_the_largest_images(tmp_path, kind):
    """What may still be read takes no more than this."""
    side = 9_990 if kind in ("WEBP", "TIFF", "CMYK") else 13_370
    assert side**2 < MAX_PIXELS
    mode = kind if kind in ("1", "CMYK") else "RGB"
    options = {"progressive": {"progressive": True}, "TIFF": {"compression": "tiff_lzw"}}
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        Image.new(mode, (side, side)).save(
            file, {"progressive": "JPEG", "1": "PNG", "CMYK": "JPEG"}.get(kind, kind),
            **options.get(kind, {}),
        )  # fmt: skip
    outcome = sweep("file", [str(path)], 1)
    print(kind, outcome)
    assert not outcome.bad
    assert outcome.kinds == {"read": 1}
    assert outcome.peak[0] < 2500


def test_nothing_is_started_for_a_script(monkeypatch):
    """Pillow would have Ghostscript run it."""
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(DecodeError, match="no image of a known kind"):
        decode_image(IMAGES["script.jpg"][0])


def test_videos(tmp_path):
    (tmp_path / "other.mp4").write_bytes(mp4(SMALL, times=3))
    assert len(probe(tmp_path / "other.mp4")) == 3
    for name, (data, _) in VIDEOS.items():
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in VIDEOS]
    outcome = sweep("file", files, len(files))
    print(outcome)
    assert not outcome.bad
    assert outcome.kinds["refused"] >= len(files) - 1
    assert outcome.peak[0] < 200
    for name, (_, text) in VIDEOS.items():
        if text is not None:
            with pytest.raises(VideoError, match=text):
                probe(tmp_path / name)
    assert probe(tmp_path / "size.mp4").size == (48, 64)  # what its frames have


def test_claims_of_whole_files(tmp_path):
    path = tmp_path / "a.mp4"
    for data in (mp4(SMALL, times=9), mp4(SMALL, times=9, edits=2), b"", SMALL, b"\0" * 99):
        path.write_bytes(data)
        assert exaggeration(str(path)) is None
    path.write_bytes(mp4(SMALL, times=9, frames=10**6))
    assert exaggeration(str(path)) == "1000000 frames"
    assert mp4(SMALL).index(SMALL) == OFFSET


@pytest.mark.parametrize("task", ["classification", "video"])
def test_data_check_of_a_folder_of_them(tmp_path, task, capsys):
    files = VIDEOS if task == "video" else IMAGES
    for name in ("one", "two"):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True)
    good = mp4(SMALL, times=20) if task == "video" else SMALL
    suffix = "mp4" if task == "video" else "jpg"
    for name, (data, _) in files.items():
        (tmp_path / "train" / "one" / name).write_bytes(data)
    for place in ("train/one", "train/two", "val/one", "val/two"):
        (tmp_path / place / f"good.{suffix}").write_bytes(good)
    start = time.process_time()
    assert main(["data", "check", str(tmp_path), "--json", "--workers", "1"]) == 1
    assert time.process_time() - start < 20
    found = json.loads(capsys.readouterr().out)
    unread = [p for p in found["problems"] if p["kind"].endswith("that cannot be read")]
    bad = {problem["where"].rpartition("/")[2] for problem in unread}
    assert {name for name in files if name != "size.mp4" and not name.endswith("gif")} <= bad
    assert f"good.{suffix}" not in bad


def xml(*lines):
    return "\n".join(("<?xml version='1.0'?>", *lines)).encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (xml('<!DOCTYPE a [<!ENTITY x "y">]>', "<a>&x;</a>"), "declares entities"),
        (xml('<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]>', "<a>&x;</a>"), "declares entities"),
        (xml("<a>" * 100_000), "no element found"),
        (b"<a>" + b"<b/>" * (MAX_XML // 4) + b"</a>", "bytes; expected at most"),
    ],
)  # fmt: skip
def test_xml(data, text):
    with pytest.raises(XmlError, match=text):
        parse_xml(data)


DEEP = "[" * 200_000
ALIASES = "a: &a [1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_json(tmp_path):
    (tmp_path / "train").mkdir()
    path = tmp_path / "a.json"
    for text in (DEEP, '{"images": ' + DEEP, '{"images": [], "categories": ' + DEEP, "9" * 10_000):
        path.write_text(text)
        with pytest.raises(ZooError, match=r"a\.json"):
            read_data(path)


@pytest.mark.parametrize("text", [ALIASES, DEEP, "names: [" + "a, " * MAX_CHARACTERS + "]"])
def test_yaml(tmp_path, text):
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images\n{text}" if text != DEEP else text)
    start = time.process_time()
    with pytest.raises(ZooError, match=r"data\.yaml"):
        read_data(path)
    with pytest.raises(ZooError, match=r"data\.yaml is no YAML"):
        get_skeleton(path)
    assert time.process_time() - start < 10


def test_csv(tmp_path):
    (tmp_path / "a.jpg").write_bytes(SMALL)
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na.jpg," + "x" * (csv.field_size_limit() + 1) + "\n")
    with pytest.raises(ZooError, match=r"labels\.csv', line 2: field larger than field limit"):
        read_data(path, format="csv")


def test_a_look_at_a_bomb_is_an_error_of_the_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(IMAGES["large.png"][0])
    assert look_at(path).error.startswith("50000 x 50000 pixels are more than the limit")
