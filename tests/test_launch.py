"""The printed command lines and SLURM job: quoted, checked, and run with a made-up SLURM."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_zoo as lz
from lightning_zoo import ZooError, launch_script
from lightning_zoo.cli import new_parser, overrides
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.datamodules.base import ZooDataModule
from lightning_zoo.launch import NOTICE, WIDTH, WORKERS

ROOT = Path(__file__).parents[1]
# as many tasks as TASKS says, numbered as SLURM numbers them; the worst status is srun's own
SRUN = """\
#!/bin/bash
[ "$1" = --cpus-per-task=3 ] || exit 99
shift
pids=()
for ((i = 0; i < TASKS; i++)); do
  SLURM_STEP_ID=0 SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 SLURM_NTASKS=$TASKS \\
    SLURM_STEP_NUM_TASKS=$TASKS SLURM_STEP_TASKS_PER_NODE=$TASKS "$@" & pids+=($!)
done
if [ -z "$SLURM_RESTART_COUNT" ] && [ -n "$SIGNAL_AT" ]; then
  until compgen -G "$SIGNAL_AT" > /dev/null || ! kill -0 "${pids[0]}"; do sleep 0.05; done
  kill -USR1 "${pids[@]}"
fi
worst=0
for pid in "${pids[@]}"; do
  wait "$pid"; status=$?
  [ $status -gt $worst ] && worst=$status
done
exit $worst
"""
SCONTROL = '#!/bin/bash\necho "$@" >> "$HERE/scontrol"\n'
# notes its arguments and ends with the next of the STATUSES
PYTHON = """\
#!/bin/bash
printf '%s\\0' "$@" > "$HERE/args_$SLURM_PROCID"
exit "$STATUS"
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a made-up SLURM on the path, and a job in the environment."""
    write_program(tmp_path / "bin" / "srun", SRUN)
    write_program(tmp_path / "bin" / "scontrol", SCONTROL)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("TASKS", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "localhost")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter whose path needs quotes, and which only notes its arguments."""
    path = write_program(here / "bin" / "my 'python'", PYTHON)
    monkeypatch.setenv("STATUS", "0")
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def bash(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run what was printed as the file that SLURM or a person would run."""
    path = folder / "script.sh"
    path.write_text(script)
    return subprocess.run(
        ["/bin/bash", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **env},
    )


def given(here: Path, rank: str = "0") -> list[str]:
    return (here / f"args_{rank}").read_text().split("\0")[:-1]


NASTY = [
    "my data/it's", 'a "b"', "$HOME", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "a\nb",
    "a\\b", "*", "~", "#x", "--x", "-1", "", " ", "1e-4", "null", "true", "[1, 2]", "{a: b}",
    "été 写真", "&& touch pwned", "%x", "a=b", "!x",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_values_arrive_as_they_were(fake_python: Path, here: Path, text: str) -> None:
    script = launch_script("resnet50", {"data.root": text}, gpus=2, slurm=True)
    done = bash(script, here)
    assert (done.returncode, done.stderr) == (0, "")
    for rank in "01":
        args = given(here, rank)
        assert args[:5] == ["-m", "lightning_zoo", "fit", "--recipe", "resnet50"]
        parser = new_parser("fit", "")
        for option in ("--recipe", "--resume", "--out"):
            parser.add_argument(option)
        options, pairs = overrides.parse(parser, args[3:])
        assert pairs == [("data.root", text)]
        assert (options.resume, options.out) == ("auto", "runs/job_4711")
    assert not list(here.rglob("pwned"))


def test_other_values_arrive_as_they_were(fake_python: Path, here: Path) -> None:
    changes = {
        "model.optimizer.lr": 1e-5, "model.weights": None, "trainer.limit_train_batches": 0.5,
        "model.optimizer.nesterov": True, "run.loggers": ["csv"], "trainer.max_epochs": 3,
        "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        "trainer.gradient_clip_val": float("inf"),
    }  # fmt: skip
    assert bash(launch_script("resnet50", changes, gpus=2, slurm=True), here).returncode == 0
    parser = new_parser("fit", "")
    for option in ("--recipe", "--resume", "--out"):
        parser.add_argument(option)
    _, pairs = overrides.parse(parser, given(here)[3:])
    assert dict(pairs) == changes
    assert [type(value) for _, value in pairs] == [type(value) for value in changes.values()]


def test_a_recipes_name_cannot_leave_its_comment(fake_python: Path, here: Path) -> None:
    content = Path(lz.load_recipe("resnet50").path or "").read_text()
    path = here / "evil\ntouch pwned #.yaml"
    path.write_text(content)
    for slurm in (True, False):
        done = bash(launch_script(path, gpus=2, slurm=slurm), here)
        assert (done.returncode, done.stderr) == (0, "")
    assert str(path) in given(here, "")
    assert not (here / "pwned").exists()


def directives(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script, re.M)
    assert len(found) == script.count("#SBATCH")
    return dict(found)


def test_the_job_asks_for_what_it_needs() -> None:
    script = launch_script(
        "resnet50",
        {"batch.per_device": 8},
        nodes=4,
        gpus=8,
        slurm=True,
        time="24:00:00",
        partition="gpu,big",
        account="lab-1",
    )
    assert script.startswith("#!/bin/bash\n")
    assert (
        "# 256 images a step = 32 devices x 8 images x 1 batch; the reference ran 8 x 32" in script
    )
    assert directives(script) == {
        "job-name": "resnet50", "nodes": "4", "ntasks-per-node": "8", "gpus-per-node": "8",
        "cpus-per-task": "17", "time": "24:00:00", "partition": "gpu,big", "account": "lab-1",
        "output": "%x-%j.log", "open-mode": "append", "signal": f"USR1@{NOTICE}", "requeue": "",
    }  # fmt: skip
    assert max(map(len, script.splitlines())) <= WIDTH


def test_cores_follow_the_workers() -> None:
    def cores(changes: dict[str, Any], **more: Any) -> str:
        return directives(launch_script("resnet50", changes, slurm=True, **more))["cpus-per-task"]

    assert cores({"data.workers": 7}) == "8"
    assert cores({"data.workers": 7}, cpus=5) == "5"
    default = inspect.signature(ZooDataModule).parameters["workers"].default
    assert default == WORKERS


@pytest.mark.parametrize("status", [0, 1, 2, 138, 143, 137])
def test_a_stopped_job_is_queued_anew(
    fake_python: Path, here: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """And no other: what has failed would fail again."""
    monkeypatch.setenv("STATUS", str(status))
    done = bash(launch_script("resnet50", gpus=2, slurm=True), here)
    assert done.returncode == status, done.stderr
    asked = (here / "scontrol").read_text() if (here / "scontrol").exists() else ""
    assert asked == ("requeue 4711\n" if status == 138 else "")


def test_folder_and_resume_are_the_persons() -> None:
    script = launch_script("resnet50", slurm=True, out="/big/runs", resume="runs/resnet50/now")
    assert "--out /big/runs --resume runs/resnet50/now" in script
    assert "auto" not in script
    assert "job_" not in script


def test_by_hand() -> None:
    words = " ".join(launch_script("resnet50", gpus=4).replace("\\\n", " ").split())
    assert "256 images a step = 4 devices x 32 images x 2 batches" in words
    assert words.endswith(
        "--standalone --nproc-per-node 4 -m lightning_zoo fit --recipe resnet50"
    ), words
    alone = launch_script("resnet50", lr_rule="linear", loggers=["csv"])
    words = " ".join(alone.replace("\\\n", " ").split())
    assert words.endswith("-m lightning_zoo fit --recipe resnet50 --logger csv --lr_rule linear")
    assert "torch.distributed" not in words
    two = launch_script("mc3_18", nodes=2, gpus=8, host="gpu01:29501")
    assert "1536 clips a step = 16 devices x 24 clips x 4 batches" in two
    lines = two.replace("\\\n", " ").splitlines()
    for node in range(2):
        (line,) = [line for line in lines if f"--node-rank {node} " in line]
        assert "--master-addr gpu01" in line
        assert "--master-port 29501" in " ".join(line.split())
        assert "--nnodes 2" in line


def test_programs_are_named_shortly_where_they_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    if not (folder / "torchrun").exists() or Path(sys.executable).name != "python":
        pytest.skip("this environment has neither name")
    assert "\npython -m" in launch_script("resnet50")
    assert "\ntorchrun --standalone" in launch_script("resnet50", gpus=2)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert f"\n{sys.executable} -m torch.distributed.run" in launch_script("resnet50", gpus=2)


def test_trust_is_handed_on() -> None:
    from lightning_zoo.recipe.trust import trust

    assert "--trust" not in launch_script("resnet50")
    with trust():
        assert launch_script("resnet50").endswith(" --trust\n")


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"nodes": 0}, "--nodes is 0; expected a whole number"),
    ({"gpus": -1}, "--gpus is -1; expected a whole number"),
    ({"slurm": True, "cpus": 0}, "--cpus is 0; expected a whole number"),
    ({"gpus": 3}, "no multiple of 3 devices x 32 images"),
    ({"nodes": 2}, "--nodes 2 needs --host NAME"),
    ({"nodes": 2, "host": "a b"}, "--host is 'a b'; expected NAME or NAME:PORT"),
    ({"nodes": 2, "host": "-x"}, "--host is '-x'"),
    ({"host": "a"}, "--host names the first of several machines"),
    ({"slurm": True, "host": "a"}, "--host is for machines without SLURM"),
    ({"time": "1:00"}, "--time is SLURM's; add --slurm"),
    ({"cpus": 4}, "--cpus is SLURM's; add --slurm"),
    ({"slurm": True, "time": "1:00\n#SBATCH"}, "--time is '1:00"),
    ({"slurm": True, "partition": "a b"}, "--partition is 'a b'"),
    ({"slurm": True, "account": "$(x)"}, r"--account is '\$\(x\)'"),
    ({"loggers": ["wndb"]}, "unknown --logger 'wndb'; did you mean wandb"),
    ({"lr_rule": "liner"}, "unknown --lr_rule 'liner'"),
    ({"overrides": {"trainer.num_nodes": 4}}, "trainer.num_nodes is 4 and --nodes 1"),
    ({"overrides": {"model.optimizer.lrr": 4}}, "'lrr'; did you mean lr"),
]


@pytest.mark.parametrize(("options", "text"), MISTAKES)
def test_mistakes_are_found_before_the_job(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ZooError, match=text):
        launch_script("resnet50", **options)


@pytest.mark.parametrize("time_", ["90", "24:00:00", "1-00", "2-12:30", "1-00:00:00", "90:00"])
def test_times_that_slurm_knows(time_: str) -> None:
    assert f"--time={time_}\n" in launch_script("resnet50", slurm=True, time=time_)


# squeezenet has no batch norm, so that any number of processes computes the same
RECIPE = """\
model:
  class_path: ClassificationTask
  init_args:
    model: squeezenet1_1
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.005, momentum: 0.9}}
data:
  class_path: ImageFolderDataModule
  init_args: {root: data, train_crop: 32, eval_resize: 36, eval_crop: 32, workers: 0}
batch: {size: 8, per_device: 2}
trainer: {max_epochs: 2, accelerator: cpu}
run: {loggers: [csv], pictures: 0, checkpoint_steps: 1}
"""


@pytest.fixture
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe and its data; 23 images, which neither batch nor ranks divide."""
    ImageFolderDataModule.write_fake(here / "data", classes=3, images=23, size=40)
    recipe = here / "small.yaml"
    recipe.write_text(RECIPE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return recipe


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def only_run(out: Path) -> Path:
    (state,) = out.glob("small/*/run.json")
    assert json.loads(state.read_text())["status"] == "finished"
    return state.parent


@pytest.mark.slow
def test_a_job_goes_on_where_its_time_was_up(small: Path, here: Path) -> None:
    """Two ranks below srun, warned by USR1: requeued, and the same run goes on, W&B's too."""
    changes = {"trainer.max_epochs": 12}
    options: dict[str, Any] = {"gpus": 2, "slurm": True, "loggers": ["csv", "wandb"]}
    script = launch_script(small, changes, **options)
    env = {"WANDB_MODE": "offline", "SIGNAL_AT": "runs/job_4711/small/*/checkpoints/last.ckpt"}
    done = bash(script, here, **env)
    assert done.returncode == 138, done.stderr
    assert (here / "scontrol").read_text() == "requeue 4711\n"
    (state,) = (here / "runs" / "job_4711").glob("small/*/run.json")
    first = json.loads(state.read_text())
    assert first["status"] == "interrupted"
    assert first["wandb_id"]
    step = torch.load(state.parent / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < step < 36

    done = bash(script, here, **env, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0, done.stderr
    assert (here / "scontrol").read_text() == "requeue 4711\n"
    run = only_run(here / "runs" / "job_4711")
    assert run == state.parent
    assert json.loads(state.read_text())["wandb_id"] == first["wandb_id"]
    offline = {path.name for path in run.rglob("offline-run-*") if path.is_dir()}
    assert {name.rsplit("-", 1)[1] for name in offline} == {first["wandb_id"]}

    whole = bash(launch_script(small, changes, gpus=2, slurm=True, out="whole"), here)
    assert whole.returncode == 0, whole.stderr
    expected = weights(only_run(here / "whole"))
    assert all(torch.equal(expected[name], value) for name, value in weights(run).items())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_machines(
    script: str, here: Path, prefixes: tuple[tuple[str, ...], ...] = ((), ())
) -> list[str]:
    """Run the line of each machine at once; return what each printed."""
    _, *parts = re.split(r"^# on machine \d.*:\n", script, flags=re.M)
    assert len(parts) == 2
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo" if prefixes == ((), ()) else ""}
    if not env["GLOO_SOCKET_IFNAME"]:
        del env["GLOO_SOCKET_IFNAME"]
    agents = [
        subprocess.Popen(
            [*prefix, "/bin/bash", "-c", part],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )
        for part, prefix in zip(parts, prefixes, strict=True)
    ]
    try:
        printed = [agent.communicate(timeout=240) for agent in agents]
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    assert [agent.returncode for agent in agents] == [0, 0], printed
    return [out for out, _ in printed]


def test_two_machines(small: Path, here: Path) -> None:
    """Two agents as two machines on loopback: one run folder, one voice, one arithmetic."""
    script = launch_script(
        small, {"trainer.max_epochs": 1}, nodes=2, gpus=1, host=f"127.0.0.1:{free_port()}"
    )
    printed = run_machines(script, here)
    only_run(here / "runs")
    assert "8 images a step = 2 devices x 2 images x 2 batches" in printed[0]
    assert "best checkpoint" in printed[0]
    assert "images a step" not in printed[1]


@pytest.mark.slow
def test_two_machines_of_two_compute_what_one_does(small: Path, here: Path) -> None:
    script = launch_script(small, nodes=2, gpus=2, host=f"127.0.0.1:{free_port()}")
    printed = run_machines(script, here)
    assert "8 images a step = 4 devices x 2 images x 1 batch" in printed[0]
    done = bash(launch_script(small, out="alone"), here)
    assert done.returncode == 0, done.stderr
    expected = weights(only_run(here / "alone"))
    for name, value in weights(only_run(here / "runs")).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_batch_script_without_srun_is_no_launcher(small: Path, here: Path) -> None:
    """SLURM's variables are there, the tasks are not: two devices are started as anywhere."""
    job = {"SLURM_JOB_NAME": "small", "SLURM_PROCID": "0", "SLURM_NTASKS": "4",
           "SLURM_NTASKS_PER_NODE": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}  # fmt: skip
    words = "fit --recipe small.yaml --devices 2 --trainer.max_epochs 1"
    done = bash(f"{sys.executable} -m lightning_zoo {words}", here, **job)
    assert done.returncode == 0, done.stderr
    assert "8 images a step = 2 devices x 2 images x 2 batches" in done.stdout
    only_run(here / "runs")


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two networks of their own, joined by one cable; needs root and ip."""
    names = (f"zoo_a{os.getpid()}", f"zoo_b{os.getpid()}")
    cable = [f"za{os.getpid() % 10**6}", f"zb{os.getpid() % 10**6}"]

    def ip(*args: str) -> None:
        subprocess.run(["ip", *args], check=True, capture_output=True)

    try:
        ip("netns", "add", names[0])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", "name", cable[1],
           "netns", names[1])  # fmt: skip
        for i, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", cable[i])
            ip("-n", name, "link", "set", cable[i], "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.slow
def test_two_machines_with_a_cable_between(
    small: Path, here: Path, namespaces: tuple[str, str]
) -> None:
    """Neither machine's loopback reaches the other; the address is the cable's."""
    script = launch_script(small, {"trainer.max_epochs": 1}, nodes=2, gpus=2, host="10.77.0.1")
    prefixes = tuple(
        ("ip", "netns", "exec", name, "unshare", "--uts", "--mount", "/bin/bash", "-c",
         f"hostname {address}; exec \"$@\"", "-")
        for name, address in zip(namespaces, ("10.77.0.1", "10.77.0.2"), strict=True)
    )  # fmt: skip
    printed = run_machines(script, here, prefixes)
    only_run(here / "runs")
    assert "8 images a step = 4 devices x 2 images x 1 batch" in printed[0]
