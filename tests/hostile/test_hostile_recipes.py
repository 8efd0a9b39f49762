"""Recipes that would run something: refused in one sentence unless --trust, and quickly."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_zoo.cli import main
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe, load_recipe, trust, yaml_lines
from lightning_zoo.recipe.build import build
from lightning_zoo.recipe.trust import SLOTS, is_trusting

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
OPTIMIZER = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
# Real callables that would do harm, or import what is not named here; none is a class of ours.
CALLABLES = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.__import__",
    "shutil.rmtree",
    "pathlib.Path",
    "importlib.import_module",
    "runpy.run_path",
    "torch.os.system",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.utils.benchmark.Timer",
    "torch.utils.data.DataLoader",
    "torch.utils.cpp_extension.CppExtension",
    "torch.utils.file_baton.FileBaton",
    "torch.multiprocessing.Process",
    "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
    "torch.distributed.run.Popen",
    "torch.storage.UntypedStorage",
    "torch.nn.utils.os.system",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.optim.lr_scheduler.types.FunctionType",
    "lightning.pytorch.plugins.environments.MPIEnvironment",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.fabric.strategies.launchers.subprocess_script._SubprocessScriptLauncher",
    "albumentations.check_version.Request",
    "albumentations.core.hub_mixin.HubMixin",
    "albumentations.augmentations.utils.Path",
    "lightning_zoo.runs.Run",
    "lightning_zoo.cli.Parser",
    "lightning_zoo.engine.fit.FitResult",
    "lightning_zoo.callbacks.Checkpoints",
    "lightning_zoo.loggers.MetricsCsv",
    "lightning_zoo.formats.coco.CocoFormat",
    "wandb.Settings",
    "yaml.UnsafeLoader",
    "__main__.Thing",
    "torchvision.models.ResNet",
]
NOT_NAMES = [
    "torch.optim./../../evil.SGD",
    "torch..optim.SGD",
    "torch.optim.SGD()",
    "a b.C",
    ".SGD",
    "",
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Return a recipe with a class in every place that takes one."""
    config = {
        "seed_everything": 0,
        "model": {
            "class_path": "DetectionTask",
            "init_args": {
                "model": "fasterrcnn_mobilenet_v3_large_320_fpn",
                "num_classes": 3,
                "model_args": {
                    "rpn_anchor_generator": {
                        "class_path": "lightning_zoo.models.detection.anchors.AnchorGenerator",
                        "init_args": {"sizes": [[16]], "aspect_ratios": [[1.0]]},
                    }
                },
                "optimizer": copy.deepcopy(OPTIMIZER),
                "lr_schedule": {"class_path": "StepDecay", "init_args": {"every_epochs": 3}},
                "finetuning": {"class_path": "FineTuning", "init_args": {"freeze_epochs": 1}},
            },
        },
        "data": {
            "class_path": "CocoDataModule",
            "init_args": {
                "root": "data/coco",
                "augmentation": None,
                "albumentations": [
                    {
                        "class_path": "albumentations.OneOf",
                        "init_args": {
                            "transforms": [{"class_path": "albumentations.HorizontalFlip"}]
                        },
                    }
                ],
            },
        },
        "batch": {"size": 2, "per_device": 2},
        "trainer": {"max_epochs": 1},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML, a line a key
    return load_recipe(path)


def nodes(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every class in a recipe."""
    if isinstance(config, dict):
        if "class_path" in config:
            yield path
        for key, value in config.items():
            yield from nodes(value, (*path, key))
    elif isinstance(config, list):
        for i, value in enumerate(config):
            yield from nodes(value, (*path, i))


def at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the programs and modules outside ours that anything starts or imports."""
    events: list[str] = []
    active = True

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if active and name in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
            events.append(f"{name} {args!r}")

    sys.addaudithook(hook)
    yield events
    active = False


def test_the_recipe_is_good_and_has_every_place(recipe: Recipe) -> None:
    assert recipe.check() is recipe
    assert recipe.foreign == []
    assert len(list(nodes(recipe.config))) == 8
    assert len(SLOTS) == 7


@pytest.mark.parametrize("class_path", CALLABLES)
def test_no_place_takes_a_class_of_elsewhere(
    recipe: Recipe, class_path: str, watched: list[str]
) -> None:
    # every place refuses every one of them, by name, file and line, and says which flag allows it
    before = set(sys.modules)
    for path in nodes(recipe.config):
        changed = copy.deepcopy(recipe.config)
        at(changed, path)["class_path"] = class_path
        recipe.path.write_text(json.dumps(changed, indent=1))  # type: ignore[union-attr]
        lines = recipe.path.read_text().splitlines()  # type: ignore[union-attr]
        found = load_recipe(recipe.path).problems()  # type: ignore[arg-type]
        (sentence,) = [p for p in found if class_path in p]
        if path[-1] == "finetuning":
            assert "finetuning.class_path is" in sentence
        else:
            assert f"class_path '{class_path}' is outside what recipes may use as a" in sentence
            assert "(--trust lets a recipe name others" in sentence
        line = int(sentence.split(":")[1])
        assert class_path in lines[line - 1]
        # who does not ask for the mistakes is refused too
        with pytest.raises(ZooError, match=r"is outside what recipes may use|expected FineTuning"):
            build(at(changed, path))
    assert not {n for n in set(sys.modules) - before if n.split(".")[0] == class_path.split(".")[0]}
    assert watched == []


def test_what_stands_in_another_place_is_refused(recipe: Recipe) -> None:
    # a class that one place takes is no class for the others
    homes = {
        "model": "lightning_zoo.tasks.classification.ClassificationTask",
        "data": "lightning_zoo.datamodules.coco.CocoDataModule",
        "optimizer": "torch.optim.SGD",
        "lr_schedule": "lightning_zoo.optim.StepDecay",
        "transform": "albumentations.HorizontalFlip",
        "part": "torch.nn.Flatten",
    }
    refused = 0
    for path in nodes(recipe.config):
        for place, class_path in homes.items():
            changed = copy.deepcopy(recipe.config)
            at(changed, path)["class_path"] = class_path
            problems = Recipe("mine", None, changed).problems()
            outside = [p for p in problems if "outside what" in p or "expected FineTuning" in p]
            inner = {"rpn_anchor_generator": "part", 0: "transform"}.get(path[-1], path[-1])
            assert bool(outside) == (inner != place), (path, class_path, problems)
            refused += bool(outside)
    assert refused == 8 * 6 - 7


@pytest.mark.parametrize(
    ("class_path", "says"),
    [
        ("torch.optim.LRScheduler", "is no class of torch.optim"),
        ("torch.optim.Optimizers", "unknown class"),
        ("torch.nn.Buffer", "is not a part of a network"),
        ("lightning_zoo.tasks.base.Origin", "is not a task"),
        ("lightning_zoo.datamodules.coco_index.CocoIndex", "is not a data module"),
        ("lightning_zoo.models.hub.LoadReport", "is not a part of a network"),
        ("lightning_zoo.optim.schedules.Length", "is not a schedule"),
    ],
)
def test_a_class_of_another_kind_is_not_called(class_path: str, says: str) -> None:
    with pytest.raises(ZooError, match=says):
        build({"class_path": class_path, "init_args": {}})


@pytest.mark.parametrize("class_path", NOT_NAMES)
def test_what_is_no_name(recipe: Recipe, class_path: str) -> None:
    bad = recipe.with_overrides([("model.optimizer.class_path", class_path)])
    assert any(f"class_path {class_path!r} is no name of a class" in p for p in bad.problems())
    with trust(), pytest.raises(ZooError, match="is no name of a class"):
        build({"class_path": class_path})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("strategy", "deepspeed", "trainer.strategy is 'deepspeed'; expected one of auto, ddp"),
        ("strategy", "xla", "trainer.strategy is 'xla'"),
        ("accelerator", "mine", "trainer.accelerator is 'mine'; expected one of auto, cpu"),
        ("precision", "transformer-engine", "trainer.precision is 'transformer-engine'"),
        ("profiler", "pytorch", "trainer.profiler is 'pytorch'; expected one of null, simple"),
        ("plugins", ["mine"], r"trainer.plugins is ['mine']; expected one of null"),
        ("model_registry", "mine", "trainer.model_registry is 'mine'"),
        (
            "strategy",
            {"class_path": "lightning.pytorch.strategies.DDPStrategy"},
            "trainer.strategy names a class; the trainer takes plain values",
        ),
        (
            "plugins",
            [{"class_path": "lightning.pytorch.plugins.environments.MPIEnvironment"}],
            "trainer.plugins names a class; the trainer takes plain values",
        ),
        ("max_time", {"days": {"class_path": "os.system"}}, "trainer.max_time names a class"),
        ("callbacks", [{"class_path": "x.Y"}], "trainer.callbacks cannot be set in a recipe"),
        ("logger", {"class_path": "x.Y"}, "trainer.logger cannot be set in a recipe"),
    ],
)
def test_the_trainer_takes_plain_values(recipe: Recipe, key: str, value: Any, says: str) -> None:
    (problem,) = recipe.with_overrides([(f"trainer.{key}", value)]).problems()
    assert problem.startswith(f"--trainer.{key}: {says}")


# ---------------------------------------------------------------------------------------------
# --trust


MINE = """\
import pathlib
import torch
pathlib.Path(__file__).with_name("imported").touch()

class Slow(torch.optim.SGD):
    def __init__(self, params, lr: float, slowness: float = 2.0) -> None:
        super().__init__(params, lr=lr / slowness)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the name of a person's own module, of one file."""
    (tmp_path / "own_optimizers.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_optimizers.Slow"
    sys.modules.pop("own_optimizers", None)


def test_trust_lets_a_recipe_name_ones_own(recipe: Recipe, package: str, tmp_path: Path) -> None:
    own = recipe.with_overrides([("model.optimizer.class_path", package)])
    (problem,) = own.problems()
    assert f"class_path '{package}' is outside what recipes may use as an optimizer" in problem
    node = own.config["model"]["init_args"]["optimizer"]
    with pytest.raises(ZooError, match="--trust"):
        build(node, params=[])
    assert not (tmp_path / "imported").exists()
    with trust():
        assert is_trusting()
        assert own.problems() == []
        bad = own.with_overrides([("model.optimizer.slownes", 3)])
        assert "unknown argument of Slow 'slownes'; did you mean slowness?" in bad.problems()[0]
        assert not (tmp_path / "imported").exists()  # checked by its source
        import torch

        made = build(node, params=[torch.nn.Parameter(torch.zeros(1))])
        assert type(made).__name__ == "Slow"
        assert made.param_groups[0]["lr"] == 0.05
        with pytest.raises(ZooError, match="there is no package no_such_thing with a source in"):
            build({"class_path": "no_such_thing.Slow"})
        with pytest.raises(ZooError, match=r"unknown class 'own_optimizers\.Slov'; did you mean"):
            build({"class_path": "own_optimizers.Slov"})
    assert not is_trusting()
    with pytest.raises(ZooError, match="--trust"):
        build(node, params=[])


def test_trust_takes_what_fits_the_place(recipe: Recipe) -> None:
    """A class of another kind is refused before a run is begun, not where it is first used."""
    from lightning_zoo.recipe.trust import DATA, TASK

    with trust():
        with pytest.raises(ZooError, match="is not a data module; expected a class derived from"):
            build({"class_path": "torchmetrics.Accuracy", "init_args": {}}, (DATA,))
        with pytest.raises(ZooError, match="is not a task; expected a class derived from"):
            build({"class_path": "CocoDataModule", "init_args": {}}, (TASK,))
        other = recipe.with_overrides([("model.optimizer.class_path", "subprocess.Popen")])
        with pytest.raises(ZooError, match="is not an optimizer or a schedule; expected"):
            build(other.config["model"], (TASK,))
    with pytest.raises(ZooError, match="'CocoDataModule' is not a task; expected a class derived"):
        build({"class_path": "CocoDataModule", "init_args": {}}, (TASK,))


def test_a_trusted_run_says_so(recipe: Recipe, package: str) -> None:
    with trust():
        own = recipe.with_overrides([("model.optimizer.class_path", package)])
        assert own.foreign == [package]
        assert own.header == (f"Trusted (--trust), its code ran: {package}",)
        assert own.with_overrides([]).header == own.header  # once
        plain = own.with_overrides([("model.optimizer.class_path", "torch.optim.SGD")])
        assert (plain.foreign, plain.header) == ([], ())


def test_the_flag_after_any_verb(
    recipe: Recipe, package: str, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "own.yaml"
    config = copy.deepcopy(recipe.config)
    config["model"]["init_args"]["optimizer"]["class_path"] = package
    path.write_text(json.dumps(config, indent=1))
    assert main(["recipes", "lint", str(path)]) == 2
    assert "--trust" in capsys.readouterr().err
    for command in (["--trust", "lint", str(path)], ["lint", str(path), "--trust"]):
        assert main(["recipes", *command]) == 0
    assert main(["recipes", "lint", str(path)]) == 2  # of one command only
    for verb in (["fit", "--recipe"], ["recipes", "show"]):
        assert main([*verb, str(path)]) == 2
        assert f"{path}:" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()


def test_homes_are_harmless_to_import(tmp_path: Path) -> None:
    """What may be named without --trust starts nothing and writes nothing when it is imported."""
    modules = sorted({home for slot in SLOTS for home in slot.homes} | {s.base[0] for s in SLOTS})
    code = (
        "import os, sys\n"
        "os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'\n"
        "sys.dont_write_bytecode = True\n"
        "import torch, cv2\n"  # what they start is theirs, and torch is there anyway
        "seen = []\n"
        "def hook(name, args):\n"
        "    if str(args[0]).startswith(os.environ['TMPDIR']): return\n"  # torch makes its folder
        "    if name in ('os.system', 'subprocess.Popen', 'os.posix_spawn', 'os.exec', 'os.fork',\n"
        "                'socket.connect', 'socket.getaddrinfo', 'os.remove', 'os.mkdir'):\n"
        "        seen.append((name, str(args)[:200]))\n"
        "    if name == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        seen.append((name, str(args)[:200]))\n"
        "sys.addaudithook(hook)\n"
        "import importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------
# YAML


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


TEXTS: dict[str, Callable[[], str]] = {
    "aliases that double": bomb,
    "mappings that double": lambda: "a: &a {b: 1}\n" + "\n".join(
        f"k{n}: &k{n} {{x: *k{n - 1}, y: *k{n - 1}}}" if n else "k0: &k0 {x: *a}" for n in range(40)
    ),
    "a list within itself": lambda: "a: &a [1, *a]",
    "a mapping within itself": lambda: "&a {b: *a}",
    "a key that doubles": lambda: "a: &a [x, x]\n" + "\n".join(
        f"k{n}: &k{n} [*{'a' if n == 0 else f'k{n - 1}'}, *{'a' if n == 0 else f'k{n - 1}'}]"
        for n in range(60)
    ) + "\n? *k59\n: 1",
    "deep lists": lambda: "[" * 200_000,
    "deep mappings": lambda: "{a: " * 200_000,
    "deep keys": lambda: "? " * 200_000,
    "deep items": lambda: "- " * 200_000,
    "too long": lambda: "a: " + "x" * 2_000_000,
    "many values": lambda: "a: [" + "1," * 300_000 + "1]",
    "a number of digits": lambda: "a: " + "9" * 100_000,
    "a number to a power": lambda: "a: 0x" + "f" * 100_000,
    "a sexagesimal number": lambda: "a: " + "1:" * 100_000 + "1",
    "a date that is none": lambda: "a: !!timestamp 2020-99-99",
    "bytes": lambda: "a: !!binary aGVsbG8=",
    "a set": lambda: "a: !!set {b, c}",
    "a python object": lambda: "a: !!python/object/apply:os.system [touch hacked]",
    "a python name": lambda: "a: !!python/name:os.system ''",
    "a python module": lambda: "!!python/module:os",
    "a null character": lambda: "a: \0",
    "a control character": lambda: "a: \x1b[31m",
    "half a character": lambda: "a: \ud800",
    "merge keys": lambda: "a: &a {b: 1}\n<<: *a\n",
    "many documents": lambda: "---\na: 1\n" * 1000,
    "a scalar": lambda: "hello",
    "nothing": lambda: "",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_yaml(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_bytes(TEXTS[name]().encode("utf-8", "surrogatepass"))
    start = time.process_time()
    with pytest.raises(ZooError) as caught:
        load_recipe(path).check()
    assert time.process_time() - start < 5
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert not (tmp_path / "hacked").exists()


def test_dates_stay_texts() -> None:
    assert yaml_lines.parse("a: 2020-01-31", "x").value == {"a": "2020-01-31"}


@pytest.mark.parametrize(
    "name", ["../../evil", "/tmp/evil", "a/b", "..", ".hidden", "", "a\nb", ["x"], {"a": 1}]
)
def test_the_name_in_a_run_stays_in_its_folder(recipe: Recipe, tmp_path: Path, name: Any) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.config))
    (tmp_path / "run.json").write_text(json.dumps({"recipe": name}))
    assert load_recipe(path).name == "recipe"
