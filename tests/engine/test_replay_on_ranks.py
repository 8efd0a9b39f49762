"""Of two ranks, the one whose loss is not finite keeps its batch; no rank takes the step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from replay_cases import make_case

import lightning_zoo as lz

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys
from pathlib import Path
import pytest, torch
from replay_cases import Case, fit, spoil_batch, spoil_pixels

torch.set_num_threads(1)
if os.environ.get("LOCAL_RANK") == "1":
    spoil_batch(pytest.MonkeyPatch(), 1, spoil_pixels("image"))  # of the second step
fit(Case(Path(sys.argv[1]), "image"), Path(sys.argv[2]), devices=2)
"""


@pytest.mark.slow
def test_one_of_two_ranks(tmp_path: Path) -> None:
    case = make_case("classification", tmp_path)
    (tmp_path / "run.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "run.py", case.recipe, tmp_path / "runs"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "PATH": "", "OMP_NUM_THREADS": "1",
             "HOME": str(tmp_path), "NO_ALBUMENTATIONS_UPDATE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )  # fmt: skip
    assert done.returncode != 0
    run = tmp_path / "runs" / "last"
    (folder,) = (run / "nonfinite").iterdir()
    assert folder.name == "step_1_rank_1"
    state = json.loads((run / "run.json").read_text())
    assert state["status"] == "failed"
    assert "the loss is no finite number in epoch 0, step 1" in state["error"]
    assert "nonfinite/step_1_rank_1" in state["error"]
    facts = json.loads((folder / "facts.json").read_text())
    assert (facts["rank"], facts["world_size"], len(facts["ids"])) == (1, 2, 2)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 1
    found = lz.replay(run)
    assert (found.rank, found.is_same, found.reproduced) == (1, True, True)
    assert [sample.id for sample in found.samples] == [facts["ids"][1]]
