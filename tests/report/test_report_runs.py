"""Reports of real runs, of every task: figures, thresholds in checkpoints, pictures."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import OVERRIDES, Fitted

import lightning_zoo as lz
from lightning_zoo.callbacks.checkpoints import add_to_checkpoints
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.engine.smoke import shrink
from lightning_zoo.errors import ZooError
from lightning_zoo.formats import DataIndex, Item, Problem
from lightning_zoo.recipe import load_recipe
from lightning_zoo.report import make_report, write_report
from lightning_zoo.runs import Run, list_runs, read_checkpoint

RECIPES = Path(__file__).parents[2] / "recipes"
DEMOS = sorted(path.stem for path in (RECIPES / "demo").glob("*.yaml"))
MASKS_TELL_BOXES = "demo_detection"  # demo_instances is the same and more
INT8 = min(path.stem for path in (RECIPES / "quantization").glob("shufflenet*.yaml"))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the run of a recipe, two steps on a few images that stay there."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            recipe = shrink(load_recipe(name), folder / "data")
            if name in ("demo_detection", "demo_instances", "demo_keypoints"):
                # that something is found after two steps
                recipe = recipe.with_overrides([
                    ("model.model_args.box_score_thresh", 0.0),
                    ("model.model_args.box_detections_per_img", 20),
                ])  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()):
                made[name] = lz.fit(recipe.check(), out=folder / "runs", advise=False).run
        return made[name]

    return get


def check(page: str, run: Path, metrics: dict[str, float]) -> None:
    """See that the page's figures are those of validation, and that its parts are there."""
    expected = {name: v for name, v in lz.validate(run).metrics.items() if "loss" not in name}
    assert expected.keys() == metrics.keys()
    assert metrics == pytest.approx(expected, abs=1e-4, nan_ok=True)
    tiles = re.findall(r'<data value="([^"]+)" data-metric="([^"]+)"', page)
    assert tiles
    for value, name in tiles:
        assert float(value) == pytest.approx(expected[name], abs=1e-4, nan_ok=True)
    for part in ("curves", "classes", "worst", "data", "run"):
        assert f'id="{part}"' in page
    assert page.count("<svg") >= 3
    assert len(page) < 3_000_000


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n in (MASKS_TELL_BOXES, INT8) else n
        for n in (*DEMOS, INT8)
    ],
)
def test_figures_are_those_of_validation(
    name: str, run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(name)
    capsys.readouterr()
    report = write_report(run)
    assert capsys.readouterr() == ("", "")
    assert report.path == run / "report.html"
    page = report.path.read_text(encoding="utf-8")
    check(page, run, report.metrics)
    assert "data:image/jpeg;base64," in page
    ours = read_checkpoint(Run(run).best)["lightning_zoo"]
    if name in ("demo_detection", "demo_instances", "demo_keypoints"):
        assert ours["thresholds"] == report.thresholds
        assert list(report.thresholds) == ours["class_names"][1:]
        assert page.count("<td") > 4 * len(report.thresholds)
    else:
        assert report.thresholds == {}
        assert "thresholds" not in ours


def test_six_demos_and_an_int8_were_found() -> None:
    assert len(DEMOS) == 6
    assert INT8.endswith("_int8")


def test_a_classifier(fitted: Fitted, tmp_path: Path) -> None:
    page_file = make_report(fitted.run, out=tmp_path / "page.html")
    assert page_file == tmp_path / "page.html"
    page = page_file.read_text(encoding="utf-8")
    metrics = {n: v for n, v in lz.validate(fitted.run).metrics.items() if n != "val/loss"}
    check(page, fitted.run, metrics)
    rows = re.findall(r'<tr><th scope="row" class="text">(class_\d)</th>(.*?)</tr>', page)
    matrix = [
        [int(v) for v in re.findall(r"<td[^>]*>(\d+)</td>", cells)]
        for _, cells in rows if "--p:" in cells
    ]  # fmt: skip
    assert [sum(row) for row in matrix] == [12, 12, 12]
    right = sum(matrix[i][i] for i in range(3))
    assert metrics["val/acc@1"] == pytest.approx(100 * right / 36)
    train = re.search(r"<h3>Images of each class</h3>(.*?)</table>", page, re.S)
    assert train is not None
    assert re.findall(r"<td>(\d+)</td>", train[1]) == ["12"] * 6


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with several labels an image."""
    folder = tmp_path_factory.mktemp("several")
    data = folder / "data"
    ImageFolderDataModule.write_fake(data, classes=3, images=18, size=40)
    for split in ("train", "val", "test"):
        with (data / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "<i>red", "green", "blue"])
            for i, path in enumerate(sorted(data.glob(f"{split}/*/*.jpg"), key=lambda p: p.name)):
                label = int(path.parent.name[-1])
                writer.writerow([path.relative_to(data), int(label != 1), int(label > 0), i % 2])
    changes = {**OVERRIDES, "data.root": str(data), "data.labels_csv": "{split}.csv",
               "model.multilabel": "true", "run.pictures": "0"}  # fmt: skip
    pairs = [(key, {"null": None, "true": True}.get(v, v)) for key, v in changes.items()]
    pairs = [(k, float(v) if k.endswith("lr") else int(v) if str(v).isdigit() else v)
             for k, v in pairs]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        return lz.fit("finetune_resnet18", pairs, out=folder / "runs").run


def test_several_labels(several: Path) -> None:
    report = write_report(several)
    page = report.path.read_text(encoding="utf-8")
    check(page, several, report.metrics)
    assert list(report.thresholds) == ["<i>red", "green", "blue"]
    assert "<i>red" not in page
    assert "&lt;i&gt;red" in page
    assert 'id="confusions"' not in page
    for path in (Run(several).best, Run(several).last):
        assert read_checkpoint(path)["lightning_zoo"]["thresholds"] == report.thresholds


def test_it_can_be_resumed_as_if_nothing_was(several: Path, tmp_path: Path) -> None:
    """Thresholds in the checkpoint change nothing else, and a resumed run has none of its own."""
    ends = []
    for name in ("plain", "reported"):
        run = tmp_path / name / "finetune_resnet18" / several.name
        shutil.copytree(several, run)
        content = torch.load(Run(run).last, weights_only=True)
        content["lightning_zoo"].pop("thresholds", None)
        torch.save(content, Run(run).last)
        if name == "reported":
            add_to_checkpoints([Run(run).last], thresholds={"green": 0.25})
            torch.load(Run(run).last, weights_only=True)
        with contextlib.redirect_stdout(io.StringIO()):
            lz.fit(run / "recipe.yaml", {"trainer.max_epochs": 3}, resume=run, out=tmp_path / name)
        (run,) = [one.path for one in list_runs(tmp_path / name)]
        ends.append(torch.load(Run(run).last, weights_only=True))
    assert ends[0]["global_step"] == ends[1]["global_step"] == 6
    for key, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][key])
    assert "thresholds" not in ends[1]["lightning_zoo"]


def save(path: Path, number: int) -> None:
    weights = {"w": torch.full((3,), float(number))}
    ours = {"recipe": {}, "class_names": ["a"]}
    torch.save({"state_dict": weights, "lightning_zoo": ours}, path)


@pytest.mark.parametrize("linked", [False, True])
def test_facts_go_into_both_checkpoints(linked: bool, tmp_path: Path) -> None:
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    save(last, 1)
    if linked:
        os.link(last, best)
    else:
        save(best, 2)
    add_to_checkpoints([best, last], thresholds={"a": 0.25})
    for path in (best, last):
        content = read_checkpoint(path)
        assert content["lightning_zoo"] == {
            "recipe": {}, "class_names": ["a"], "thresholds": {"a": 0.25},
        }  # fmt: skip
        assert content["state_dict"]["w"][0] == (1 if linked or path == last else 2)
    assert os.path.samefile(best, last) == linked
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]
    add_to_checkpoints([last, last], thresholds={"a": 0.5})
    assert read_checkpoint(last)["lightning_zoo"]["thresholds"] == {"a": 0.5}


def test_a_newer_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on meanwhile loses nothing."""
    last = tmp_path / "last.ckpt"
    save(last, 1)
    real = torch.save

    def while_training(content: Any, file: Any) -> None:
        real(content, file)
        newer = {"state_dict": {"w": torch.ones(3) * 7}, "lightning_zoo": {"recipe": {}}}
        real(newer, tmp_path / "new")
        os.replace(tmp_path / "new", last)

    monkeypatch.setattr(torch, "save", while_training)
    add_to_checkpoints([last], thresholds={"a": 0.25})
    assert read_checkpoint(last)["state_dict"]["w"][0] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_broken_files_and_problems_are_told(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "r" / "t"
    shutil.copytree(fitted.run, run)
    data = tmp_path / "photos"
    shutil.copytree(fitted.data, data)
    recipe = load_recipe(run / "recipe.yaml").with_overrides(
        [("data.root", str(data)), ("data.on_error", "skip")]
    )
    (run / "recipe.yaml").write_text(lz.runs.dump(recipe.config))
    broken = sorted((data / "val" / "class_0").iterdir())[0]
    broken.write_bytes(b"no picture")
    entry = {"file": "train/a<b.jpg", "error": "truncated", "split": "train"}
    (run / "ledger.jsonl").write_text(json.dumps(entry) + "\n")
    items = (
        *(Item(f"train/{i}.jpg", "train", labels=(i % 2,)) for i in range(5)),
        *(Item(f"val/{i}.jpg", "val", labels=(i % 2,)) for i in range(3)),
    )
    problems = [
        Problem("warning", "odd box", f"line {i}", "it is odd", "mend it") for i in range(4)
    ] + [Problem("error", "no image", "x.jpg", "gone", "bring it back")]
    index = DataIndex(data, "folders", "classification", ("one", "two", "three"), items,
                      ("class folders were found",), tuple(problems))  # fmt: skip
    monkeypatch.setattr(ImageFolderDataModule, "index", index, raising=False)
    page = make_report(run).read_text(encoding="utf-8")
    assert "35 validation images" in page
    assert f"val/class_0/{broken.name}" in page
    assert "train/a&lt;b.jpg" in page
    assert "class folders were found" in page
    body = page[page.index('id="data"') :]
    rows = re.findall(r"<tr><th[^>]*>(.*?)</th>(.*?)</tr>", body)
    cells = {name: re.findall(r"<td[^>]*>(.*?)</td>", text) for name, text in rows}
    assert (cells["train"], cells["val"]) == (["5"], ["3"])
    assert (cells["one"], cells["two"], cells["three"]) == (["3", "2"], ["2", "1"], ["0", "0"])
    assert cells["no image"][:2] == ["error", "1"]
    assert cells["odd box"] == [
        "warning", "4", "line 0: it is odd; line 1: it is odd; line 2: it is odd", "mend it",
    ]  # fmt: skip
    assert list(cells).index("no image") < list(cells).index("odd box")


def test_mistakes(fitted: Fitted, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r" / "t"
    shutil.copytree(fitted.run, run)
    best = run / "checkpoints" / "best.ckpt"
    with pytest.raises(ZooError, match=r"a report is of a whole run, and .*best.ckpt.* is a check"):
        make_report(best)
    with pytest.raises(ZooError, match=r"--out is .*nowhere/page.html.*there is no folder"):
        make_report(run, out=tmp_path / "nowhere" / "page.html")
    with pytest.raises(ZooError, match="no run 'absent'; expected a run folder"):
        make_report("absent", runs=tmp_path)
    recipe = load_recipe(run / "recipe.yaml")
    none = recipe.with_overrides([("data.val", None)])
    (run / "recipe.yaml").write_text(lz.runs.dump(none.config))
    with pytest.raises(ZooError, match=r"a report needs validation images, and data.val is null"):
        make_report(run)
    gone = recipe.with_overrides([("data.root", str(tmp_path / "gone"))])
    (run / "recipe.yaml").write_text(lz.runs.dump(gone.config))
    with pytest.raises(ZooError, match=r"no data in .*gone"):
        make_report(run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ZooError, match="has no checkpoint yet; train it with"):
        make_report(run)
    assert not (run / "report.html").exists()
    assert dataclasses.asdict(Run(run).state())["status"] == "finished"
