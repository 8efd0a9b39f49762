"""Photos and films that mean harm among good ones: each is named, the good ones are predicted."""

import json
import time

import pytest
import torch
from hostile_media import encode, mp4, photo
from test_bombs import IMAGES, VIDEOS

from lightning_zoo.cli import main
from lightning_zoo.recipe.build import build


@pytest.fixture
def checkpoint(tmp_path):
    """Write a classifier that nobody has trained."""
    init = {
        "model": "squeezenet1_1", "num_classes": 2,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    }  # fmt: skip
    recipe = {
        "model": {"class_path": "ClassificationTask", "init_args": init},
        "data": {"class_path": "ImageFolderDataModule",
                 "init_args": {"root": "gone", "eval_crop": 64, "eval_resize": 64}},
        "batch": {"size": 2, "per_device": 2}, "trainer": {"max_epochs": 1},
    }  # fmt: skip
    state = build(json.loads(json.dumps(recipe["model"]))).state_dict()
    path = tmp_path / "best.ckpt"
    ours = {"recipe": recipe, "class_names": ["one", "two"]}
    torch.save({"state_dict": state, "lightning_zoo": ours}, path)
    return path


def test_predict(tmp_path, checkpoint, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    bad = {name: data for name, (data, _) in IMAGES.items() if not name.endswith("gif")}
    bad |= {name: data for name, (data, _) in VIDEOS.items() if name != "size.mp4"}
    good = {"good.jpg": encode(photo(), "JPEG"), "good.mp4": mp4(encode(photo(), "JPEG"), times=3)}
    for name, data in {**bad, **good}.items():
        (folder / name).write_bytes(data)
    start = time.process_time()
    assert main(["predict", str(checkpoint), "in", "--out", "out", "--json"]) == 1
    assert time.process_time() - start < 30
    printed = capsys.readouterr()
    for name in bad:
        assert f"in/{name}" in printed.err
    for name in good:
        assert f"in/{name}" not in printed.err
        assert f"in/{name}" in printed.out
