"""Nothing is asked of the network, no program is started, and no secret is written down.

Not meant: downloads, W&B, and processes of this interpreter that a person asked for, which are the
loaders' workers, ranks, and the helpers that look into many videos at once.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import OVERRIDES
from wandb_server import KEY, run_trials, serve

from lightning_zoo.cli import VERBS
from lightning_zoo.datamodules.image_folder import ImageFolderDataModule

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECRETS = {
    name: secrets.token_hex(20)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "GITHUB_TOKEN",
                 "OPENAI_API_KEY", "KAGGLE_KEY", "MY_PASSWORD", "HTTP_PROXY_PASSWORD")
}  # fmt: skip
NAME = "finetune_resnet18"
SMALL = " ".join(
    [f"--{key} {value}" for key, value in {**OVERRIDES, "trainer.max_epochs": 1}.items()
     if key != "model.model"]
    + ["--out runs"]
)  # fmt: skip
FIT = (
    f"fit --recipe {NAME} --data.root data --logger csv,tensorboard "
    f"--model.model squeezenet1_1 {SMALL}"
)
FAIL = (
    FIT.replace("--out runs", "--out bad").replace("max_epochs 1", "max_epochs 4")
    + " --model.optimizer.lr 1e30"
)  # no finite loss
# command lines by verb, in their order; those of HEAVY take long, and use the run of a first fit
COMMANDS: dict[str, list[str]] = {
    # gloo, by which ranks talk to each other, opens a socket to this machine itself
    "doctor": ["doctor"],
    "recipes": ["recipes ls", "recipes lint"],
    "models": ["models ls"],
    "data": ["data formats", "data check data", "data show data --n 4 --out shown.png"],
    "fit": [FIT],
    "launch": [f"launch --recipe {NAME} --gpus 2 --batch.per_device 16"],
    "validate": ["validate last"],
    "test": ["test last"],
    "report": ["report last"],
    "predict": ["predict last data/val --out predicted"],
    "finetune": [f"finetune --model squeezenet1_1 --data data --weights none {SMALL}"],
    "replay": [FAIL, "replay last --runs bad"],
    "benchmark": ["benchmark step --repeats 1"],
}  # fmt: skip
HEAVY: dict[str, list[str]] = {
    "fit": [FIT, f"fit --recipe {NAME} --smoke --out smoke"],
    "export": ["export last --format pt2 --check", "export last --format onnx --check"],
    # the other engine that there may be compiles, and starts the compiler that it was asked for
    "quantize": ["quantize last --images 4 --engines reference"],
    "demo": ["demo classification --out demo"],
}


def run_all(folder: Path, commands: dict[str, list[str]]) -> dict[str, Any]:
    """Run verbs in a child that listens; return what it heard, and where it ran."""
    ImageFolderDataModule.write_fake(folder / "data", classes=3, images=12, size=40)
    first = commands.get("doctor", [])
    rest = [line for verb, lines in commands.items() for line in lines if verb != "doctor"]
    lines = ["import", *first, "the rest", *rest]
    done = subprocess.run(
        [sys.executable, str(HERE / "listener.py")],
        input=json.dumps({"commands": [line.split() for line in lines], "variables": SECRETS}),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]  # -31: the kernel's answer, see "at:"
    return {**json.loads(done.stdout), "folder": folder}


def check_quiet(heard: dict[str, Any], commands: dict[str, list[str]]) -> None:
    answers = heard["answers"]
    assert list(answers) == [line for lines in commands.values() for line in lines]
    for line, answer in answers.items():
        assert (answer["status"] == 0) == (line != FAIL), (line, answer)
        assert (line, answer["sockets"], answer["children"]) == (line, [], [])
    assert heard["heard"] == []
    assert heard["forbidden"] or sys.platform != "linux"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_all(tmp_path_factory.mktemp("quiet"), COMMANDS)


def test_every_verb_is_heard() -> None:
    assert {*COMMANDS, *HEAVY} == set(VERBS)
    print(f"{len(VERBS)} verbs, {sum(map(len, [*COMMANDS.values(), *HEAVY.values()]))} lines")


def test_no_socket_and_no_process(heard: dict[str, Any]) -> None:
    check_quiet(heard, COMMANDS)


@pytest.mark.slow
def test_none_of_heavy_verbs(tmp_path: Path) -> None:
    heard = run_all(tmp_path, HEAVY)
    check_quiet(heard, HEAVY)
    assert leaks(tmp_path, SECRETS) == []


def test_what_would_be_heard(tmp_path: Path) -> None:
    """The listener hears, and the kernel ends what it is told to."""
    code = (
        "import sys; sys.argv = ['x']; sys.path.insert(0, sys.path[0])\n"
        "import listener, socket, subprocess\n"
        "sys.addaudithook(listener.listen)\n"
        "socket.socket().close(); subprocess.run([sys.executable, '-c', ''])\n"
        "print([one['event'] for one in listener.heard], flush=True)\n"
        "assert listener.forbid()\n"
        "socket.socket(socket.AF_UNIX).close(); print('still here', flush=True)\n"
        "{}\nprint('too late')"
    )
    for last in ("socket.socket()", "import os; os.execv(sys.executable, ['x', '-c', ''])"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(last)],
            cwd=HERE, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        first, *others = done.stdout.splitlines()
        assert {"socket.__new__", "subprocess.Popen"} <= set(json.loads(first.replace("'", '"')))
        assert others == ["still here"]
        assert done.returncode == -31, done.stderr


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below a folder, and the members of those that are archives."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        yield str(path), path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    yield f"{path}:{member.filename}", archive.read(member)


def leaks(folder: Path, hidden: dict[str, str]) -> list[str]:
    """Return where a secret stands, forwards or as names of variables beside it."""
    found = []
    for name, data in contents(folder):
        found += [f"{variable} in {name}" for variable, value in hidden.items()
                  if value.encode() in data]  # fmt: skip
    return found


def test_no_secret_is_written(heard: dict[str, Any]) -> None:
    folder = heard["folder"]
    files = [name for name, _ in contents(folder)]
    assert any(name.endswith("last.ckpt") for name in files)
    assert any("events.out.tfevents" in name for name in files)
    assert any(":" in name for name in files)  # members of archives
    assert leaks(folder, SECRETS) == []
    (folder / "runs" / "leak.txt").write_text(SECRETS["HF_TOKEN"])
    with zipfile.ZipFile(folder / "leak.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", SECRETS["MY_PASSWORD"])
    assert len(leaks(folder, SECRETS)) == 2  # what there is would be found


@pytest.mark.parametrize("online", [False, True], ids=["offline", "online"])
def test_no_secret_after_a_crash(tmp_path: Path, online: bool) -> None:
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=12, size=40)
    with serve() as server:
        hidden = {**SECRETS, "WANDB_API_KEY": KEY}
        variables = {**hidden, "WANDB_BASE_URL": server.url}
        if not online:
            variables["WANDB_MODE"] = "offline"
        trials = [
            {
                "name": end,
                "folder": str(tmp_path / end),
                "loggers": ["csv", "tensorboard", "wandb"],
                "variables": variables,
                "end": end,
            }
            for end in ("raise", "kill")
        ]
        found = run_trials(tmp_path, trials)
    assert found["raise"]["status"] == 1
    assert found["kill"]["status"] == -9
    for end in ("raise", "kill"):
        folder = tmp_path / end
        names = [name for name, _ in contents(folder)]
        assert any(name.endswith(".wandb") for name in names)
        assert any("events.out.tfevents" in name for name in names)
        assert leaks(folder, hidden) == []
    assert bool(server.asked) == online
