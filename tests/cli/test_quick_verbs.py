"""Help, listings and the answers to typos: quick, short, and they name the nearest right word."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_zoo.cli import VERBS
from lightning_zoo.models.registry import registry
from lightning_zoo.recipe import recipe_files

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "lightning", "pytorch_lightning", "numpy", "torchmetrics", "wandb",
         "albumentations", "cv2", "PIL", "rich", "av", "pycocotools", "tensorboard"}  # fmt: skip
# runs many command lines in one fresh interpreter; says after each what is loaded by then
RUNNER = """
import contextlib, io, json, sys
from lightning_zoo.cli import main

answers = []
for args in json.load(sys.stdin):
    out, err, raised = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(args)
        except SystemExit as leave:
            status = leave.code
        except Exception as error:
            status, raised = None, type(error).__name__
    loaded = sorted({name.split(".")[0] for name in sys.modules})
    answers.append([status, out.getvalue(), err.getvalue(), raised, loaded])
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Answer:
    status: int | None
    out: str
    err: str
    raised: str | None
    loaded: list[str]


def run_all(commands: list[str], folder: Path) -> dict[str, Answer]:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([command.split() for command in commands]),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {c: Answer(*a) for c, a in zip(commands, json.loads(done.stdout), strict=True)}


BAD = """\
# A recipe with one mistake in it.
seed_everything: 0
model:
  class_path: ClassificationTask
  init_args:
    model: resnet18
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentun: 0.9}}
data: {class_path: ImageFolderDataModule, init_args: {root: data}}
batch: {size: 8, per_device: 8}
trainer: {max_epochs: 1}
"""

FIT = "fit --recipe resnet50"
TYPOS = {
    "fti": "unknown verb 'fti'; did you mean fit?",
    "benchmrak": "unknown verb 'benchmrak'; did you mean benchmark?",
    "recipes lss": "unknown verb of recipes 'lss'; did you mean ls?",
    "models shwo": "unknown verb of models 'shwo'; did you mean show?",
    "fit --recipe resnet51": "unknown recipe 'resnet51'; did you mean resnet50?",
    "recipes show resnet51": "unknown recipe 'resnet51'; did you mean resnet50?",
    "recipes cp alexnt": "unknown recipe 'alexnt'; did you mean alexnet?",
    "recipes lint alexnt": "unknown recipe 'alexnt'; did you mean alexnet?",
    "validate --recipe vgg17 --weights DEFAULT": "unknown recipe 'vgg17'; did you mean vgg1",
    "fit --recpie resnet50": "unknown option '--recpie'; did you mean --recipe?",
    "fit --recpie=resnet50": "unknown option '--recpie'; did you mean --recipe?",
    f"{FIT} --logge csv": "unknown option '--logge'; did you mean --logger?",
    "quantise": "unknown verb 'quantise'; did you mean quantize?",
    "launch --recipe resnet51": "unknown recipe 'resnet51'; did you mean resnet50?",
    "launch --recipe resnet50 --node 2": "unknown option '--node'; did you mean --nodes?",
    "launch --recipe resnet50 --gpus 0": "--gpus is 0; expected a whole number of at least 1",
    "launch --recipe resnet50 --gpus 3": "batch.size 256 is no multiple of 3 devices x 32 images",
    "launch --recipe resnet50 --nodes 2": "--nodes 2 needs --host NAME, the first machine's name",
    "launch --recipe resnet50 --time 9": "--time is SLURM's; add --slurm",
    "launch --recipe resnet50 --slurm --time soon": "--time is 'soon'; expected as for sbatch",
    "quantize --qta x": "unknown option '--qta'; did you mean --qat?",
    "validate --recipe resnet50 --weights x --data.root a --data.wrokers 0": "mean workers?",
    "validate --recipe resnet50 --weights x --data.root --json": "--data.root has no value",
    "validate --chek": "unknown option '--chek'; did you mean --check?",
    "test --chek": "unknown option '--chek'; did you mean --check?",
    "predict --ot out x y": "unknown option '--ot'; did you mean --out?",
    "finetune --modle resnet18": "unknown option '--modle'; did you mean --model?",
    "finetune --model resnet51 --data x": "unknown model 'resnet51'; did you mean resnet50?",
    "finetune --model resnet18": "the following arguments are required: --data",
    "finetune --model resnet18 --data nowhere": "no folder 'nowhere' (--data); see: python -m",
    "finetune --model resnet18 --data . --epochs 0": "--epochs is 0; expected a whole number of",
    "finetune --model resnet18 --data . --batch many": "--batch is 'many'; expected a number of",
    "finetune --model resnet18 --data . --lr 1 --model.optimizer.lr 2": "is given twice, once by",
    "finetune --model resnet18 --data . --lr 1 --find-lr": "--find-lr looks for the rate that",
    "data chek x": "unknown verb of data 'chek'; did you mean check?",
    "data check x --jsn": "unknown option '--jsn'; did you mean --json?",
    "replay last --jsn": "unknown option '--jsn'; did you mean --json?",
    "replay nosuch": "no run 'nosuch'; expected a run folder, 'last' or a recipe's name",
    "report last --ot x": "unknown option '--ot'; did you mean --out?",
    "report nosuch": "no run 'nosuch'; expected a run folder, 'last' or a recipe's name",
    "export resnet18 --fromat onnx": "unknown option '--fromat'; did you mean --format?",
    "export resnet81 --format onnx": "no run or model 'resnet81'; did you mean resnet18?",
    "demo --ot x": "unknown option '--ot'; did you mean --out?",
    "models ls --jsn": "unknown option '--jsn'; did you mean --json?",
    "recipes ls --taks demo": "unknown option '--taks'; did you mean --task?",
    "benchmark --repeat 3": "unknown option '--repeat'; did you mean --repeats?",
    f"{FIT} --modle.optimizer.lr 1": "'--modle.optimizer.lr'; did you mean --model.optimizer.lr?",
    f"{FIT} --dat.root x": "unknown option '--dat.root'; did you mean --data.root?",
    f"{FIT} --lr 1": "unknown option '--lr'; did you mean --model.optimizer.lr?",
    f"{FIT} --max_epochs 1": "'--max_epochs'; did you mean --trainer.max_epochs?",
    f"{FIT} --seed_everythin 1": "did you mean --seed_everything?",
    f"{FIT} --model.optimizer.lrr 1": "unknown argument of SGD 'lrr'; did you mean lr?",
    f"{FIT} --data.rot x": "argument of ImageNetDataModule 'rot'; did you mean root?",
    f"{FIT} --trainer.max_epoch 3": "of the trainer 'max_epoch'; did you mean max_epochs?",
    f"{FIT} --batch.sise 3": "unknown key of batch 'sise'; did you mean size?",
    f"{FIT} --run.picture 3": "unknown key of run 'picture'; did you mean pictures?",
    f"{FIT} --model.class_path ClasificationTask": "did you mean ClassificationTask?",
    f"{FIT} --model.lr_schedule.class_path StepDecai": "did you mean StepDecay?",
    f"{FIT} --model.model resnet51": "unknown model 'resnet51'; did you mean resnet50?",
    "models show resnet51": "unknown model 'resnet51'; did you mean resnet50?",
    "predict resnet51 dog.jpg": "no run or model 'resnet51'; did you mean resnet50?",
    f"{FIT} --logger wndb": "unknown --logger 'wndb'; did you mean wandb?",
    f"{FIT} --logger csv,tensorbord": "unknown --logger 'tensorbord'; did you mean tensorboard?",
    f"{FIT} --run.loggers [wndb]": "unknown logger 'wndb'; did you mean wandb?",
    f"{FIT} --lr_rule liner": "unknown --lr_rule 'liner'; did you mean linear?",
    "models ls --task clasification": "--task 'clasification'; did you mean classification?",
    "recipes ls --task finetun": "unknown task 'finetun'; did you mean finetune?",
    f"{FIT} --trainer.max_epochs three": "is 'three'; expected a whole number or null",
    f"{FIT} --batch.size many": "batch.size is 'many'; expected a whole number",
    f"{FIT} --model.optimizer 3": "is 3; expected class_path and init_args",
    f"{FIT} --devices two": "--devices is 'two'; expected auto or a whole number of at least 1",
    f"{FIT} --trainer.devices 2": "cannot be set in a recipe: use --devices",
    f"{FIT} --trainer.max_epochs": "--trainer.max_epochs has no value; expected",
    f"{FIT} stray": "unexpected argument 'stray'; see: python -m lightning_zoo fit --help",
    "docter": "unknown verb 'docter'; did you mean doctor?",
    "doctor --jsn": "unknown option '--jsn'; did you mean --json?",
    "benchmark startpu": "unknown benchmark 'startpu'; did you mean startup?",
    "benchmark --repeats two": "invalid int value: 'two'",
    "demo clasification": "unknown task 'clasification'; did you mean classification?",
    "validate nothing_here": "no run 'nothing_here'; expected a run folder, 'last' or a recipe's",
    "fit": "the following arguments are required: --recipe; see: python -m lightning_zoo fit",
    "recipes": "required: {ls,show,cp,lint}; see: python -m lightning_zoo recipes --help",
    "fit --recipe bad.yaml": "bad.yaml:7: unknown argument of SGD 'momentun'; did you",
    "fit --recipe gone.yaml": "no recipe file at gone.yaml; see: python -m lightning_zoo",
    "recipes show torn.yaml": "torn.yaml:2: not valid YAML",
}  # fmt: skip
LISTINGS = ["--version", "recipes ls", "recipes ls --json", "recipes ls resnet", "recipes lint",
            "recipes ls --task demo", "recipes show resnet50", "recipes show resnet50 --json",
            "models ls", "models ls --json", "models ls vgg", "models show vgg16",
            "models show vgg16 --json", "recipes ls qqq", "models ls qqq"]  # fmt: skip
HELPS = ["", "--help", *(f"{verb} --help" for verb in VERBS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("here")
    (path / "bad.yaml").write_text(BAD)
    (path / "torn.yaml").write_text("model: [1, 2\nbatch: 3\n")
    return path


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Answer]:
    return run_all([*HELPS, *LISTINGS, *TYPOS], folder)


def test_nothing_heavy_is_imported(answers: dict[str, Answer]) -> None:
    for command, answer in answers.items():
        assert not HEAVY & set(answer.loaded), command
    print(f"{len(answers)} command lines")


def test_help_fits_a_screen(answers: dict[str, Answer], folder: Path) -> None:
    inner = []
    for verb in VERBS:
        if found := re.search(r"\{(ls,[a-z,]+)\}", answers[f"{verb} --help"].out):
            inner += [f"{verb} {name} --help" for name in found[1].split(",")]
    assert {"recipes cp --help", "models ls --help"} <= set(inner)
    pages = {c: answers[c] for c in HELPS} | run_all(inner, folder)
    for command, answer in pages.items():
        lines = answer.out.splitlines()
        assert (answer.status, answer.err) == (0, ""), command
        assert 5 <= len(lines) <= 24, command
        assert max(map(len, lines)) <= 80, (command, max(lines, key=len))
        assert not HEAVY & set(answer.loaded), command
    for verb in VERBS:
        assert f"\n  {verb} " in answers["--help"].out
        assert f"usage: python -m lightning_zoo {verb}" in answers[f"{verb} --help"].out


@pytest.mark.parametrize("command", TYPOS)
def test_a_typo_is_answered_in_one_line(answers: dict[str, Answer], command: str) -> None:
    answer = answers[command]
    assert answer.status == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert answer.err.endswith("\n")
    assert "Traceback" not in answer.err
    assert TYPOS[command] in answer.err


def test_each_mistake_has_its_line(folder: Path) -> None:
    two = f"{FIT} --model.optimizer.lrr 1 --trainer.max_epoch 3"
    answer = run_all([two], folder)[two]
    assert answer.status == 2
    first, second = answer.err.splitlines()
    assert "did you mean lr?" in first
    assert "did you mean max_epochs?" in second


def test_listings_succeed(answers: dict[str, Answer]) -> None:
    for command in LISTINGS:
        assert (answers[command].status, answers[command].err) == (0, ""), command
    assert re.fullmatch(r"lightning_zoo \d+\.\d+\.\d+\n", answers["--version"].out)
    assert "no recipe has 'qqq' in its name" in answers["recipes ls qqq"].out
    assert "no model has 'qqq' in its name" in answers["models ls qqq"].out


def test_models_listing_is_the_registry(answers: dict[str, Answer]) -> None:
    listed = json.loads(answers["models ls --json"].out)
    assert [(m["task"], m["name"]) for m in listed] == list(registry())
    for model in listed:
        entry = registry()[model["task"], model["name"]]
        assert model["num_params"] == entry.num_params
        assert {n: w["url"] for n, w in model["weights"].items()} == {
            n: w.url for n, w in entry.weights.items()
        }
    for command, part in (("models ls", ""), ("models ls vgg", "vgg")):
        first = [line.split()[0] for line in answers[command].out.splitlines()]
        assert first[0] == "model"
        names = [name for name in first if name != "model"]  # the head of each task's table
        assert names == [e.full_name for e in registry().values() if part in e.full_name]
    assert json.loads(answers["models show vgg16 --json"].out) in listed
    assert "138,357,544" in answers["models show vgg16"].out


def test_recipes_listing_is_the_files(answers: dict[str, Answer]) -> None:
    listed: list[dict[str, Any]] = json.loads(answers["recipes ls --json"].out)
    files = {path.stem: path for path in (ROOT / "recipes").glob("*/*.yaml")}
    assert sorted(r["name"] for r in listed) == sorted(files)
    for recipe in listed:
        written = yaml.safe_load(files[recipe["name"]].read_text(encoding="utf-8"))
        assert recipe["folder"] == files[recipe["name"]].parent.name
        assert recipe["model"] == written["model"]["init_args"]["model"]
        assert recipe["epochs"] == written["trainer"].get("max_epochs")
        assert recipe["batch"] == written["batch"]["size"]
        assert recipe["metrics"] == written.get("reference", {}).get("metrics", {})
        assert recipe["title"]
    lines = answers["recipes ls"].out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [r["name"] for r in listed]
    demo = [line.split()[0] for line in answers["recipes ls --task demo"].out.splitlines()[1:]]
    assert demo == sorted(path.stem for path in (ROOT / "recipes/demo").glob("*.yaml"))
    assert answers["recipes lint"].out == f"{len(files)} recipes checked, 0 with mistakes\n"


def test_show(answers: dict[str, Answer]) -> None:
    path = recipe_files()["resnet50"]
    text = path.read_text(encoding="utf-8")
    shown = answers["recipes show resnet50"].out
    assert shown.startswith(text)
    assert f"# {path}\n" in shown
    assert "256 images a step = 1 device x 32 images x 8 batches" in shown
    assert json.loads(answers["recipes show resnet50 --json"].out) == yaml.safe_load(text)


def test_copy(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    again = "recipes cp resnet18 sub/"
    commands = [
        "recipes cp resnet18",
        again,
        "recipes cp alexnet mine.yaml",
        "recipes lint mine.yaml",
    ]
    done = run_all(commands, tmp_path)
    assert [a.status for a in done.values()] == [0, 0, 0, 0]
    original = recipe_files()["resnet18"].read_bytes()
    assert (tmp_path / "resnet18.yaml").read_bytes() == original
    assert (tmp_path / "sub/resnet18.yaml").read_bytes() == original
    assert (tmp_path / "mine.yaml").read_bytes() == recipe_files()["alexnet"].read_bytes()
    assert "fit --recipe mine.yaml" in done["recipes cp alexnet mine.yaml"].out

    (tmp_path / "sub/resnet18.yaml").write_text("my changes")
    refused = run_all([again, "recipes cp resnet18 no/such/x.yaml"], tmp_path)
    assert [a.status for a in refused.values()] == [2, 2]
    assert "resnet18.yaml is there already; name another file" in refused[again].err
    assert (tmp_path / "sub/resnet18.yaml").read_text() == "my changes"
    assert "no folder no/such to copy to" in refused["recipes cp resnet18 no/such/x.yaml"].err


def test_lint_names_file_and_line(folder: Path) -> None:
    done = run_all(["recipes lint bad.yaml", "recipes lint bad.yaml torn.yaml resnet18"], folder)
    one, three = done.values()
    line = "bad.yaml:7: unknown argument of SGD 'momentun'; did you mean momentum?"
    assert (one.status, one.err.strip()) == (2, line)
    assert three.status == 2
    assert three.err.splitlines()[0] == line
    assert three.err.splitlines()[1].startswith("torn.yaml:2: not valid YAML")
    assert three.out == "3 recipes checked, 2 with mistakes\n"


def test_debug_shows_the_traceback(folder: Path) -> None:
    command = "fit --recipe resnet51"
    done = run_all([command, f"{command} --debug"], folder)
    assert done[command].raised is None
    assert done[f"{command} --debug"].raised == "ZooError"
    for extra in ([], ["--debug"]):
        process = subprocess.run(
            [sys.executable, "-m", "lightning_zoo", *command.split(), *extra],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
        )
        assert process.returncode == (1 if extra else 2)
        assert process.stderr.startswith("Traceback") == bool(extra)
        assert "did you mean resnet50?" in process.stderr


def test_what_nobody_foresaw_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning_zoo.cli import main, recipes

    def break_down(options: Any) -> int:
        raise RuntimeError("the first line\nthe second")

    monkeypatch.setattr(recipes, "_ls", break_down)
    assert main(["recipes", "ls"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: RuntimeError: the first line\n")
    assert "--debug" in err
    assert "Traceback" not in err
    with pytest.raises(RuntimeError):
        main(["recipes", "ls", "--debug"])


def test_the_api_is_lazy() -> None:
    code = (
        "import sys, lightning_zoo\nprint(*sys.modules)\n"
        "lightning_zoo.list_recipes(); lightning_zoo.models.list_models()\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = (
        {name.split(".")[0] for name in line.split()} for line in done.stdout.splitlines()
    )
    assert not (HEAVY | {"yaml"}) & first
    assert not HEAVY & second


def test_the_api_has_what_it_names() -> None:
    import lightning_zoo

    for name in lightning_zoo.__all__:
        assert getattr(lightning_zoo, name) is not None
    assert set(lightning_zoo.__all__) <= set(dir(lightning_zoo))
    with pytest.raises(AttributeError, match="has no attribute 'fti'"):
        lightning_zoo.fti  # noqa: B018
