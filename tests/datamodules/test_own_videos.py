"""Your own videos: folders and a table give the same clips."""

import shutil

import pytest
import torch

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import OwnVideosDataModule, VideoFolderDataModule
from lightning_zoo.errors import ZooError

SMALL = {
    "workers": 0,
    "index_workers": 0,
    "train_resize": (18, 24),
    "train_crop": 16,
    "eval_resize": (18, 24),
    "eval_crop": 16,
    "clip_frames": 4,
}


@pytest.fixture
def root(tmp_path):
    OwnVideosDataModule.write_fake(tmp_path / "data", classes=2, images=4, size=32)
    return tmp_path / "data"


def module(root, cls=OwnVideosDataModule, stage="fit", **options):
    data = cls(root=str(root), **{**SMALL, **options})
    data.configure(BatchPlan(4, 4, 1, 1), seed=1)
    data.setup(stage)
    return data


def batches(data):
    loaders = (data.train_dataloader(), data.val_dataloader())
    return [(b["video"], b["label"], b["clip"]) for loader in loaders for b in loader]


def write_table(root):
    rows = [f"{p.relative_to(root)},{p.parts[-2]},{p.parts[-3]}" for p in root.rglob("*.mp4")]
    (root / "labels.csv").write_text("\n".join(["video,label,split", *sorted(rows)]))


def test_the_same_as_folders_and_as_a_table(root):
    plain = batches(module(root, VideoFolderDataModule))
    folders = module(root)
    assert (folders.index.format, folders.target) == ("video_folders", "video")
    assert folders.class_names == ["class_0", "class_1"]
    as_folders = batches(folders)
    write_table(root)
    table = module(root, format="video_csv")
    assert table.index.format == "video_csv"
    as_rows = batches(table)
    assert len(plain) == len(as_folders) == len(as_rows) == 10
    for a, b, c in zip(plain, as_folders, as_rows, strict=True):
        for x, y, z in zip(a, b, c, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(x, z)


def test_splits(root):
    shutil.rmtree(root / "val")
    data = module(root, val_share=0.25)
    assert data.num_train_samples == 2 * 5
    assert len(list(data.val_dataloader())) == 3  # 2 videos of 5 clips in batches of 4
    data.setup("test")
    assert {n for b in data.test_dataloader() for n in b["id"]} == {
        f"test/class_{i % 2}/test_{i:04d}.mp4" for i in range(4)
    }


def test_errors(root):
    write_table(root)
    (root / "val/class_1/val_0001.mp4").unlink()
    with pytest.raises(
        ZooError, match=r"1 error in the data .* there is no video 'val/class_1/val_0001.mp4'"
    ):
        module(root, format="video_csv")
    with pytest.warns(UserWarning, match="1 error, the first is labels.csv line 12"):
        data = module(root, format="video_csv", on_error="skip")
    assert len(data.datasets["val"]) == 3 * 5
    (root / "labels.csv").unlink()
    (root / "val/class_0/val_0002.mp4").write_bytes(b"broken")
    with pytest.raises(ZooError, match=r"1 of 3 videos in .* cannot be read, the first is 'val/cl"):
        module(root)
