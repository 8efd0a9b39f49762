"""Windows of clips against torchvision's, run as an oracle, at many lengths and rates."""

import numpy as np
import pytest

pytestmark = pytest.mark.parity
pytest.importorskip("torchvision")
pytest.importorskip("lightning")
torch = pytest.importorskip("torch")


# torchvision says so where a video is shorter than a clip
@pytest.mark.filterwarnings("ignore:There aren't enough frames:UserWarning")
def test_windows_are_the_same():
    from torchvision.datasets.video_utils import VideoClips

    from lightning_zoo.datamodules.video_dataset import VideoDataset
    from lightning_zoo.datamodules.video_index import VideoIndex
    from lightning_zoo.transforms.video import EvalTransform
    from lightning_zoo.transforms.video_decode import resample

    ticks = [(1, 10), (1, 15), (1, 24), (1, 25), (1001, 30000), (1, 30), (1, 50), (1, 60)]
    counts = [16, 31, 32, 33, 90, 250, 299, 300]
    videos = [(count, tick) for count in counts for tick in ticks]
    records = [
        {"name": f"{i}.mp4", "count": count, "num": num, "den": den, "deltas": [1],
         "keyframes": [0], "by_time": True}
        for i, (count, (num, den)) in enumerate(videos)
    ]  # fmt: skip
    index = VideoIndex.of(records)
    labels, transform = np.zeros(len(videos), np.int64), EvalTransform()
    data = VideoDataset("val", ".", index.names, labels, index, transform)
    windows = dict(zip(data.videos.tolist(), data.windows.tolist(), strict=True))
    compared = 0
    for i, (count, (num, den)) in enumerate(videos):
        order = resample(index.frames(i), 15.0)
        expected = VideoClips.compute_clips_for_video(torch.arange(count), 16, 1, den / num, 15)[0]
        assert windows.get(i, 0) == len(expected), videos[i]
        for clip, frames in enumerate(expected):
            assert order[clip : clip + 16].tolist() == frames.tolist(), videos[i]
            compared += 1
    assert compared > 1000
