"""Reading, checking and overriding recipe files: what a mistake says, and where it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe, load_recipe, trust, yaml_lines
from lightning_zoo.recipe.build import build

ROOT = Path(__file__).parents[2]

GOOD = """\
# A recipe: python -m lightning_zoo fit --recipe mine
# Source: a test.
#
# A third line.
seed_everything: 0
model:
  class_path: ClassificationTask
  init_args:
    model: resnet18
    num_classes: 10
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
    lr_schedule:
      class_path: MultiStepDecay
      init_args:
        milestones: [3, 6]
data:
  class_path: ImageFolderDataModule
  init_args:
    root: data/images
    scale: [0.5, 1.0]
batch: {size: 8, per_device: 4}
trainer:
  max_epochs: 9
run: {loggers: [csv]}
"""


def recipe_of(text: str, folder: Path) -> Recipe:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def problems(folder: Path, old: str, new: str) -> list[str]:
    """Return the mistakes of the good recipe with one text replaced, without the folder's name."""
    assert GOOD.count(old) == 1
    found = recipe_of(GOOD.replace(old, new), folder).problems()
    return [line.replace(f"{folder}/", "") for line in found]


@pytest.fixture
def good(tmp_path: Path) -> Recipe:
    return recipe_of(GOOD, tmp_path)


def test_good_recipe(good: Recipe) -> None:
    assert good.check() is good
    assert (good.name, good.task, good.model) == ("mine", "classification", "resnet18")
    assert good.header[0].startswith("A recipe: ")
    assert good.header[1:] == ("Source: a test.", "", "A third line.")
    assert good.get("model.optimizer.lr") == 0.1
    assert good.get("model.lr_schedule.milestones") == [3, 6]
    assert good.get("model.lr_schedule.class_path") == "MultiStepDecay"
    assert good.get("model.nothing.here", 7) == 7
    assert good.get("trainer.max_epochs") == 9


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "momentum: 0.9",
            "momentun: 0.9",
            "mine.yaml:11: unknown argument of SGD 'momentun'; did you mean momentum?",
            id="nested key",
        ),
        pytest.param(
            "        milestones: [3, 6]",
            "        milestons: [3, 6]",
            "mine.yaml:15: unknown argument of MultiStepDecay 'milestons'; "
            "did you mean milestones?",
            id="schedule's key",
        ),
        pytest.param(
            "num_classes: 10",
            "num_classes: ten",
            "mine.yaml:10: model.num_classes is 'ten'; expected a whole number or null",
            id="wrong type",
        ),
        pytest.param(
            "milestones: [3, 6]",
            "milestones: [3, 6.5]",
            "mine.yaml:15: model.lr_schedule.milestones is [3, 6.5]; expected list[int]",
            id="wrong type in a list",
        ),
        pytest.param(
            "scale: [0.5, 1.0]",
            "scale: [0.5]",
            "mine.yaml:20: data.scale is [0.5]; expected 2 numbers, [A, B]",
            id="wrong length",
        ),
        pytest.param(
            "root: data/images",
            "root: data/images\n    on_error: ignore",
            "mine.yaml:20: data.on_error is 'ignore'; expected one of refuse, skip",
            id="not among the choices",
        ),
        pytest.param(
            "model: resnet18",
            "model: resnet81",
            "mine.yaml:9: unknown model 'resnet81'; did you mean resnet18? "
            "(see: python -m lightning_zoo models ls)",
            id="unknown model",
        ),
        pytest.param(
            "class_path: ClassificationTask",
            "class_path: ClasificationTask",
            "mine.yaml:7: unknown class 'ClasificationTask'; did you mean ClassificationTask?",
            id="unknown class",
        ),
        pytest.param(
            "torch.optim.SGD",
            "torch.optim.SDG",
            "mine.yaml:11: unknown class 'torch.optim.SDG'; did you mean torch.optim.SGD? "
            "(torch.optim has none)",
            id="unknown optimizer",
        ),
        pytest.param(
            "trainer:",
            "trainr:",
            "mine.yaml:22: unknown section 'trainr'; did you mean trainer?",
            id="section",
        ),
        pytest.param(
            "max_epochs: 9",
            "max_epoch: 9",
            "mine.yaml:23: unknown argument of the trainer 'max_epoch'; did you mean max_epochs?",
            id="trainer's key",
        ),
        pytest.param(
            "max_epochs: 9",
            "max_epochs: 9\n  devices: 2",
            "mine.yaml:24: trainer.devices cannot be set in a recipe: use --devices",
            id="owned key",
        ),
        pytest.param(
            "size: 8",
            "sise: 8",
            "mine.yaml:21: unknown key of batch 'sise'; did you mean size?",
            id="batch's key",
        ),
        pytest.param(
            "[csv]",
            "[wndb]",
            "mine.yaml:24: unknown logger 'wndb'; did you mean wandb?",
            id="logger",
        ),
        pytest.param(
            "seed_everything: 0",
            "seed_everything: -1",
            "mine.yaml:5: seed_everything is -1; expected 0 or more",
            id="seed",
        ),
    ],
)
def test_mistakes_say_where(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in problems(tmp_path, old, new)


def test_missing_parts(tmp_path: Path) -> None:
    assert "mine.yaml:21: batch.per_device is missing: images of one forward pass" in problems(
        tmp_path, "size: 8, per_device: 4", "size: 8"
    )
    assert "mine.yaml:22: trainer.max_epochs is missing: the run would have no end" in problems(
        tmp_path, "  max_epochs: 9", "  precision: 32"
    )
    assert "mine.yaml:6: ClassificationTask needs the argument 'optimizer'" in problems(
        tmp_path,
        "    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}\n",
        "",
    )
    assert "mine.yaml:11: model.optimizer is 'SGD'; expected class_path and init_args" in problems(
        tmp_path, "{class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}", "SGD"
    )


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("momentum", "momentun").replace("num_classes: 10", "num_classes: ten")
    with pytest.raises(ZooError) as caught:
        recipe_of(text, tmp_path).check()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path}/mine.yaml:10: ")
    assert lines[1].startswith(f"{tmp_path}/mine.yaml:11: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"mine\.yaml:4: the key 'c' stands twice, first on line 3"),
        ("a: [1, 2\nb: 3\n", r"mine\.yaml:2: not valid YAML: "),
        ("a:\n\tb: 1\n", r"mine\.yaml:2: not valid YAML: "),
        ("a: 1\n2: b\n", r"mine\.yaml:2: the key 2 is no text"),
        ("a: !!python/object/apply:os.system [ls]\n", r"mine\.yaml:1: the tag .*os\.system is not"),
        ("- a\n- b\n", r"mine\.yaml:1: a recipe is a mapping of sections"),
    ],
    ids=["duplicate key", "open list", "tab", "number as key", "python tag", "list"],
)
def test_bad_yaml(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ZooError, match=expected):
        recipe_of(text, tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    found = recipe_of("", tmp_path).problems()
    assert any("the section 'model' is missing" in line for line in found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet81", r"unknown recipe 'resnet81'; did you mean resnet18\?"),
        ("Resnet18", r"unknown recipe 'Resnet18'; did you mean resnet18\?"),
        (
            "nowhere/mine.yaml",
            r"no recipe file at nowhere/mine\.yaml; see: python -m lightning_zoo",
        ),
        ("qqqqqqq", r"unknown recipe 'qqqqqqq'; see: python -m lightning_zoo recipes ls"),
    ],
)
def test_unknown_recipe(name: str, expected: str) -> None:
    with pytest.raises(ZooError, match=expected):
        load_recipe(name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("1E5", 1e5),
        ("-3e2", -300.0),
        (".5", 0.5),
        ("3", 3),
        ("true", True),
        ("null", None),
        ("[16, 22]", [16, 22]),
        ("1e", "1e"),
        ("e4", "e4"),
        ("v1.2", "v1.2"),
        ("{a", "{a"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found = yaml_lines.parse_scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("model.optimizer.lr", "model.optimizer.lr"),
        ("model.init_args.optimizer.init_args.lr", "model.optimizer.lr"),
        ("model.optimizer.weight_decay", "model.optimizer.weight_decay"),
        ("trainer.max_epochs", "trainer.max_epochs"),
        ("data.workers", "data.workers"),
        ("batch.size", "batch.size"),
    ],
)
def test_overrides(good: Recipe, key: str, read: str) -> None:
    changed = good.with_overrides([(key, 16)])
    assert changed.get(read) == 16
    assert good.get(read) != 16  # the first is as it was
    assert changed.problems() == []


def test_override_of_a_list_and_its_items(good: Recipe) -> None:
    changed = good.with_overrides([("model.lr_schedule.milestones", [1, 2, 4])])
    assert changed.get("model.lr_schedule.milestones") == [1, 2, 4]
    changed = changed.with_overrides([("model.lr_schedule.milestones.1", 3)])
    assert changed.get("model.lr_schedule.milestones") == [1, 3, 4]
    with pytest.raises(ZooError, match=r"--model\.lr_schedule\.milestones\.5: '5' is no item of"):
        good.with_overrides([("model.lr_schedule.milestones.5", 3)])
    with pytest.raises(ZooError, match=r"trainer\.max_epochs is a value, it has no keys"):
        good.with_overrides([("trainer.max_epochs.more", 3)])


def test_override_in_a_list_of_classes() -> None:
    finetune = load_recipe("finetune_resnet18")
    changed = finetune.with_overrides([("data.albumentations.1.p", 0.25)]).check()
    assert changed.config["data"]["init_args"]["albumentations"][1]["init_args"] == {"p": 0.25}


def test_override_within_an_argument_that_the_recipe_leaves_out(good: Recipe) -> None:
    recipe = load_recipe("fasterrcnn_r50_fpn")
    assert recipe.get("model.model_args") is None
    keys = [("model.model_args.min_size", 64), ("model.model_args.max_size", 128)]
    changed = recipe.with_overrides(keys)
    assert changed.config["model"]["init_args"]["model_args"] == {"min_size": 64, "max_size": 128}
    assert changed.problems() == []
    assert recipe.get("model.model_args") is None
    with pytest.raises(ZooError, match=r"did you mean model\.optimizer\.lr\?"):
        recipe.with_overrides([("model.optimiser.lr", 1)])
    # where the class has no such argument, the linter speaks
    (problem,) = good.with_overrides([("model.head.min_size", 64)]).problems()
    assert "unknown argument of ClassificationTask 'head'" in problem


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("", True, "model.finetuning is True; expected class_path: FineTuning with init_args or"),
        ("", {"freeze_epochs": 2}, "expected class_path: FineTuning with init_args or null"),
        ("", {"init_args": {"freeze_epochs": 2}}, "expected class_path: FineTuning with init_args"),
        (".class_path", "Constant", "finetuning.class_path is 'Constant'; expected FineTuning"),
        (".freeze_epoch", 2, "unknown argument of FineTuning 'freeze_epoch'; did you mean freeze_"),
        (".freeze_epochs", "x", "model.finetuning.freeze_epochs is 'x'; expected a number"),
        (".freeze_norms", 1, "model.finetuning.freeze_norms is 1; expected true or false"),
    ],
)
def test_an_argument_that_is_an_object(good: Recipe, key: str, value: Any, expected: str) -> None:
    node = {"class_path": "FineTuning", "init_args": {"freeze_epochs": 0.5}}
    with_node = good.with_overrides([("model.finetuning", node)]).check()
    assert with_node.with_overrides([("model.finetuning", None)]).check()
    with pytest.raises(ZooError) as caught:
        with_node.with_overrides([(f"model.finetuning{key}", value)]).check()
    assert expected in str(caught.value)


def test_a_class_within_plain_data_is_checked_and_built(good: Recipe) -> None:
    anchors = {
        "class_path": "lightning_zoo.models.detection.anchors.AnchorGenerator",
        "init_args": {"sizes": [[16], [32]], "aspect_ratios": [[1.0]] * 2},
    }
    key = "model.model_args.rpn_anchor_generator"
    recipe = load_recipe("fasterrcnn_r50_fpn").with_overrides([(key, anchors)])
    assert recipe.problems() == []
    assert "unknown argument of AnchorGenerator 'size'" in str(
        recipe.with_overrides([(f"{key}.size", 3)]).problems()
    )
    outside = recipe.with_overrides([(f"{key}.class_path", "os.path.Sizes")])
    assert "outside what recipes may use" in str(outside.problems())
    inner = {"class_path": "torch.nn.Flatten", "init_args": {"start_dim": 2}}
    made = build({"class_path": "torch.nn.ModuleDict", "init_args": {"modules": {"deep": inner}}})
    assert made["deep"].start_dim == 2


def test_the_recipe_of_a_run_is_called_as_it_was(good: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    assert load_recipe(path).name == "recipe"
    (tmp_path / "run.json").write_text('{"recipe": "cells_resnet18"}')
    assert load_recipe(path).name == "cells_resnet18"
    (tmp_path / "run.json").write_text("damaged")
    assert load_recipe(path).name == "recipe"


def test_mistakes_of_overrides_name_the_option(good: Recipe) -> None:
    changed = good.with_overrides([("model.optimizer.lrr", 1), ("trainer.max_epochs", "many")])
    assert changed.problems() == [
        "--model.optimizer.lrr: unknown argument of SGD 'lrr'; did you mean lr?",
        "--trainer.max_epochs: trainer.max_epochs is 'many'; expected a whole number or null",
    ]
    with pytest.raises(ZooError, match=r"did you mean model\.optimizer\.lr\?"):
        good.with_overrides([("model.optimiser.lr", 1)])
    with pytest.raises(ZooError, match=r"did you mean model\.num_classes\?"):
        good.with_overrides([("modell.num_classes", 1)])


def test_another_class(good: Recipe) -> None:
    # the arguments stay; those that the new class does not know are named
    adamw = good.with_overrides([("model.optimizer.class_path", "torch.optim.AdamW")])
    assert adamw.problems() == [
        f"{good.path}:11: unknown argument of AdamW 'momentum'; expected one of amsgrad, betas, "
        "capturable, differentiable, eps, foreach, fused, lr, maximize, params, weight_decay"
    ]
    whole = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}
    adamw = good.with_overrides([("model.optimizer", whole), ("model.optimizer.eps", 1e-6)])
    assert adamw.check().get("model.optimizer.eps") == 1e-6
    import torch

    optimizer = build({"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}, params=[
        torch.nn.Parameter(torch.zeros(1))
    ])  # fmt: skip
    assert type(optimizer) is torch.optim.AdamW


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "lightning_zoo_evil.Task",
        "torchvision.models.ResNet",
        "pathlib.Path",
    ],
)
@pytest.mark.parametrize("key", ["model", "data", "model.optimizer", "model.lr_schedule"])
def test_untrusted_classes_are_refused(good: Recipe, key: str, class_path: str) -> None:
    bad = good.with_overrides([(f"{key}.class_path", class_path)])
    assert any(
        f"class_path '{class_path}' is outside what recipes may use as a" in line
        and "(--trust lets a recipe name others" in line
        for line in bad.problems()
    )
    with pytest.raises(ZooError, match="is outside what recipes may use"):
        build({"class_path": class_path, "init_args": {}})


@pytest.mark.parametrize("class_path", ["torch.os.system", "torch.load", "torch.hub.load"])
def test_only_classes_of_trusted_packages(good: Recipe, class_path: str) -> None:
    bad = good.with_overrides([("model.optimizer.class_path", class_path)])
    assert any("is outside what recipes may use" in line for line in bad.problems())
    with pytest.raises(ZooError, match="is outside what recipes may use"):
        build({"class_path": class_path, "init_args": {}})
    with trust():
        assert any(f"unknown class '{class_path}'" in line for line in bad.problems())
        with pytest.raises(ZooError, match="unknown class"):
            build({"class_path": class_path, "init_args": {}})


@pytest.mark.parametrize("args", [["lint"], ["ls"], ["show", "resnet50"]], ids=lambda a: a[0])
def test_no_torch_is_imported(args: list[str]) -> None:
    code = (
        "import sys\nfrom lightning_zoo.cli import main\n"
        f"status = main(['recipes', *{args!r}])\n"
        "heavy = {'torch', 'lightning', 'numpy', 'PIL', 'cv2', 'albumentations'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
