"""A loss that is not finite: nothing has seen it, the step is kept, and a replay explains it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from replay_cases import (
    TASKS,
    Case,
    fit,
    make_case,
    spoil_batch,
    spoil_box,
    spoil_pixels,
    spoil_weights,
)
from torch import nn

import lightning_zoo as lz
from lightning_zoo.cli import main
from lightning_zoo.errors import NotFiniteError, ZooError
from lightning_zoo.nonfinite import find_step
from lightning_zoo.tasks import ClassificationTask, Task

WEIGHT = {
    "classification": "stage2.0.branch2.0.weight",
    "segmentation": "classifier.0.weight",
    "video": "layer1.0.conv1.0.0.weight",
}
FIRST_CONV = {"classification": "stage2.0.branch1.0", "video": "stem.3"}
FILES = ["batch.pt", "facts.json", "recipe.yaml", "state.pt"]

slow = pytest.mark.slow


class Cases:
    """Small runs, their data written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Case] = {}

    def __getitem__(self, task: str) -> Case:
        if task not in self.made:
            (self.folder / task).mkdir()
            self.made[task] = make_case(task, self.folder / task)
        return self.made[task]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(tmp_path_factory.mktemp("cases"))


def fails(case: Case, out: Path, overrides: dict[str, Any] | None = None) -> tuple[Path, str]:
    """Run a case that has to end with the error; return the kept step's folder and the sentence."""
    with pytest.raises(NotFiniteError) as caught:
        fit(case, out, overrides)
    text = str(caught.value)
    folder = find_step(out / "last")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "leftovers"
    state = json.loads((folder.parents[1] / "run.json").read_text())
    assert (state["status"], text in state["error"]) == ("failed", True)
    assert text.count("\n") == 0
    assert f"nonfinite/{folder.name}" in text
    return folder, text


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def network_of(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's part of a checkpoint's state."""
    state = checkpoint["state_dict"]
    return {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}


def assert_same(one: Any, other: Any) -> None:
    """Compare plain data and tensors, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("task", TASKS)
def test_an_image(task: str, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases[task]
    with monkeypatch.context() as patch:
        spoil_batch(patch, 3, spoil_pixels(case.pixels))  # the second step's second batch
        folder, text = fails(case, tmp_path)
    facts = json.loads((folder / "facts.json").read_text())
    assert (facts["step"], facts["epoch"], facts["rank"], facts["loss"]) == (1, 0, 0, "nan")
    assert facts["what"] == "loss"
    assert text.startswith("the loss is no finite number in epoch 0, step 1 (")
    ids = [str(one) for one in facts["ids"]]
    assert len(ids) == 2
    assert ", ".join(ids) in text
    assert [len(chunk) for chunk in facts["earlier"]] == [2]
    assert "N/A" not in facts["class_names"][1:2]

    # the state is what the step began with: that of the checkpoint, but for the buffers, which the
    # step's first batch has changed
    kept, last = load(folder / "state.pt"), load(folder.parents[1] / "checkpoints/last.ckpt")
    assert last["global_step"] == 1
    before = network_of(last)
    assert kept["state_dict"].keys() == before.keys()
    for name, value in kept["state_dict"].items():
        assert bool(value.isfinite().all()), name
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name]), name
    batch = load(folder / "batch.pt")["batch"]
    assert [str(one) for one in batch["id"]] == ids
    assert bool(batch[case.pixels][1].isnan().any())

    found = lz.replay(folder)
    assert found.is_same
    assert found.reproduced
    assert [(s.position, str(s.id)) for s in found.samples] == [(1, ids[1])]
    assert (case.recipe.parent / "data" / found.samples[0].file).is_file()
    assert "values of the" in found.oddities[0].text
    assert found.oddities[0].sample == 1
    assert not found.input_is_finite
    assert (found.module, found.parameters, found.every_sample) == (None, (), False)
    assert f"mend or remove {facts['files'][1]}" in found.text()


@pytest.mark.parametrize(
    "task", [t if t in ("classification", "masks", "video") else pytest.param(t, marks=slow)
             for t in TASKS]
)  # fmt: skip
def test_a_weight(task: str, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = WEIGHT.get(task, "roi_heads.box_head.fc6.weight")
    with monkeypatch.context() as patch:
        spoil_weights(patch, 1, name)
        folder, _ = fails(cases[task], tmp_path)
    found = lz.replay(folder)
    assert (found.is_same, found.reproduced, found.parameters) == (True, True, (name,))
    assert (found.module, found.direction) == (name.removesuffix(".weight"), "forward")
    assert found.samples == ()
    assert "the weights were lost before" in found.text()
    assert bool(load(folder / "state.pt")["state_dict"][name].isnan().any())


@pytest.mark.parametrize(
    "task", [t if t in ("boxes", "keypoints", "segmentation") else pytest.param(t, marks=slow)
             for t in TASKS]
)  # fmt: skip
def test_a_learning_rate(task: str, cases: Cases, tmp_path: Path) -> None:
    folder, text = fails(cases[task], tmp_path, {"model.optimizer.lr": 1e30})
    assert "step 1" in text
    found = lz.replay(folder)
    assert (found.is_same, found.reproduced, found.parameters) == (True, True, ())
    assert (found.every_sample, found.samples) == (True, ())
    assert found.direction == "forward"
    assert found.module
    assert "onv" in str(found.module_type)
    name, size = found.largest_weight or ("", 0.0)
    assert size > 1e25
    assert f"the largest weight is {size:.3g} ({name}); lower --model.optimizer.lr" in found.text()


@pytest.mark.parametrize("task", ["boxes", pytest.param("keypoints", marks=slow)])
def test_an_annotation(
    task: str, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box that is finite, and whose width is not."""
    with monkeypatch.context() as patch:
        spoil_batch(patch, 3, spoil_box(-3e38, -3e38, 3e38, 3e38))
        folder, text = fails(cases[task], tmp_path)
    assert "loss_box_reg nan" in text
    found = lz.replay(folder)
    assert (found.is_same, found.module, found.module_type) == (True, "roi_heads", "RoIHeads")
    (sample,), (odd,) = found.samples, found.oddities
    objects = len(load(folder / "batch.pt")["batch"]["target"][1]["boxes"])
    assert (sample.position, sample.items) == (1, (objects - 1,) if objects > 1 else ())
    assert (odd.sample, odd.item) == (1, objects - 1)
    assert odd.box is not None
    assert odd.box[0] == pytest.approx(-3e38)
    assert "reaches far out of the image of 64 x 64 pixels" in odd.text
    assert [name for name, value in found.terms.items() if value != value] == ["loss_box_reg"]


def test_what_was_mended_goes_on_as_if_nothing_had_been(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither weights, averages, optimizer, schedule nor figures have seen the step."""
    case = cases["classification"]
    whole = fit(case, tmp_path / "whole")
    tasks = []
    begin = Task.on_train_batch_start

    def note(self: Task, batch: Any, batch_idx: int) -> None:
        tasks.append(self)
        begin(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        spoil_batch(patch, 3, spoil_pixels(case.pixels))
        patch.setattr(Task, "on_train_batch_start", note)
        folder, _ = fails(case, tmp_path / "broken")
    # what is left in memory is what the checkpoint before holds, but for the buffers
    task, last = tasks[-1], load(folder.parents[1] / "checkpoints/last.ckpt")
    assert task.ema is not None
    for name, value in task.state_dict().items():
        if name.startswith("ema.") or name in dict(task.named_parameters()):
            assert torch.equal(value, last["state_dict"][name]), name
    assert_same(task.trainer.optimizers[0].state_dict(), last["optimizer_states"][0])

    broken = fit(case, tmp_path / "broken", resume="auto")
    assert broken == folder.parents[1].resolve()
    one, other = (load(run / "checkpoints/last.ckpt") for run in (whole, broken))
    assert one["global_step"] == other["global_step"] == 6
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch_loss"):
        assert_same(one[part], other[part])
    assert any(name.startswith("ema.") for name in one["state_dict"])
    figures = [(run / "metrics.csv").read_text() for run in (whole, broken)]
    assert figures[0] == figures[1]


def _zero(logits: torch.Tensor) -> torch.Tensor:
    return (logits * 0).sum().sqrt()  # its derivative is infinite


def test_a_gradient_of_the_loss(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ClassificationTask.loss
    monkeypatch.setattr(ClassificationTask, "loss", lambda *args: plain(*args) + _zero(args[1]))
    folder, text = fails(cases["classification"], tmp_path)
    assert re.search(r"the loss is \d\S* and its gradient is not finite in epoch 0, step 0", text)
    assert " more; images" in text
    found = lz.replay(folder)
    assert (found.what, found.is_same, found.reproduced) == ("gradient", True, True)
    assert found.module is None
    assert "fc.weight" in found.gradients
    assert "not finite between the loss and the network's output" in found.text()


def test_a_gradient_within_the_network(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = nn.MaxPool2d.forward
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda self, x: plain(self, x) + _zero(x))
    folder, _ = fails(cases["classification"], tmp_path)
    found = lz.replay(folder)
    assert (found.is_same, found.module, found.direction) == (True, "maxpool", "backward")
    assert set(found.gradients) == {"conv1.0.weight", "conv1.1.weight", "conv1.1.bias"}
    assert "its gradient is not finite, that of its output is" in found.text()


def test_no_checkpoint_of_lost_weights(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever made them: the last whole checkpoint stays."""
    plain = Task.optimizer_step

    def spoilt(self: Task, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        if self.trainer.global_step == 1:  # the second
            with torch.no_grad():
                self.model.get_parameter("fc.bias")[0] = torch.inf

    monkeypatch.setattr(Task, "optimizer_step", spoilt)
    with pytest.raises(NotFiniteError, match=r"not finite after step 2 and no .*\(model.fc.bias\)"):
        fit(cases["classification"], tmp_path)
    last = load(tmp_path / "last/checkpoints/last.ckpt")
    assert last["global_step"] == 1
    assert all(bool(v.isfinite().all()) for v in last["state_dict"].values())


def test_the_verb(
    cases: Cases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = cases["boxes"]
    runs = tmp_path / "runs"
    with monkeypatch.context() as patch:
        spoil_batch(patch, 2, spoil_box(-3e38, -3e38, 3e38, 3e38))
        folder, _ = fails(case, runs)
    capsys.readouterr()
    assert main(["replay", str(runs / "last"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["is_same"], found["module"], found["loss"]) == (True, "roi_heads", "nan")
    assert found["folder"].endswith("nonfinite/step_1")
    assert main(["replay", "last", "--runs", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "loss     nan; replayed nan: the same to the last bit"
    assert lines[2] == "terms    loss_box_reg nan"
    assert max(len(line.split()[0]) for line in lines) <= 8

    # mended by hand, it is finite
    batch = load(folder / "batch.pt")
    target = batch["batch"]["target"][1]
    target["boxes"][-1] = torch.tensor([1.0, 1.0, 20.0, 20.0])
    torch.save(batch, folder / "batch.pt")
    assert main(["replay", str(folder)]) == 1
    answer = capsys.readouterr().out
    assert ": not the same\n" in answer
    assert "module   none: all values are finite now" in answer

    (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:1000])
    assert main(["replay", str(folder)]) == 2
    assert f"{folder}/state.pt is damaged" in capsys.readouterr().err
    torch.save({"state_dict": {}}, folder / "state.pt")
    assert main(["replay", str(folder)]) == 2
    assert "step_1 does not hold what a run keeps (RuntimeError: " in capsys.readouterr().err
    (folder / "facts.json").write_text("[")
    assert main(["replay", str(folder)]) == 2
    assert f"cannot read {folder}/facts.json: " in capsys.readouterr().err


def test_nothing_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs" / "small" / "2026-01-01_00-00-00"
    (run / "nonfinite" / "step_3").mkdir(parents=True)
    (run / "run.json").write_text('{"recipe": "small", "command": []}')
    for what, answer in (
        (str(run), "has no folder nonfinite/: every loss of that run was finite"),
        ("small", "has no folder nonfinite/: every loss of that run was finite"),
        (str(run / "nonfinite" / "step_3"), "step_3 has no facts.json; expected a folder that a"),
        ("smal", "no run 'smal'; did you mean small?"),
        (str(tmp_path), "is neither a run nor a folder in its nonfinite/"),
    ):
        assert main(["replay", what, "--runs", str(tmp_path / "runs")]) == 2
        assert answer in capsys.readouterr().err
    assert main(["replay", str(run), "--device", "gpu"]) == 2
    assert "unknown --device 'gpu'; did you mean cpu?" in capsys.readouterr().err
    with pytest.raises(ZooError, match="every loss of that run was finite"):
        lz.replay(run)
