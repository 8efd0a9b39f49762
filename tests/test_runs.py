"""Run folders: made, found, read back, and never half written."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_zoo import runs
from lightning_zoo.errors import ZooError
from lightning_zoo.runs import (
    Run,
    RunState,
    create_run,
    environment,
    find_run,
    list_runs,
    newest_unfinished,
    read_checkpoint,
    write_text,
)

CONFIG: dict[str, Any] = {"seed_everything": 0, "model": {"init_args": {"b": None, "a": [1, 2.5]}}}


def make(out: Path, recipe: str = "mine", status: str = "finished", checkpoint: bool = True) -> Run:
    run = create_run(out, recipe, CONFIG, ("first line", "second"))
    run.update(status=status)
    if checkpoint:
        torch.save({"state_dict": {}}, run.last)
    return run


def test_create(tmp_path: Path) -> None:
    run = create_run(tmp_path / "deep/runs", "mine", CONFIG, ("first line", "second"))
    assert run.path.parent == tmp_path / "deep/runs/mine"
    text = run.recipe_file.read_text()
    assert text.startswith("# first line\n# second\nseed_everything: 0\n")
    assert yaml.safe_load(text) == CONFIG
    assert text.index("b:") < text.index("a:"), "keys keep their order"
    state = run.state()
    assert (state.recipe, state.status, state.process) == ("mine", "running", os.getpid())
    assert state.finished is None
    assert json.loads((run.path / "environment.json").read_text())["lightning_zoo"]
    assert run.checkpoints.is_dir()
    link = tmp_path / "deep/runs/last"
    assert link.is_symlink()
    assert not Path(os.readlink(link)).is_absolute()  # the folder may be moved
    assert link.resolve() == run.path.resolve()


def test_two_runs_of_one_second(tmp_path: Path) -> None:
    made = [create_run(tmp_path, "mine", CONFIG, ()) for _ in range(3)]
    assert len({run.path for run in made}) == 3
    assert (tmp_path / "last").resolve() == made[-1].path.resolve()
    assert [r.path.name for r in list_runs(tmp_path)] == [r.path.name for r in made]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ZooError, match=r"cannot make the run folder .*; choose one with --out"):
        create_run(tmp_path / "file", "mine", CONFIG, ())


def test_find(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path, "other")
    assert find_run("last", tmp_path).path == second.path.resolve()
    assert find_run(tmp_path / "last", Path("elsewhere")).path == second.path.resolve()
    assert find_run(first.path, Path("elsewhere")).path == first.path.resolve()
    assert find_run("mine", tmp_path).path == first.path.resolve()
    assert find_run(f"mine/{first.path.name}", tmp_path).path == first.path.resolve()
    third = make(tmp_path)
    assert find_run("mine", tmp_path).path == third.path.resolve()


def test_find_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZooError) as caught:
        find_run("resnet18", tmp_path)
    assert str(caught.value) == (
        "no run 'resnet18'; expected a run folder, 'last' or a recipe's name; "
        f"{tmp_path}/ has no runs yet"
    )
    make(tmp_path, "resnet18")
    make(tmp_path, "alexnet")
    with pytest.raises(ZooError, match=r"^no run 'resnet81'; did you mean resnet18\?$"):
        find_run("resnet81", tmp_path)
    with pytest.raises(ZooError, match=r"; runs in .*/: alexnet, resnet18$"):
        find_run("qqqq", tmp_path)
    with pytest.raises(ZooError, match=r"^no run or model 'vgg166'; did you mean vgg16\?$"):
        find_run("vgg166", tmp_path, ["vgg16", "vgg19"])
    with pytest.raises(ZooError, match="no run"):
        find_run("", tmp_path)
    with pytest.raises(ZooError, match="no run"):
        find_run("..", tmp_path)


def test_newest_unfinished(tmp_path: Path) -> None:
    assert newest_unfinished(tmp_path, "mine") is None
    make(tmp_path, status="failed")
    stopped = make(tmp_path, status="interrupted")
    make(tmp_path, "other", status="running")
    make(tmp_path, status="finished")
    found = newest_unfinished(tmp_path, "mine")
    assert found is not None
    assert found.path == stopped.path.resolve()
    make(tmp_path, status="failed", checkpoint=False)  # died at once: nothing to go on from
    found = newest_unfinished(tmp_path, "mine")
    assert found is not None
    assert found.path == stopped.path.resolve()
    make(tmp_path, "new", status="running", checkpoint=False)
    assert newest_unfinished(tmp_path, "new") is None


def test_two_threads_change_one_run(tmp_path: Path) -> None:
    """As the main one does and the one that watches over the ranks; each keeps the other's word."""
    run = make(tmp_path)

    def change(field: str) -> None:
        for i in range(300):
            run.update(**{field: f"{field} {'x' * (i % 50)}"})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(change, ["error", "finished"]))
    state = run.state()
    assert (state.error, state.finished) == (f"error {'x' * 49}", f"finished {'x' * 49}")
    assert not list(run.path.glob(".run.json*"))


def test_best_falls_back_to_last(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert run.best == run.last
    run.checkpoints.joinpath("best.ckpt").touch()
    assert run.best.name == "best.ckpt"


def test_state_of_another_version(tmp_path: Path) -> None:
    run = make(tmp_path)
    data = json.loads((run.path / "run.json").read_text())
    del data["host"], data["error"]
    (run.path / "run.json").write_text(json.dumps(data | {"from_the_future": 1}))
    assert run.state().host == ""
    run.update(results={"val/acc@1": 12.5})
    assert run.state().results == {"val/acc@1": 12.5}
    assert run.state().status == "finished"


@pytest.mark.parametrize("text", [None, "", "{", '{"status": '])
def test_unreadable_state(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(ZooError, match="is no run folder: "):
        Run(tmp_path).state()


def test_write_text_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old ä")
    assert path.read_bytes() == "old ä".encode()

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "replace", fail)
    with pytest.raises(ZooError, match=r"cannot write .*a\.json: No space left on device"):
        write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text(encoding="utf-8") == "old ä"


def test_environment_names_the_revision() -> None:
    found = environment()
    assert found["packages"]["torch"] == torch.__version__
    assert found["gpus"] == [
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    ]
    head = Path(__file__).parents[1] / ".git" / "HEAD"
    if head.is_file() and found["git"] is not None:
        revision = head.read_text().strip()
        if revision.startswith("ref: "):
            ref = head.parent / revision.removeprefix("ref: ")
            revision = ref.read_text().strip() if ref.is_file() else found["git"]
        assert found["git"] == revision


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/lightning_zoo_was_here",))


def test_read_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "x": Evil()}, path)
    with pytest.raises(ZooError, match=r"evil\.ckpt holds Python objects") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not Path("/tmp/lightning_zoo_was_here").exists()


def test_read_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with pytest.raises(ZooError, match=r"^no checkpoint at .*a\.ckpt$"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ZooError, match="is no checkpoint of a run"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ZooError, match="is damaged"):
        read_checkpoint(path)
    torch.save({"state_dict": {"w": torch.ones(2)}}, path)
    assert read_checkpoint(path)["state_dict"]["w"].tolist() == [1, 1]


def test_state_is_written_whole() -> None:
    state = RunState("mine")
    assert (state.status, state.results, state.wandb_id) == ("running", {}, None)
