"""Frames that are sought are those of a full decode, in every container; damage is named."""

import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from videos import cut_file, full_decode, moving, write_audio, write_video

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms import video_decode
from lightning_zoo.transforms.decode import DecodeError
from lightning_zoo.transforms.video_decode import (
    FrameTimes,
    VideoError,
    constant_step,
    probe,
    read_frames,
    resample,
)

OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal:keyint=10:scenecut=0"}
ALT_REF = {"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16"}
SOUGHT = {
    "h264.mp4": {},
    "h264.mov": {"bframes": 0, "audio": True},
    "h264.mkv": {"bframes": 3, "gop": 250},
    "h264.ts": {"gop": 8},
    "h264.flv": {},
    "intra.mp4": {"gop": 1, "bframes": 0},
    "tight.mp4": {"gop": 3},
    "pyramid.mp4": {"bframes": 8, "options": {"x264-params": "b-pyramid=normal:ref=8"}},
    "open.mp4": {"options": OPEN_GOP},
    "open.mkv": {"options": OPEN_GOP},
    "late.mp4": {"pts": range(100, 140)},
    "variable.mp4": {"pts": [i * i for i in range(40)], "time_base": Fraction(1, 1000)},
    "variable.mkv": {"pts": [i * i for i in range(40)], "time_base": Fraction(1, 1000)},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=10:bframes=3:open-gop=1"},
    },
    "mpeg4.mp4": {"codec": "mpeg4", "audio": True},
    "mpeg4.3gp": {"codec": "mpeg4"},
    "mpeg4.avi": {"codec": "mpeg4", "bframes": 0},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2"},
    "mjpeg.avi": {"codec": "mjpeg"},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 20, "options": ALT_REF},
    "vp8.webm": {"codec": "libvpx", "gop": 20, "options": ALT_REF},
    "ten_bits.mkv": {"pix_fmt": "yuv420p10le"},
    "grey.mkv": {"pix_fmt": "gray"},
    "odd.mp4": {"pix_fmt": "yuv444p", "size": (49, 63)},
    "odd.avi": {"codec": "mjpeg", "size": (49, 63)},
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "yuv422p"},
    "one.mp4": {"frames": 1},
    "two.mp4": {"frames": 2},
}
COUNTED = {  # without times, or with times that are guesses
    "h264.avi": {},
    "mpeg4_b.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "packed.avi": {},
    "one.avi": {"codec": "mpeg4", "frames": 1},
}
CUT = {  # (the file, packets left out at its start, frames that times are moved by)
    "from_between.ts": ("h264.ts", 5, 0),
    "from_between.mkv": ("h264.mov", 3, 0),
    "open_first.mp4": ("open.mp4", 10, 0),
    "mpeg2_cut.ts": ("mpeg2.ts", 15, 0),
    "edit_list.mp4": ("h264.mp4", 0, -7),
    "edit_list_b.mp4": ("pyramid.mp4", 0, -7),
}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Return a function that encodes one of the files, once."""
    folder = tmp_path_factory.mktemp("videos")

    def encode(name):
        path = folder / name
        if path.exists():
            return path
        if name in CUT:
            source, without, shift = CUT[name]
            return copy_packets(encode(source), path, without, shift)
        if name == "packed.avi":
            source = write_video(folder / "unpacked.avi", moving(40), codec="mpeg4", bframes=1)
            return pack_bframes(source, path)
        options = dict({**SOUGHT, **COUNTED}[name])
        size = options.pop("size", (48, 64))
        return write_video(path, moving(options.pop("frames", 40), *size), **options)

    return encode


def copy_packets(source, path, without, shift):
    """Copy a stream as cutting tools do, without decoding."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        step = round(1 / (stream.average_rate * stream.time_base))
        for i, packet in enumerate(old.demux(stream)):
            if i >= without and packet.size:
                packet.pts, packet.dts = packet.pts + shift * step, packet.dts + shift * step
                packet.stream = copy
                new.mux(packet)
    return path


def pack_bframes(source, path):
    """Put each B-frame into the packet before it and an empty frame in its place, as DivX did."""
    start, divx, empty = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6\x53\0"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        packets = [[bytes(p), p.is_keyframe] for p in old.demux(video=0) if p.size]
        packets[0][0] = divx + packets[0][0]
        packed = 0
        for i in range(1, len(packets)):
            data = packets[i][0]
            if data[data.index(start) + 4] >> 6 == 2:
                packets[i - 1][0] += data
                packets[i][0] = empty
                packed += 1
        assert packed > 10
        for i, (data, is_keyframe) in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream = Fraction(1, 30), copy
            packet.is_keyframe = is_keyframe
            new.mux(packet)
    np.testing.assert_array_equal(full_decode(path), full_decode(source))
    return path


@pytest.fixture
def no_way_back(monkeypatch):
    """Fail where frames have to be decoded from the file's start, after a seek that went wrong."""

    def refuse(*args):
        raise AssertionError("a seek did not lead to its frames")

    monkeypatch.setattr(video_decode, "_read_from_start", refuse)


def assert_equal_to_full_decode(path, frames, rounds=12, **options):
    expected = full_decode(path)
    assert len(frames) == len(expected)
    assert frames.size == expected.shape[1:3]
    rng = np.random.default_rng(0)
    picks = [rng.integers(0, len(frames), rng.integers(1, 9)) for _ in range(rounds)]
    picks += [np.arange(len(frames)), [len(frames) - 1], [len(frames) - 1, 0, 0], []]
    for indices in picks:
        found = read_frames(path, frames, indices, **options)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected[np.asarray(indices, int)])


@pytest.mark.parametrize("name", [*SOUGHT, *CUT])
def test_sought_frames(encoded, no_way_back, name):
    path = encoded(name)
    frames = probe(path)
    assert frames.by_time
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert frames.pts.tolist() == times
    assert_equal_to_full_decode(path, frames)


@pytest.mark.parametrize("name", COUNTED)
def test_counted_frames(encoded, name):
    path = encoded(name)
    frames = probe(path)
    assert not frames.by_time
    assert np.all(np.diff(frames.pts) > 0)
    if len(frames) > 1:
        assert constant_step(frames.pts, frames.time_base) == Fraction(1, 30)
    assert_equal_to_full_decode(path, frames, rounds=3)


def test_threads_do_not_matter(encoded):
    path = encoded("pyramid.mp4")
    assert_equal_to_full_decode(path, probe(path), rounds=4, threads=2)


def test_key_frames_are_sought(encoded, monkeypatch):
    """A clip costs the packets from the key frame before it; distant clips cost a seek each."""
    path = encoded("h264.mov")
    frames = probe(path)
    assert frames.keyframes.tolist() == [0, 12, 24, 36]
    sent = []
    decode = video_decode._frames
    monkeypatch.setattr(
        video_decode,
        "_frames",
        lambda packets, stream: decode((sent.append(p.pts) or p for p in packets), stream),
    )

    def cost(*indices):
        sent.clear()
        read_frames(path, frames, indices)
        return np.searchsorted(frames.pts, sent).tolist()

    assert cost(14, 16) == [12, 13, 14, 15, 16]
    assert cost(2, 27) == [0, 1, 2, 24, 25, 26, 27]
    assert cost(10, 13) == [*range(11), 12, 13]
    assert cost(11, 12, 13) == list(range(14))
    assert cost(36) == [36]


def test_seek_that_goes_wrong(encoded, monkeypatch):
    """Frames after a refresh by columns cannot be decoded from there; they are from the start."""
    path = encoded("h264.mp4")
    frames = probe(path)
    starts = []
    from_start = video_decode._read_from_start

    def counted(*args):
        starts.append(1)
        from_start(*args)

    monkeypatch.setattr(video_decode, "_read_from_start", counted)
    lying = np.array([0, 5, 12, 17, 24, 36], np.int32)  # two of them are no key frames
    wrong = FrameTimes(frames.pts, frames.time_base, lying, frames.size)
    assert_equal_to_full_decode(path, wrong)
    path = write_video(
        path.parent / "refresh.mp4",
        moving(40),
        bframes=0,
        options={"x264-params": "intra-refresh=1:keyint=10"},
    )
    assert not starts
    assert_equal_to_full_decode(path, probe(path))
    assert starts


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated(tmp_path, degrees):
    path = write_video(tmp_path / "a.mp4", moving(5), rotation=degrees)
    frames = probe(path)
    assert (frames.rotation, frames.mirrored) == (degrees, False)
    expected = np.rot90(full_decode(path), degrees // 90, axes=(1, 2))
    assert frames.size == expected.shape[1:3]
    np.testing.assert_array_equal(read_frames(path, frames, range(5)), expected)


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 0, -1), (0, -1, -1, 0)])
def test_display_matrix(matrix):
    """Every pixel goes where the matrix of the file sends it: (x, y) to (a x + c y, b x + d y)."""
    a, b, c, d = matrix
    raw = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32)

    class Data:
        type = type("Type", (), {"name": "DISPLAYMATRIX"})

        def __bytes__(self):
            return raw.tobytes()

    rotation, mirrored = video_decode._orientation(type("Frame", (), {"side_data": [Data()]}))
    stored = moving(1, 3, 5)[0]
    ours = np.rot90(stored[:, ::-1] if mirrored else stored, rotation // 90)
    y, x = np.mgrid[:3, :5]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.zeros_like(ours)
    expected[to_y - to_y.min(), to_x - to_x.min()] = stored
    np.testing.assert_array_equal(ours, expected)


def floor_formula(count, fps, rate):
    """Return the reference's resampled indices, in exact arithmetic."""
    kept = int(Fraction(count) * rate / fps)
    return [int(k * Fraction(fps) / rate) for k in range(kept)]


@pytest.mark.parametrize("fps", [24, 25, Fraction(30000, 1001), 30, 50, 60, Fraction(24000, 1001)])
@pytest.mark.parametrize("rate", [15, 12, 30])
@pytest.mark.parametrize("time_base", ["frames", "fine", "milliseconds", "flv"])
def test_resample_is_the_reference_formula(fps, rate, time_base):
    fps = Fraction(fps)
    tick = {
        "frames": 1 / fps,
        "fine": Fraction(1, 90_000),
        "milliseconds": Fraction(1, 1000),
        "flv": Fraction(1, 1000),
    }[time_base]
    exact = [i / fps / tick for i in range(300)]
    # some containers round times to ticks, some cut them off
    pts = np.array([int(t) if time_base == "flv" else round(t) for t in exact], np.int64) + 77
    frames = FrameTimes(pts, tick.as_integer_ratio(), np.zeros(1, np.int32), (48, 64))
    assert constant_step(pts, frames.time_base) == 1 / fps
    found = resample(frames, rate)
    assert found.dtype == np.int32
    assert found.tolist() == floor_formula(300, fps, rate)
    assert resample(frames, None).tolist() == list(range(300))


def times(pts, den=1000):
    return FrameTimes(np.array(pts, np.int64), (1, den), np.zeros(1, np.int32), (48, 64))


def test_resample_variable_rate():
    frames = times([500, 550, 600, 700, 900, 901, 1300, 1500])  # 8 frames, about 1.14 s
    at = [500 + k * 100 for k in range(11)]
    expected = [max(i for i in range(8) if frames.pts[i] <= t + 1) for t in at]
    assert resample(frames, 10).tolist() == expected
    assert resample(frames, 0.1).tolist() == [0], "at least one"


def test_resample_few_frames():
    assert resample(times([40]), 15).tolist() == [0]
    assert resample(times([0, 40]), 15).tolist() == [0]
    assert resample(times([0, 40]), 50).tolist() == [0, 0, 1, 1]
    for rate in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ZooError, match=r"rate is .*; expected frames a second, more than 0"):
            resample(times([0, 40]), rate)


def test_positions_outside(encoded):
    frames = probe(encoded("two.mp4"))
    for indices in ([2], [-1]):
        with pytest.raises(IndexError, match=r"of 2 in '.*two\.mp4'"):
            read_frames(encoded("two.mp4"), frames, indices)


def with_cover(path):
    """Write sound and a picture of its album."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(moving(1)[0], format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode())


BROKEN = {
    "no.mp4": (lambda path: None, "No such file or directory"),
    "folder.mp4": (lambda path: path.mkdir(), "Is a directory"),
    "empty.mp4": (lambda path: path.touch(), "the file is empty"),
    "text.mp4": (lambda path: path.write_text("no video\n" * 99), "it is no video, or it lacks"),
    "cut.mp4": (
        lambda path: cut_file(write_video(path, moving(20)), 0.5),
        "it is no video, or it lacks its table of contents",
    ),
    "sound.mp4": (write_audio, "it has no video stream, only audio"),
    "cover.mp4": (with_cover, "it has no video stream, only a cover picture"),
    "none.mkv": (lambda path: write_video(path, moving(1)[:0]), "it ends before its first frame"),
    "playlist.mp4": (
        lambda path: path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\nhttp://localhost:1/a.ts\n"),
        "it is no video, or it lacks",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    make, reason = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(VideoError) as caught:
        probe(tmp_path / name)
    assert isinstance(caught.value, DecodeError)
    assert str(caught.value).startswith(f"cannot read the video '{tmp_path / name}': {reason}")
    assert caught.value.reason.startswith(reason)


def test_gap_of_hours(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", moving(4), pts=[0, 40, 80, 9_000_000], time_base=Fraction(1, 1000)
    )
    with pytest.raises(VideoError, match="frames 2 and 3 lie 2 hours apart; it is damaged"):
        probe(path)


def test_garbage_as_frames(tmp_path, encoded):
    """The table of contents is whole and every frame is noise."""
    data = bytearray(encoded("lossless.mkv").read_bytes())
    with av.open(str(encoded("lossless.mkv"))) as container:
        for packet in container.demux(video=0):
            if packet.size:
                start = data.index(bytes(packet))
                data[start : start + packet.size] = b"\xff" * packet.size
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    with pytest.raises(VideoError, match="none of its 40 frames can be decoded"):
        probe(path)


@pytest.mark.parametrize("name", ["h264.mkv", "h264.ts", "h264.flv", "vp9.webm", "mjpeg.avi"])
def test_cut_off(tmp_path, encoded, name):
    """What came before the end is read; the index of the whole file asks for what is gone."""
    path = tmp_path / name
    path.write_bytes(encoded(name).read_bytes())
    whole, expected = probe(path), full_decode(path)
    cut_file(path, 0.6)
    frames = probe(path)
    assert 10 < len(frames) < 36
    usable = np.arange(len(frames) - 2)  # the last may be cut, or need one that is
    np.testing.assert_array_equal(read_frames(path, frames, usable), expected[usable])
    with pytest.raises(VideoError, match=r"frame 39 of 40 cannot be decoded; the file is cut off"):
        read_frames(path, whole, [0, 39])


def test_damage_in_the_middle(tmp_path, encoded):
    """Frames behind the next key frame are fine; those from the damage on to it are refused."""
    path = tmp_path / "a.mp4"
    data = bytearray(encoded("mpeg4.mp4").read_bytes())
    expected = full_decode(encoded("mpeg4.mp4"))
    frames = probe(encoded("mpeg4.mp4"))
    with av.open(str(encoded("mpeg4.mp4"))) as container:
        (hit,) = [p for p in container.demux(video=0) if p.size and p.pts == frames.pts[15]]
        data[hit.pos : hit.pos + hit.size] = b"\xff" * hit.size
    path.write_bytes(data)
    good = [*range(13), *range(24, 40)]
    assert frames.keyframes.tolist()[:3] == [0, 12, 24]
    np.testing.assert_array_equal(read_frames(path, frames, good), expected[good])
    with pytest.raises(VideoError, match=r"frame 15 of 40 cannot be decoded"):
        read_frames(path, frames, [15])


def test_several_streams(tmp_path):
    """The larger stream is read; one that is claimed and has no frames is not."""
    path = tmp_path / "two.mkv"
    small, large = moving(6, 32, 48), moving(6)
    with av.open(str(path), "w") as container:
        streams = []
        for height, width in ((320, 480), (32, 48), (48, 64)):
            stream = container.add_stream("ffv1", rate=30)
            stream.height, stream.width, stream.pix_fmt = height, width, "bgr0"
            streams.append(stream)
        for stream, video in zip(streams[1:], (small, large), strict=True):
            for pixels in video:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    frames = probe(path)
    assert (frames.stream, frames.size) == (2, (48, 64))
    np.testing.assert_array_equal(read_frames(path, frames, range(6)), large)


def test_names_are_no_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "concat:a|b.mp4"
    write_video(tmp_path / "a.mp4", moving(3)).rename(name)
    assert len(probe(name)) == 3


def test_no_handle_is_left_open(tmp_path, encoded):
    def handles():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs Linux's /proc")
    broken = tmp_path / "a.mp4"
    broken.write_text("no video")
    before = handles()
    for _ in range(3):
        frames = probe(encoded("h264.mp4"))
        read_frames(encoded("h264.mp4"), frames, [3])
        for path in (broken, write_audio(tmp_path / "b.m4a")):
            with pytest.raises(VideoError):
                probe(path)
    assert handles() == before


def test_nothing_is_printed(tmp_path, encoded):
    """FFmpeg's complaints would fill the console of a training."""
    path = tmp_path / "a.mkv"
    data = bytearray(encoded("h264.mkv").read_bytes())
    data[len(data) // 2 :: 7] = b"\0" * len(data[len(data) // 2 :: 7])
    path.write_bytes(data)
    code = (
        "import sys; from lightning_zoo.transforms.video_decode import *\n"
        "frames = probe(sys.argv[1])\n"
        "try: read_frames(sys.argv[1], frames, range(len(frames)))\n"
        "except VideoError: pass"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
