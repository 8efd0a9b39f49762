"""Videos in class folders: clips through the real loaders, broken and short files, what is said."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from videos import cut_file, full_decode, moving, write_audio, write_video

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import KineticsDataModule, VideoFolderDataModule
from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.errors import ZooError

SMALL = {
    "workers": 0,
    "index_workers": 0,
    "train_resize": (18, 24),
    "train_crop": 16,
    "eval_resize": (18, 24),
    "eval_crop": 16,
}
MODULES = [VideoFolderDataModule, KineticsDataModule]


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    VideoFolderDataModule.write_fake(root, classes=3, images=6, size=32)
    return root


@pytest.fixture
def root(tmp_path):
    VideoFolderDataModule.write_fake(tmp_path / "data", classes=2, images=2, size=32)
    return tmp_path / "data"


def module(root, cls=VideoFolderDataModule, *, plan=None, ledger=None, seed=1, **options):
    data = cls(root=str(root), **{**SMALL, **options})
    data.configure(plan or BatchPlan(4, 4, 1, 1), seed=seed, ledger=ledger)
    return data


@pytest.mark.parametrize("cls", MODULES)
def test_fake_data_is_read(tmp_path, cls):
    start = time.perf_counter()
    cls.write_fake(tmp_path)
    assert time.perf_counter() - start < 3
    data = module(tmp_path, cls)
    for stage in ("fit", "validate", "test", "predict", "fit"):
        data.setup(stage)
    assert data.num_classes == 4
    assert data.target == "video"
    assert not data.multilabel
    assert data.num_train_samples == 8 * 5
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"video", "label", "id", "clip"}
    assert batch["video"].shape == (4, 3, 16, 16, 16)
    assert batch["video"].dtype == torch.uint8
    assert batch["label"].dtype == batch["clip"].dtype == torch.int64
    for name, label in zip(batch["id"], batch["label"], strict=True):
        assert (tmp_path / name).is_file()
        assert name.split("/")[1] == data.class_names[label]
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        batches = list(loader)
        assert len(loader) == len(batches) == 10
        clips = [(n, c) for b in batches for n, c in zip(b["id"], b["clip"].tolist(), strict=True)]
        assert len(clips) == len(set(clips)) == 40
        assert len({name for name, _ in clips}) == 8
        assert {clip for _, clip in clips} == {0, 1, 2, 3, 4}


def test_pixels_are_those_of_a_full_decode(fake):
    data = module(fake, eval_resize=(24, 32), eval_crop=24, frame_rate=7.5, clip_frames=4)
    data.setup("validate")
    sample = data.datasets["val"][SampleKey(0, 4)]
    frames = full_decode(fake / sample["id"])
    assert len(frames) == 20  # every other one of them, and the last window of the ten
    expected = frames[[12, 14, 16, 18]][:, :, 4:28]
    assert sample["clip"] == 4
    assert np.array_equal(sample["video"].numpy(), expected.transpose(3, 0, 1, 2))


def clips_of(data, rank=0, epoch=0):
    data.setup("fit")
    data.trainer = SimpleNamespace(global_rank=rank, world_size=data.plan.devices)
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return [
        (name, clip, video.numpy().tobytes())
        for batch in loader
        for name, clip, video in zip(
            batch["id"], batch["clip"].tolist(), batch["video"], strict=True
        )
    ]


def test_bytes_do_not_depend_on_workers_and_ranks(fake):
    alone = clips_of(module(fake, plan=BatchPlan(6, 6, 1, 1)), epoch=2)
    assert len({(name, clip) for name, clip, _ in alone}) == len(alone) == 6 * 5
    two = [
        clips_of(module(fake, plan=BatchPlan(6, 3, 2, 1), workers=workers), rank, epoch=2)
        for workers, rank in ((2, 0), (0, 1))
    ]
    assert sorted(alone) == sorted(two[0] + two[1])
    other = clips_of(module(fake, plan=BatchPlan(6, 6, 1, 1)), epoch=3)
    assert sorted(other) != sorted(alone)


def test_evaluation_over_two_ranks_counts_every_clip_once(fake):
    def clips(rank, devices):
        data = module(fake, plan=BatchPlan(4, 4 // devices, devices, 1), eval_batch=4)
        data.setup("validate")
        data.trainer = SimpleNamespace(global_rank=rank, world_size=devices)
        return [
            (name, clip, video.numpy().tobytes())
            for b in data.val_dataloader()
            for name, clip, video in zip(b["id"], b["clip"].tolist(), b["video"], strict=True)
        ]

    assert sorted(clips(0, 1)) == sorted(clips(0, 2) + clips(1, 2))


def test_a_run_continues_in_mid_epoch(fake):
    data = module(fake)
    data.setup("fit")
    whole = [(b["id"], b["clip"].tolist()) for b in data.train_dataloader()]
    loader = data.train_dataloader()
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    again = data.train_dataloader()
    again.load_state_dict(state)
    assert [(b["id"], b["clip"].tolist()) for b in again] == whole[3:]


def test_formats_and_folders_within_folders(root):
    write_video(root / "train" / "class_0" / "B.AVI", moving(40), codec="mpeg4", fps=30)
    (root / "train" / "class_1" / "deep").mkdir()
    write_video(root / "train" / "class_1" / "deep" / "a.webm", moving(20), codec="libvpx", fps=15)
    (root / "train" / "class_1" / "notes.txt").write_text("hello")
    (root / "train" / "class_1" / ".hidden.mp4").write_bytes(b"")
    data = module(root)
    data.setup("fit")
    assert list(data.datasets["train"].names) == [
        "train/class_0/B.AVI",
        "train/class_0/train_0000.mp4",
        "train/class_1/deep/a.webm",
        "train/class_1/train_0001.mp4",
    ]
    assert len(data.datasets["train"]) == 20


# files that cannot be used


@pytest.fixture
def damaged(root):
    (root / "train" / "class_0" / "empty.mp4").write_bytes(b"")
    write_audio(root / "train" / "class_1" / "song.mp4")
    return root


def test_broken_files_are_refused(damaged):
    with pytest.raises(ZooError) as caught:
        module(damaged).setup("fit")
    text = str(caught.value)
    assert "2 of 4 videos" in text
    assert "the first is 'train/class_0/empty.mp4'" in text
    assert "--data.on_error skip" in text


def test_broken_files_are_skipped_and_named(damaged, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    data = module(damaged, on_error="skip", ledger=ledger)
    data.setup("fit")
    data.setup("validate")
    assert data.num_train_samples == 10
    assert {name for name, _, _ in clips_of(data)} == {
        "train/class_0/train_0000.mp4",
        "train/class_1/train_0001.mp4",
    }
    entries = data.read_ledger()
    assert [(e["file"], e["split"]) for e in entries] == [
        ("train/class_0/empty.mp4", "train"),
        ("train/class_1/song.mp4", "train"),
    ]
    assert all(e["error"] for e in entries)


def test_a_truncated_file(root, tmp_path):
    """Its index is whole and its clips break: known once they are read."""
    path = root / "val" / "class_0" / "cut.mkv"
    cut_file(write_video(path, moving(40), fps=15, gop=10), 0.5)
    data = module(root, eval_clips=1, clip_frames=24, frame_rate=None, short="repeat")
    data.setup("validate")
    for dataset in data.datasets.values():  # as if it was cut after it had been looked at
        assert len(dataset) == 3
    cut_file(path, 0.3)
    with pytest.raises(ZooError, match=r"cut.mkv.*--data.on_error skip"):
        list(data.val_dataloader())
    data.on_error, data.ledger = "skip", tmp_path / "ledger.jsonl"
    data.configure(data.plan, seed=1, ledger=data.ledger)
    names = [name for batch in data.val_dataloader() for name in batch["id"]]
    assert names == ["val/class_0/val_0000.mp4", "val/class_1/val_0001.mp4"]
    assert [e["file"] for e in data.read_ledger()] == ["val/class_0/cut.mkv"]


def test_short_videos(root, tmp_path):
    write_video(root / "train" / "class_0" / "short.mp4", moving(8), fps=15)
    write_video(root / "train" / "class_1" / "one.mp4", moving(1), fps=30)
    kept = module(root)
    kept.setup("fit")
    assert kept.num_train_samples == 5 + 1 + 5 + 1
    names = {name for batch in kept.train_dataloader() for name in batch["id"]}
    assert {"train/class_0/short.mp4", "train/class_1/one.mp4"} <= names
    left = module(root, short="skip", ledger=tmp_path / "ledger.jsonl")
    with pytest.warns(UserWarning, match=r"left out: 2 of 4 videos .* shorter than a clip") as said:
        left.setup("fit")
    assert "8 frames at 15 a second, fewer than the 16 of a clip" in str(said[0].message)
    assert left.num_train_samples == 10
    assert [e["file"] for e in left.read_ledger()] == [
        "train/class_0/short.mp4",
        "train/class_1/one.mp4",
    ]


def test_no_video_can_be_used(root):
    data = module(root, clip_frames=30, short="skip")
    with pytest.raises(ZooError, match=r"none of the 2 videos of .*20 frames at 15 a second"):
        data.setup("fit")


# layout and arguments


@pytest.mark.parametrize(
    ("cls", "source"), [(VideoFolderDataModule, "own"), (KineticsDataModule, "prepare_kinetics.py")]
)
def test_missing_root(tmp_path, cls, source):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ZooError) as caught:
            module(path, cls).setup("fit")
        text = str(caught.value)
        assert str(path) in text
        assert "train/<class>/*.mp4" in text
        assert source in text


@pytest.mark.parametrize("cls", MODULES)
def test_missing_folders(tmp_path, cls):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ZooError, match=r"no folder .*train.* \(data.train\)"):
        module(tmp_path, cls).setup("fit")
    (tmp_path / "train").mkdir()
    with pytest.raises(ZooError, match=r"no class in .*train"):
        module(tmp_path, cls).setup("fit")
    (tmp_path / "train" / "a").mkdir()
    with pytest.raises(ZooError, match="no video in the class folders"):
        module(tmp_path, cls).setup("fit")


def test_val_may_be_missing(root):
    with pytest.raises(ZooError, match=r"data.val; null goes without it"):
        module(root, val="other").setup("fit")
    data = module(root, val=None)
    data.setup("fit")
    assert data.val_dataloader() == []


def test_a_split_of_its_own_for_test(root):
    data = module(root, test="test")
    data.setup("test")
    assert {n.split("/")[0] for b in data.test_dataloader() for n in b["id"]} == {"test"}


def test_a_class_that_training_lacks(root):
    (root / "val" / "clas_1").mkdir()
    module(root).setup("validate")  # there is no video in it
    write_video(root / "val" / "clas_1" / "a.mp4", moving(20), fps=15)
    with pytest.raises(ZooError, match=r"class clas_1 of .*2 of training; did you mean class_"):
        module(root).setup("validate")


def test_a_class_without_videos(root):
    (root / "val" / "class_1" / "val_0001.mp4").unlink()
    with pytest.warns(UserWarning, match="no video of class class_1"):
        module(root).setup("validate")
    (root / "train" / "class_1" / "train_0001.mp4").unlink()
    with pytest.raises(ZooError, match="no video of class class_1 in"):
        module(root).setup("fit")


@pytest.mark.parametrize("cls", MODULES)
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"clip_frames": 0}, "clip_frames is 0; expected a whole number of at least 1"),
        ({"train_clips": 0}, "train_clips is 0"),
        ({"eval_clips": -1}, "eval_clips is -1"),
        ({"frame_rate": 0.0}, "frame_rate is 0; expected frames a second, or null"),
        ({"short": "loop"}, "unknown short 'loop'"),
        ({"index_workers": -1}, "index_workers is -1"),
        ({"train_crop": 19}, "train_crop is 19; expected 1 to 18 pixels"),
        ({"eval_resize": (16,)}, r"eval_resize is \[16\]"),
        ({"on_error": "ignore"}, "unknown on_error 'ignore'"),
    ],
)
def test_wrong_arguments(cls, options, text):
    with pytest.raises(ZooError, match=text):
        module("data", cls, **options)
