"""Ranks that die, hang or fail end the others soon, who name the rank and the cause."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rank_players import SCENES, TIMEOUT

# 10 s for a dead rank and the timeout plus 5 s for a hung one are promised; the machine may be busy
DEAD, HUNG = 8.0, TIMEOUT + 5.0


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    script = Path(__file__).with_name("rank_players.py")
    answer = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=400, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def check(scene: dict[str, Any], ranks: list[int], status: int, within: float) -> None:
    for rank in ranks:
        assert scene["status"][rank] == status, scene
        assert scene["seconds"][rank] < within, scene


def test_every_scene_is_looked_at(played: dict[str, Any]) -> None:
    assert list(played) == list(SCENES)
    assert all(None not in scene["status"] for n, scene in played.items() if "stopped" not in n)


def test_a_rank_dies(played: dict[str, Any]) -> None:
    scene = played["a rank dies"]
    check(scene, [0, 2], 1, DEAD)
    assert scene["said"][0].startswith(f"error: rank 1 (process {scene['pids'][1]} on ")
    assert "ended without a word after step 0: killed, out of memory" in scene["said"][0]
    assert scene["said"][2] == ""  # one voice is enough
    assert scene["noted"] in scene["said"][0]


def test_a_worker_is_no_rank(played: dict[str, Any]) -> None:
    """A loader's worker has what its rank had open, and lives on for a while."""
    for name, other in (
        ("a rank dies before its worker", 0),
        ("the first dies before its worker", 1),
    ):
        check(played[name], [other], 1, DEAD)
        assert "ended without a word" in played[name]["said"][other]  # not: has not got on


def test_the_first_dies(played: dict[str, Any]) -> None:
    scene = played["the first dies"]
    check(scene, [1, 2], 1, DEAD)
    assert scene["said"][1].startswith("error: rank 0 (process 1 on first) ended without a word")
    assert scene["said"][2] == ""


def test_a_rank_is_stuck(played: dict[str, Any]) -> None:
    scene = played["a rank is stuck"]
    check(scene, [0, 1, 2], 1, HUNG)
    assert f"rank 1 (process {scene['pids'][1]} on " in scene["said"][0]
    assert "has not got on for 2 s and the others wait for it: it is at " in scene["said"][0]
    assert "rank_players.py:" in scene["said"][0]
    assert "in get_stuck, after step 0" in scene["said"][0]
    assert "raise --run.rank_timeout" in scene["said"][0]


def test_a_rank_is_stopped(played: dict[str, Any]) -> None:
    scene = played["a rank is stopped"]
    check(scene, [0, 2], 1, HUNG)
    assert scene["status"][1] is None  # it cannot even read that it is over
    assert f"rank 1 (process {scene['pids'][1]} on " in scene["said"][0]


def test_the_first_is_stuck(played: dict[str, Any]) -> None:
    scene = played["the first is stuck"]
    check(scene, [0, 1], 1, HUNG)
    assert scene["said"][0].startswith(f"error: rank 0 (process {scene['pids'][0]} on ")
    assert "in get_stuck" in scene["said"][0]


def test_the_first_is_stopped(played: dict[str, Any]) -> None:
    scene = played["the first is stopped"]
    check(scene, [1], 1, HUNG)
    assert scene["said"][1].startswith(
        "error: rank 0 (process 1 on first) has not answered for 2 s"
    )


def test_all_are_stuck(played: dict[str, Any]) -> None:
    scene = played["all are stuck"]
    check(scene, [0, 1], 1, HUNG)
    assert scene["said"][0].startswith("error: no rank has got on for 2 s: rank 0 at rank_players.")


def test_a_rank_fails(played: dict[str, Any]) -> None:
    scene = played["a rank fails"]
    check(scene, [0, 2], 1, DEAD)
    check(scene, [1], 2, DEAD)
    assert "failed: KeyError: 'mouse'" in scene["said"][0]
    # Lightning kills the first process when one that it started has failed: it has to be first
    assert scene["seconds"][1] >= scene["seconds"][0]


def test_the_first_fails(played: dict[str, Any]) -> None:
    scene = played["the first fails"]
    check(scene, [1], 1, DEAD)
    check(scene, [0], 2, DEAD)
    assert scene["said"] == ["", ""]  # the first says itself what was wrong


def test_leaving_is_no_dying(played: dict[str, Any]) -> None:
    scene = played["all leave"]
    assert scene["status"] == [0, 0, 0]
    assert scene["said"] == ["", "", ""]


@pytest.mark.parametrize("name", ["a signal at a rank", "a signal at the first"])
def test_a_signal_is_given_on(played: dict[str, Any], name: str) -> None:
    scene = played[name]
    origin = [player.__name__ for player in SCENES[name]].index("take_a_signal")
    assert [s for i, s in enumerate(scene["status"]) if i != origin] == [77] * (
        len(scene["status"]) - 1
    )


def test_strangers_are_not_listened_to(played: dict[str, Any]) -> None:
    assert played["strangers knock"]["status"] == [0, 0]
    assert played["strangers knock"]["said"] == ["", ""]
