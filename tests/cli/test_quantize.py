"""From a trained run to an INT8 program, its table and its predictions; what mistakes say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import SIDE, Fitted

import lightning_zoo
from lightning_zoo import int8
from lightning_zoo.cli import main
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.engine import int8_table
from lightning_zoo.runs import Run, find_run

pytest.importorskip("torchao", reason="quantizing needs torchao (the extra int8)")
Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *args: str | Path) -> str:
    status = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert status == 2, out
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


@pytest.fixture(autouse=True, scope="module")
def briefly() -> Any:
    """Measure each latency a few times only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_table, "ROUNDS", 3)
        yield


@pytest.fixture(scope="module")
def quantized(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """Quantize the shared run after training; return the new run and what was printed."""
    import contextlib
    import io

    out = tmp_path_factory.mktemp("quantized")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["quantize", str(fitted.run), "--images", "24", "--engines",
                       "onednn,reference", "--out", str(out)])  # fmt: skip
    assert status == 0
    (folder,) = (out / "finetune_resnet18_int8").iterdir()
    return Run(folder), printed.getvalue()


def test_the_table(quantized: tuple[Run, str], fitted: Fitted) -> None:
    run, printed = quantized
    table = json.loads((run.path / "int8.json").read_text())
    assert [(r["network"], r["engine"]) for r in table["rows"]] == [
        ("fp32", "torch"), ("int8", "onednn"), ("int8", "reference")
    ]  # fmt: skip
    fp32, ours, reference = table["rows"]
    before = lightning_zoo.validate(fitted.run, out=fitted.out).metrics
    assert fp32["acc@1"] == pytest.approx(before["val/acc@1"])
    after = lightning_zoo.validate(run.path).metrics
    assert ours["acc@1"] == pytest.approx(after["val/acc@1"])
    assert abs(ours["acc@1"] - reference["acc@1"]) <= 100 / 36  # a photo may lie on the edge
    assert 0.25 < ours["size_mb"] / fp32["size_mb"] < 0.35  # a quarter, and the graph itself
    for row in table["rows"]:
        assert set(row["latency_ms"]) == {"batch 1", "batch 8"}
        for latency in row["latency_ms"].values():
            assert 0 < latency["median"] <= latency["p95"]
        line = next(x for x in printed.splitlines() if row["engine"] in x.split()[1:2])
        assert f"{row['acc@1']:.2f}" in line
    assert f"images of {SIDE} x {SIDE} pixels on 1 CPU thread" in printed
    assert "program  " in printed
    assert "next: python -m lightning_zoo predict " in printed


def test_calibration_sees_what_was_asked_for(quantized: tuple[Run, str], fitted: Fitted) -> None:
    run, _ = quantized
    recipe = lightning_zoo.load_recipe(run.recipe_file)
    assert recipe.is_int8
    assert recipe.task == "quantization"
    assert recipe.problems() == []
    assert recipe.get("data.train_views") == "eval"
    assert recipe.get("data.root") == str(fitted.data)
    assert recipe.get("trainer.limit_train_batches") == 1  # 24 images, 32 at once
    assert recipe.get("model.weights") == str(fitted.run / "checkpoints" / "best.ckpt")


def test_the_program_is_the_run(quantized: tuple[Run, str], fitted: Fitted) -> None:
    run, _ = quantized
    program, facts = int8.load(run.path / "int8.pt2")
    assert facts["classes"] == ["class_0", "class_1", "class_2"]
    assert facts["eval_crop"] == SIDE
    photos = sorted((fitted.data / "val").rglob("*.jpg"))[:6]
    found = lightning_zoo.predict(run.path, photos)
    data = ImageFolderDataModule(root=str(fitted.data), eval_resize=SIDE, eval_crop=SIDE)
    mean, std = (torch.tensor(facts[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    from lightning_zoo.transforms.decode import read_image

    images = torch.stack([data.eval_transform(read_image(p), None) for p in photos])
    with torch.inference_mode():
        probs = int8.lower(program)((images.float() / 255 - mean) / std).softmax(1)
    for one, row in zip(found, probs, strict=True):
        named = dict(one.top)
        for name, p in zip(facts["classes"], row.tolist(), strict=True):
            assert named[name] == pytest.approx(p, abs=0.02)


def test_measured_again(quantized: tuple[Run, str], fitted: Fitted, capsys: Captured) -> None:
    run, _ = quantized
    before = json.loads((run.path / "int8.json").read_text())
    assert main(["quantize", str(run.path), "--engines", "onednn", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    for old, new in zip(before["rows"], again["rows"], strict=False):
        assert old["acc@1"] == new["acc@1"]
    said = refused(capsys, "quantize", run.path, "--qat")
    assert "is INT8 already; it was made from" in said
    assert said.endswith(f"quantize {fitted.run} --qat\n")
    said = refused(capsys, "quantize", run.path / "int8.pt2")
    assert f"is an INT8 program; name its run, {run.path}" in said
    assert find_run(run.path.parent).path == run.path, "a folder of runs: the newest"


def test_without_the_float_run(
    quantized: tuple[Run, str], tmp_path: Path, capsys: Captured
) -> None:
    """Copied to where the float run is not, and broken off before its end."""
    run = tmp_path / "copied"
    shutil.copytree(quantized[0].path, run)
    Run(run).update(status="interrupted")
    recipe = run / "recipe.yaml"
    lines = recipe.read_text().splitlines()
    recipe.write_text("\n".join(re.sub(r"weights: .*", "weights: gone.ckpt", x) for x in lines))
    assert main(["quantize", str(run), "--engines", "onednn"]) == 0
    printed = capsys.readouterr().out
    assert f"go on with: python -m lightning_zoo fit --recipe {run}/recipe.yaml" in printed
    assert "fp32 is not measured: gone.ckpt is not there" in printed
    assert "speed" not in printed


def test_with_random_views(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    args = ["quantize", fitted.run, "--data.train_views", "random", "--data", fitted.data]
    status = main(
        [*map(str, args), "--engines", "onednn", "--threads", "2", "--out", str(tmp_path)]
    )
    assert status == 0
    assert "2 CPU threads" in capsys.readouterr().out
    (folder,) = (tmp_path / "finetune_resnet18_int8").iterdir()
    recipe = lightning_zoo.load_recipe(folder / "recipe.yaml")
    assert recipe.get("data.train_views") == "random"


def test_mistakes(fitted: Fitted, tmp_path: Path, capsys: Captured) -> None:
    run = fitted.run
    assert "did you mean onednn?" in refused(capsys, "quantize", run, "--engines", "onednnn")
    assert "--threads is 0" in refused(capsys, "quantize", run, "--threads", "0")
    assert "--images is 0" in refused(capsys, "quantize", run, "--images", "0")
    assert "give one of them" in refused(capsys, "quantize", run, "--data", "x", "--data.root", "x")
    assert "no data in 'nowhere'" in refused(capsys, "quantize", run, "--data", "nowhere")
    said = refused(capsys, "quantize", "fcn_resnet50")
    assert "fcn_resnet50 is a segmentation model; quantize takes classifiers" in said
    assert "did you mean resnet18?" in refused(capsys, "quantize", "resnet81")
    said = refused(capsys, "quantize", "resnet18", "--data", fitted.data, "--out", tmp_path)
    assert "resnet18 knows 1000 classes and the data in" in said
    assert "has 3; train it on this data first" in said
    assert list(tmp_path.iterdir()) == [], "no run was begun"


def test_without_torchao(fitted: Fitted, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchao", None)
    said = refused(capsys, "quantize", fitted.run)
    assert "needs the package torchao" in said
    assert "pip install 'lightning_zoo[int8]'" in said


def test_published_int8_by_engine(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published file beside the float network's, on every engine of this machine."""
    from lightning_zoo import models
    from lightning_zoo.datamodules import ImageNetDataModule
    from lightning_zoo.models.hub import checkpoint_dir
    from lightning_zoo.models.quantization.eager import supported_engines

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    checkpoint_dir().mkdir(parents=True)
    name = "shufflenet_v2_x0_5"
    for what, args in ((name, {}), (f"quantization/{name}", {"quantize": True})):
        weights = models.get_weights(what)
        stand_in = models.get_model(what, **args)
        torch.save(stand_in.state_dict(), checkpoint_dir() / weights.file_name)
    data = tmp_path / "imagenet"
    ImageNetDataModule.write_fake(data, classes=1000, images=1000, size=16)
    small = ["--data.eval_resize", "64", "--data.eval_crop", "64", "--data.workers", "0"]
    assert main(["quantize", f"quantization/{name}", "--data", str(data), *small, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["run"] is None
    assert [row["engine"] for row in table["rows"]] == ["torch", *supported_engines()]
    for row in table["rows"]:
        assert 0 <= row["acc@1"] <= row["acc@5"] < 5, "random weights"
    said = refused(capsys, "quantize", f"quantization/{name}", "--engines", "inductor")
    assert "unknown --engines 'inductor'; expected one of " in said
    few = tmp_path / "few"
    ImageNetDataModule.write_fake(few, classes=3, images=6, size=16)
    said = refused(capsys, "quantize", f"quantization/{name}", "--data", few, *small)
    assert f"quantization/{name} knows 1000 classes and the data in" in said
    said = refused(capsys, "quantize", "quantization/resnet34")
    assert "unknown model 'quantization/resnet34'; did you mean quantization/resnet" in said
    assert main(["validate", "--recipe", f"{name}_int8", "--weights", "IMAGENET1K_FBGEMM_V1",
                 "--data.root", str(data), *small, "--json"]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)["metrics"]
    row = next(r for r in table["rows"] if r["engine"] == "fbgemm")
    assert found["val/acc@1"] == pytest.approx(row["acc@1"])


def test_fp32_beside_published_int8_is_what_it_was_made_from() -> None:
    from lightning_zoo.engine.quantize import float_weights
    from lightning_zoo.models.registry import registry

    for (task, name), entry in registry().items():
        for int8_name, weights in entry.weights.items() if task == "quantization" else ():
            start = registry()["classification", name].weights[float_weights(int8_name)]
            assert start.preprocessing == weights.preprocessing
            # GoogLeNet is a little better in INT8
            assert abs(start.metrics["acc@1"] - weights.metrics["acc@1"]) < 3
