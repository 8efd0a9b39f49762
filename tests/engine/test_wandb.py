"""W&B without key and network: the offline file is read back."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_detectors import write_recipe
from wandb_files import values, whole_file

import lightning_zoo as lz
from lightning_zoo.cli import main
from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
from lightning_zoo.engine.scenes import write_scenes


def test_offline_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked a question"))
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=12, size=40)
    changes = {
        "data.root": str(tmp_path / "data"),
        "data.workers": 0,
        "data.albumentations": None,
        "data.train_crop": 32,
        "data.eval_resize": 32,
        "data.eval_crop": 32,
        "model.model": "squeezenet1_1",
        "batch": {"size": 4, "per_device": 4},
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
    }
    result = lz.fit("finetune_resnet18", changes, out=tmp_path / "runs", loggers=["csv", "wandb"])
    (file,) = result.run.glob("wandb/offline-run-*/run-*.wandb")
    history: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    artifacts, run_id = [], ""
    for record in whole_file(file):
        match record.WhichOneof("record_type"):
            case "run":
                run_id = record.run.run_id
                for item in record.run.config.update:
                    config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            case "config":
                for item in record.config.update:
                    config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            case "history":
                for item in record.history.item:
                    name = item.key or ".".join(item.nested_key)
                    history.setdefault(name, []).append(json.loads(item.value_json))
            case "artifact":
                artifacts.append(record.artifact)
    assert config["batch"] == {"size": 4, "per_device": 4}
    assert config["model"]["init_args"]["num_classes"] == 3
    assert len(history["train/loss"]) == 6
    assert len(history["val/acc@1"]) == 2
    assert history["val/acc@1"][-1] == pytest.approx(result.metrics["val/acc@1"])
    rates = history["lr"]
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)  # warm-up, then a cosine
    assert all(rate > 0 for rate in history["images/s"])
    pictures = [name for name in history if name.startswith("val/predictions")]
    assert pictures
    folder = file.parent / "files" / "media" / "images"
    images = sorted(folder.rglob("*.png"))
    assert len(images) >= 8
    captions = json.dumps({name: history[name] for name in pictures})
    assert "truth: " in captions
    (artifact,) = artifacts
    assert artifact.type == "model"
    names = {entry.path for entry in artifact.manifest.contents}
    assert names == {"best.ckpt", "recipe.yaml"}
    assert json.loads((result.run / "run.json").read_text())["wandb_id"] == run_id


def test_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes and masks of validation images, predicted ones and true ones, to be switched on."""
    write_scenes(tmp_path / "data", train=6, val=4, side=64)
    recipe = write_recipe(tmp_path, "masks", root=tmp_path / "data", trainer={"max_epochs": 1})
    out = tmp_path / "runs"
    assert main(["fit", "--recipe", str(recipe), "--logger", "wandb", "--out", str(out)]) == 0
    capsys.readouterr()
    (file,) = out.glob("masks/*/wandb/offline-run-*/run-*.wandb")
    rows = [values(r.history.item) for r in whole_file(file) if r.history.item]
    (entry,) = [row["val/predictions"] for row in rows if "val/predictions" in row]
    assert entry["count"] == 2  # as many as the recipe's run.pictures
    assert all("truth" in caption or "true" in caption for caption in entry["captions"])
    labels = {1: "circle", 2: "cross", 3: "star", 4: "triangle"}
    truth = json.loads((tmp_path / "data/annotations/instances_val2017.json").read_text())
    for i, image in enumerate((1, 3)):  # spread evenly
        boxes = entry["all_boxes"][i]
        assert set(boxes) == set(entry["all_masks"][i]) == {"predictions", "ground_truth"}
        drawn = json.loads((file.parent / "files" / boxes["ground_truth"]["path"]).read_text())
        found = sorted((b["position"]["minX"], b["box_caption"]) for b in drawn["box_data"])
        expected = [
            (a["bbox"][0], labels[a["category_id"]])
            for a in truth["annotations"]
            if a["image_id"] == image
        ]
        assert found == sorted(expected)
        assert drawn["class_labels"] == {str(k): v for k, v in labels.items()}
    for figure in ("val/box_map", "val/mask_map", "val/loss_mask"):
        assert [row[figure] for row in rows if figure in row] != []
