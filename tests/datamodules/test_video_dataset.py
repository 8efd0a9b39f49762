"""Which clips a video has, and which of them an epoch takes: tables worked by hand."""

import pickle

import numpy as np
import pytest
import torch

from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules import video_dataset
from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.datamodules.video_dataset import VideoDataset
from lightning_zoo.datamodules.video_index import VideoIndex
from lightning_zoo.transforms.video import EvalTransform
from lightning_zoo.transforms.video_decode import VideoError, resample

SIDE = 4


def index_of(videos, broken=()):
    """Return frame times of videos without files: frames and rate, or all times in ms."""
    records = []
    for i, (count, fps) in enumerate(videos):
        record = {"name": f"v{i}.mp4", "keyframes": [0], "height": SIDE, "width": SIDE}
        if i in broken:
            record["error"] = "it is empty"
        elif isinstance(count, int):
            record |= {"count": count, "num": 1, "den": fps, "deltas": [1] * (count > 1)}
        else:
            deltas = np.diff(count).tolist()
            record |= {"count": len(count), "num": 1, "den": 1000, "deltas": deltas}
        records.append({**record, "by_time": True})
    return VideoIndex.of(records)


@pytest.fixture
def read(monkeypatch):
    """Let a frame's pixels be its number in the file; ``read.broken`` names files that break."""

    def read_frames(path, frames, indices):
        if path in read_frames.broken:
            raise VideoError(path, "cut off")
        assert max(indices) < len(frames)
        pixels = np.asarray(indices, np.uint8)[:, None, None, None]
        return np.broadcast_to(pixels, (len(indices), SIDE, SIDE, 3)).copy()

    read_frames.broken = set()
    monkeypatch.setattr(video_dataset, "read_frames", read_frames)
    return read_frames


def dataset(videos, split="val", *, broken=(), **options):
    names = [f"v{i}.mp4" for i in range(len(videos))]
    labels = np.arange(len(videos))
    transform = EvalTransform((SIDE, SIDE), SIDE)
    return VideoDataset(
        split, "root", names, labels, index_of(videos, broken), transform, **options
    )


def times(sample):
    """Return the numbers of a clip's frames in the file."""
    return sample["video"][0, :, 0, 0].tolist()


def test_a_clip_of_a_faster_video(read):
    """30 frames a second become 15 by taking every other: 40 frames are 20, hence 5 windows."""
    data = dataset([(40, 30)])
    assert len(data) == 5
    samples = [data[SampleKey(0, i)] for i in range(5)]
    assert [s["clip"] for s in samples] == [0, 1, 2, 3, 4]
    assert times(samples[0]) == list(range(0, 32, 2))
    assert times(samples[4]) == list(range(8, 40, 2))
    assert samples[0]["video"].shape == (3, 16, SIDE, SIDE)
    assert samples[0]["video"].dtype == torch.uint8
    assert {s["id"] for s in samples} == {"v0.mp4"}


def test_a_clip_of_an_odd_rate(read):
    """25 to 15: frame k is floor(k * 5 / 3); 30 frames become 18, hence 3 windows."""
    data = dataset([(30, 25)])
    taken = [0, 1, 3, 5, 6, 8, 10, 11, 13, 15, 16, 18, 20, 21, 23, 25, 26, 28]
    assert [times(data[SampleKey(0, i)]) for i in (0, 4)] == [taken[:16], taken[2:]]
    # linspace(0, 2, 5) is 0, 0.5, 1, 1.5, 2
    assert [data.window(SampleKey(0, i)) for i in range(5)] == [0, 0, 1, 1, 2]
    # repeated windows are clips of their own, as they were counted by the reference
    assert [data[SampleKey(0, i)]["clip"] for i in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (1, [0, 0, 0, 0, 0]),
        (2, [0, 0, 0, 0, 1]),
        (4, [0, 0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 4]),
        (6, [0, 1, 2, 3, 5]),
        (135, [0, 33, 67, 100, 134]),
    ],
)
def test_evaluation_takes_five_even_clips(windows, expected):
    data = dataset([(windows + 15, 15)])
    assert [data.window(SampleKey(0, i)) for i in range(len(data))] == expected


def test_lengths_are_those_of_resampling():
    uneven = np.cumsum([40, 20, 90] * 8)
    videos = [(40, 30), (1, 30), (2, 30), (40, 30), (299, 25), (uneven, None), (40, 24), (9, 1),
              (31, 30), (61, 60), (62, 45)]  # fmt: skip
    index = index_of(videos, broken=[3])
    for rate in (15.0, 7.3, None):
        lengths = index.lengths(rate).tolist()
        assert lengths[3] == 0
        for i in range(len(videos)):
            assert i == 3 or lengths[i] == len(resample(index.frames(i), rate))
    assert index.lengths(15.0).tolist() == [20, 1, 1, 0, 179, 18, 25, 135, 16, 16, 21]
    assert index_of([]).lengths(15.0).tolist() == []


def test_training_takes_up_to_five_clips_without_repeats():
    data = dataset([(17, 15), (20, 15), (40, 15), (15, 15)], "train")
    assert len(data) == 2 + 5 + 5
    assert [data.name(i) for i in (0, 1, 2, 6, 7, 11)] == [f"v{v}.mp4" for v in (0, 0, 1, 1, 2, 2)]
    seen = set()
    for epoch in range(40):
        clips = [data.window(SampleKey(epoch, i)) for i in range(12)]
        assert sorted(clips[:2]) == [0, 1]
        assert sorted(clips[2:7]) == [0, 1, 2, 3, 4]
        assert len(set(clips[7:])) == 5
        seen.add(tuple(clips[7:]))
    assert len(seen) == 40
    assert {clip for clips in seen for clip in clips} == set(range(25))


def test_clips_depend_on_seed_epoch_and_video_alone():
    videos = [(60, 15), (60, 15)]
    first, again = dataset(videos, "train"), dataset(videos, "train")
    clips = [[d.window(SampleKey(3, i)) for i in range(10)] for d in (first, again)]
    assert clips[0] == clips[1]
    assert clips[0][:5] != clips[0][5:]
    again.seed = 1
    assert [again.window(SampleKey(3, i)) for i in range(10)] != clips[0]


def test_the_filled_step_takes_further_clips():
    data = dataset([(24, 15)], "train")  # 9 windows: two draws of five reach all
    clips = [data.window(SampleKey(0, i, draw)) for draw in (0, 1) for i in range(5)]
    assert len(set(clips[:9])) == 9
    assert clips[9] == clips[0]


def test_short_videos_are_left_out_or_stand_still(read):
    videos = [(20, 15), (3, 15), (1, 30)]
    data = dataset(videos)
    assert len(data) == 5
    assert data.num_short == 2
    reason = "frames at 15 a second, fewer than the 16 of a clip"
    assert data.problems == [("v1.mp4", f"3 {reason}"), ("v2.mp4", f"1 {reason}")]
    for split, count in (("val", 15), ("train", 7)):
        data = dataset(videos, split, short="repeat")
        assert len(data) == count
        assert data.problems == []
        last = data[SampleKey(0, count - 1)]
        clip = 4 if split == "val" else 0
        assert (last["id"], last["clip"], times(last)) == ("v2.mp4", clip, [0] * 16)
        short = data[SampleKey(0, 5)]
        assert times(short) == [0, 1] + [2] * 14


def test_every_frame_without_a_rate(read):
    data = dataset([(6, 30)], clip_frames=4, frame_rate=None, clips=3)
    assert [times(data[SampleKey(0, i)])[0] for i in range(3)] == [0, 1, 2]
    reason = dataset([(3, 30)], clip_frames=4, frame_rate=None).problems[0][1]
    assert reason == "3 frames, fewer than the 4 of a clip"


def test_broken_videos_have_no_clip(read):
    data = dataset([(20, 15), (20, 15), (20, 15)], broken=[1])
    assert len(data) == 10
    assert {data.name(i) for i in range(10)} == {"v0.mp4", "v2.mp4"}
    assert data.problems == [("v1.mp4", "it is empty")]
    assert {data[SampleKey(0, i)]["label"] for i in range(10)} == {0, 2}
    assert len(dataset([(20, 15)], broken=[0])) == 0


def test_it_is_small_enough_to_send_to_workers():
    data = dataset([(150 + i % 9, 15) for i in range(1000)], "train")
    assert len(pickle.dumps(data)) < 300 * 1000
    again = pickle.loads(pickle.dumps(data))
    assert again.window(SampleKey(1, 77)) == data.window(SampleKey(1, 77))


def test_a_clip_that_breaks(read, tmp_path):
    read.broken.add("root/v1.mp4")
    data = dataset([(20, 15)] * 3, "train")
    refused = data[SampleKey(0, 5)]
    assert refused.text.startswith("cannot read the video 'root/v1.mp4': cut off")
    data.on_error, data.ledger = "skip", tmp_path / "ledger.jsonl"
    assert [data[SampleKey(0, i)]["id"] for i in (0, 5, 9, 10)] == [
        f"v{i}.mp4" for i in (0, 2, 2, 2)
    ]
    data.split = "val"
    assert data[SampleKey(0, 6)] is None
    assert [(e["file"], e["error"], e["split"]) for e in ledgers.read(data.ledger)] == [
        ("v1.mp4", "cut off", "train"),
        ("v1.mp4", "cut off", "val"),
    ]
