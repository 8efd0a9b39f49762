"""Who this process is, read from what torchrun, srun and Lightning leave in the environment."""

import os
import subprocess
import sys

import pytest

from lightning_zoo import ZooError
from lightning_zoo.engine.world import PORTS, World, adopt_slurm, first_host, launched

NAMES = (
    "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE NODE_RANK "
    "MASTER_ADDR MASTER_PORT TORCHELASTIC_RUN_ID"
)


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """An environment in which nothing started this process; undone afterwards."""
    for name in [*NAMES.split(), *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # remembers the value, what the code adds is undone too
        monkeypatch.delenv(name)
    return monkeypatch


def setting(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def torchrun(rank, local_rank, size, local_size, node, nodes):
    return {
        "RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": local_size,
        "GROUP_RANK": node, "GROUP_WORLD_SIZE": nodes,
    }  # fmt: skip


def slurm(procid, node, local, *, tasks="2(x2)", size=4, **more):
    return {
        "SLURM_JOB_ID": 4711, "SLURM_STEP_ID": 0, "SLURM_PROCID": procid, "SLURM_NODEID": node,
        "SLURM_LOCALID": local, "SLURM_NTASKS": size, "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_NAME": "resnet50", **more,
    }  # fmt: skip


def test_nothing_started_it(bare):
    assert launched() is None
    adopt_slurm()
    assert launched() is None


def test_torchrun_on_two_machines(bare):
    setting(bare, **torchrun(3, 1, 4, 2, 1, 2))
    assert launched() == World(rank=3, local_rank=1, size=4, local_size=2, node=1, nodes=2)


def test_one_process_is_no_world(bare):
    setting(bare, **torchrun(0, 0, 1, 1, 0, 1))
    assert launched() is None


def test_the_machines_are_found_without_groups(bare):
    setting(bare, RANK=3, LOCAL_RANK=1, WORLD_SIZE=6, LOCAL_WORLD_SIZE=2)
    assert launched() == World(3, 1, 6, 2, node=1, nodes=3)


def test_what_lightning_starts_is_no_launchers(bare):
    """These are all that lightning's subprocess launcher sets."""
    setting(
        bare, MASTER_ADDR="127.0.0.1", MASTER_PORT=1234, NODE_RANK=0, LOCAL_RANK=1, WORLD_SIZE=2
    )
    assert launched() is None


def test_lightning_sets_no_rank():
    """A version that sets RANK for its children would have them taken for torchrun's."""
    import inspect

    from lightning.fabric.strategies.launchers import subprocess_script

    source = inspect.getsource(subprocess_script)
    assert '"LOCAL_RANK"] =' in source
    assert '"RANK"' not in source


@pytest.mark.parametrize(
    "place", [(0, 0, 3, 1, 0, 2), (1, 0, 3, 2, 1, 2), (0, 0, 4, 1, 0, 2), (0, 0, 4, 3, 0, 2)]
)
def test_uneven_machines_are_refused(bare, place):
    setting(bare, **torchrun(*place))
    with pytest.raises(ZooError, match=r"\d processes on 2 machines .* as many on every machine"):
        launched()


def test_uneven_without_groups(bare):
    setting(bare, RANK=0, LOCAL_RANK=0, WORLD_SIZE=3, LOCAL_WORLD_SIZE=2)
    with pytest.raises(ZooError, match="3 processes on 2 machines and 2 of them on this one"):
        launched()


def test_half_an_environment_is_refused(bare):
    setting(bare, RANK=1, WORLD_SIZE=2)
    with pytest.raises(ZooError, match=r"LOCAL_RANK and LOCAL_WORLD_SIZE not; .*torchrun"):
        launched()


@pytest.mark.parametrize(
    "place", [(1, 0, 4, 2, 0, 2), (2, 0, 4, 2, 0, 2), (4, 0, 4, 2, 2, 2), (2, 2, 4, 2, 0, 2)]
)
def test_ranks_that_do_not_fit_are_refused(bare, place):
    setting(bare, **torchrun(*place))
    with pytest.raises(ZooError, match=r"RANK . is no process . of 2 on machine . of 2"):
        launched()


@pytest.mark.parametrize("text", ["two", "-1", "", "1.5"])
def test_what_is_no_number_is_named(bare, text):
    setting(bare, **{**torchrun(1, 1, 2, 2, 0, 1), "LOCAL_RANK": text})
    with pytest.raises(ZooError, match=f"LOCAL_RANK is {text!r}; expected a whole number"):
        launched()


def test_no_processes_here(bare):
    setting(bare, **torchrun(1, 1, 2, 0, 0, 1))
    with pytest.raises(ZooError, match="LOCAL_WORLD_SIZE is 0"):
        launched()


@pytest.mark.parametrize("cyclic", [False, True])
def test_srun_gives_torchruns_variables(bare, cyclic):
    """Every task of two machines, numbered in blocks or in turn: ranks come machine by machine."""
    seen = []
    for node in range(2):
        for local in range(2):
            with bare.context() as task:
                procid = local * 2 + node if cyclic else node * 2 + local
                for name in NAMES.split():
                    task.delenv(name, raising=False)
                setting(task, **slurm(procid, node, local))
                adopt_slurm()
                seen.append(launched())
                assert os.environ["MASTER_ADDR"] == "gpu07"
                assert os.environ["MASTER_PORT"] == str(PORTS[4711])
                assert os.environ["TORCHELASTIC_RUN_ID"] == "slurm_4711"
            for name in NAMES.split():
                os.environ.pop(name, None)
    assert seen == [World(rank, rank % 2, 4, 2, rank // 2, 2) for rank in range(4)]


def test_srun_is_adopted_once(bare):
    """What torchrun set below srun stays, and so does what the person set."""
    setting(bare, **slurm(1, 1, 0, tasks="1(x2)", size=2), **torchrun(5, 1, 8, 4, 1, 2))
    before = dict(os.environ)
    adopt_slurm()
    assert dict(os.environ) == before
    for name in NAMES.split():
        bare.delenv(name, raising=False)
    setting(bare, MASTER_ADDR="10.0.0.1", MASTER_PORT=1234)
    adopt_slurm()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.1", "1234")
    assert launched() == World(1, 0, 2, 1, 1, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_STEP_ID": ""},  # the batch script itself
        {"SLURM_JOB_NAME": "bash"},
        {"SLURM_JOB_NAME": "interactive"},
        {"SLURM_PTY_PORT": 4000},  # srun --pty
        {"SLURM_NTASKS": 1, "SLURM_STEP_TASKS_PER_NODE": "1"},
    ],
)
def test_a_shell_is_no_world(bare, change):
    setting(bare, **{**slurm(0, 0, 0), **change})
    adopt_slurm()
    assert launched() is None
    assert not set(NAMES.split()) & set(os.environ)


def test_a_steps_size_counts_and_not_its_jobs(bare):
    setting(
        bare,
        **slurm(1, 0, 1, tasks="2", size=16, SLURM_STEP_NUM_TASKS=2, SLURM_TASKS_PER_NODE="8(x2)"),
    )
    adopt_slurm()
    assert launched() == World(1, 1, 2, 2, 0, 1)


def test_uneven_tasks_are_refused(bare):
    setting(bare, **slurm(0, 0, 0, tasks="2,1", size=3))
    adopt_slurm()
    with pytest.raises(ZooError, match="3 processes on 2 machines"):
        launched()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "many"}, "is 'many'; expected a list like 8"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2"}, "is '2', of 4 processes"),
        ({"SLURM_NODEID": 2}, "SLURM_NODEID is 2 in a job step on 2 machines"),
        ({"SLURM_LOCALID": "x"}, "SLURM_LOCALID is 'x'; expected a whole number"),
    ],
)
def test_what_slurm_does_not_say_is_refused(bare, change, text):
    setting(bare, **{**slurm(0, 0, 0), **change})
    with pytest.raises(ZooError, match=text):
        adopt_slurm()


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[01-03,07]", "node01"),
        ("node[07,09-12],gpu5", "node07"),
        ("gpu5,node[1-2]", "gpu5"),
        ("rack[0-1]n[3,5]", "rack0n3"),
        ("a[1-2]-ib.cluster.org,b", "a1-ib.cluster.org"),
        ("node[5]", "node5"),
    ],
)
def test_the_first_host_of_slurms_list(hosts, first):
    assert first_host(hosts) == first


def test_ports_lie_below_the_lent_ones():
    """Linux lends 32768 and above to connections."""
    assert {1024, 32768} & set(PORTS) == set()
    assert PORTS[0] > 1024
    assert PORTS[-1] < 32768


def test_the_world_is_read_without_torch():
    code = (
        "import sys, importlib.util as u\n"
        "s = u.spec_from_file_location('world', sys.argv[1])\n"
        "m = u.module_from_spec(s); sys.modules['world'] = m; s.loader.exec_module(m)\n"
        "m.adopt_slurm(); assert m.launched() is None; assert 'torch' not in sys.modules"
    )
    import lightning_zoo.engine.world as world

    subprocess.run([sys.executable, "-c", code, world.__file__], check=True)
