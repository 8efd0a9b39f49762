"""The verb export: a run as a file, what it prints, and what mistakes say."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import Fitted

from lightning_zoo.cli import main
from lightning_zoo.errors import ZooError
from lightning_zoo.export import load

ort = pytest.importorskip("onnxruntime", reason="ONNX needs the extra export")
pytest.importorskip("onnxscript", reason="ONNX needs the extra export")
Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *args: str | Path) -> str:
    status = main(["export", *map(str, args)])
    out, err = capsys.readouterr()
    assert status == 2, out
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def exported(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Export the shared run as ONNX; return the file and what was printed."""
    path = tmp_path_factory.mktemp("exported") / "photos.onnx"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["export", str(fitted.run), "--out", str(path), "--check"]) == 0
    return path, printed.getvalue()


def test_what_is_printed(exported: tuple[Path, str]) -> None:
    path, printed = exported
    assert printed.startswith(f"wrote    {path} (")
    assert "input    images            (N, 3, H, W)" in printed
    assert "output   probs             (N, 3)" in printed
    assert "inside   3 class names: " in printed
    # three inputs of random pixels and four validation photos
    assert "the file agrees with torch on 7 inputs" in printed


def test_the_file_alone_is_enough(exported: tuple[Path, str], fitted: Fitted) -> None:
    from lightning_zoo import predict

    path, _ = exported
    session = ort.InferenceSession(path)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["lightning_zoo"])
    assert facts["classes"] == sorted(facts["classes"])
    assert facts["recipe"] == "finetune_resnet18"
    assert facts["mean"] == pytest.approx([0.485, 0.456, 0.406])
    photo = next(fitted.data.rglob("*.jpg"), None) or next(fitted.data.rglob("*.png"))
    (wanted,) = predict(fitted.run, photo)
    from PIL import Image

    image = Image.open(photo).convert("RGB")
    scale = facts["resize"] / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - facts["crop"]) // 2 for side in image.size)
    pixels = np.asarray(image)[top : top + facts["crop"], left : left + facts["crop"]]
    (probs,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None].copy()})
    best = int(probs[0].argmax())
    assert facts["classes"][best] == wanted.label
    assert float(probs[0, best]) == pytest.approx(wanted.score, abs=0.02)


def test_usage_is_python(exported: tuple[Path, str]) -> None:
    path, printed = exported
    lines = printed.split("use it:\n")[1].splitlines()[:4]
    for line in lines:
        compile(line.strip(), "usage", "exec")
    assert str(path) in lines[1]


def test_pt2_in_the_folder_of_the_run(fitted: Fitted, capsys: Captured) -> None:
    assert main(["export", str(fitted.run), "--format", "pt2", "--check"]) == 0
    assert "agrees with torch" in capsys.readouterr().out
    path = fitted.run / "squeezenet1_1.pt2"
    try:
        network, facts = load(path)
        probs = network(torch.zeros(2, 3, 40, 48, dtype=torch.uint8))["probs"]
    finally:
        path.unlink()
    assert probs.shape == (2, len(facts["classes"]))
    torch.testing.assert_close(probs.sum(1), torch.ones(2))


def test_a_file_that_differs(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    from lightning_zoo.export import graphs

    monkeypatch.setattr(graphs.ClassifierGraph, "normalized", lambda self, x: x.float() / 200 - 0.4)
    out = tmp_path / "wrong.pt2"
    args = ["export", str(fitted.run), "--format", "pt2", "--out", str(out), "--check"]
    assert main(args) == 1
    assert "the file DIFFERS from torch" in capsys.readouterr().out


def test_mistakes(
    fitted: Fitted, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(*args: str | Path) -> str:
        return refused(capsys, *args)

    run = fitted.run
    assert "unknown format 'onx'; did you mean onnx?" in says(run, "--format", "onx")
    assert f"--out {tmp_path} is a folder; name a file" in says(run, "--out", tmp_path)
    assert "--size is '64'; expected height and width in pixels" in says(run, "--size", "64")
    assert "--opset is 9; expected 18 to 23" in says(run, "--opset", "9")
    assert "cannot take images of 1 x 1 pixels; expected sides of at least" in says(
        "alexnet", "--weights", "none", "--size", "1,1", "--out", tmp_path / "a.onnx"
    )
    assert "squeezenet1_1 has no thresholds" in says(run, "--apply_thresholds")
    assert "no run or model 'resnet81'; did you mean resnet18?" in says("resnet81")
    assert "python -m lightning_zoo quantize resnet18" in says("quantization/resnet18")
    empty = tmp_path / "runs" / "a" / "b"
    empty.mkdir(parents=True)
    (empty / "run.json").write_text('{"recipe": "a"}')
    assert "has no checkpoint yet" in says(empty)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "needs onnxscript: pip install 'lightning_zoo[export]'" in says(run)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is no file .*a\.onnx"):
        load(tmp_path / "a.onnx")
    broken = tmp_path / "b.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(ZooError, match=r"b\.onnx is damaged or no ONNX file"):
        load(broken)
    import zipfile

    with zipfile.ZipFile(tmp_path / "c.pt2", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ZooError, match=r"c\.pt2 is damaged or no pt2 file"):
        load(tmp_path / "c.pt2")


def test_help_is_short(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
