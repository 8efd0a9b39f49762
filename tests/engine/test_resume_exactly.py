"""What ``--resume auto`` says where there is nothing to resume; killed runs: tests/kill."""

from pathlib import Path

import pytest


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_zoo.cli import main

    out = str(tmp_path / "runs")
    assert (
        main(["fit", "--recipe", "squeezenet1_1", "--smoke", "--resume", "auto", "--out", out]) == 0
    )
    assert (
        f"nothing to resume for squeezenet1_1 in {out}/: a new run starts"
        in capsys.readouterr().out
    )
    # the run has finished: there is nothing to resume again
    assert (
        main(["fit", "--recipe", "squeezenet1_1", "--smoke", "--resume", "auto", "--out", out]) == 0
    )
    assert "nothing to resume" in capsys.readouterr().out
    assert main(["fit", "--recipe", "squeezenet1_1", "--resume", "nowhere", "--out", out]) == 2
    assert "no run 'nowhere'" in capsys.readouterr().err
