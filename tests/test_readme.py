"""The README's tables are those of the registry and the recipe files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_zoo.models.registry import registry
from lightning_zoo.recipe import recipe_files

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "update_readme.py"


def update(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *args],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_readme_is_true() -> None:
    done = update("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_model_and_recipe_stands_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    models = text.split("<!-- models:begin -->")[1].split("<!-- models:end -->")[0]
    files = [weights for entry in registry().values() for weights in entry.weights.values()]
    assert models.count("\n| `") >= len(registry()) >= 37
    for entry in registry().values():
        assert f"| `{entry.full_name}` |" in models
        assert entry.recipe is None or f"[{entry.recipe}](recipes/" in models
    assert all(f"({weights.url})" in models for weights in files)
    recipes = text.split("<!-- recipes:begin -->")[1].split("<!-- recipes:end -->")[0]
    assert recipes.count("\n| [") == len(recipe_files())
    for name, path in recipe_files().items():
        assert f"\n| [{name}](recipes/{path.parent.name}/{path.name}) |" in recipes


def test_check_finds_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert update("--check", "--file", str(path)).returncode == 1
    assert not path.exists()
    assert update("--file", str(path)).returncode == 0
    assert update("--check", "--file", str(path)).returncode == 0
    text = path.read_text(encoding="utf-8")
    path.write_text("Before.\n" + text.replace("69.758", "70.758") + "After.\n", encoding="utf-8")
    done = update("--check", "--file", str(path))
    assert done.returncode == 1
    assert "-| `resnet18` | 11.7 M | 70.758 |" in done.stdout
    assert "mend it with: python scripts/update_readme.py" in done.stdout
    assert update("--file", str(path)).returncode == 0
    assert path.read_text(encoding="utf-8") == f"Before.\n{text}After.\n"


@pytest.mark.parametrize("marker", ["<!-- models:begin -->", "<!-- recipes:end -->"])
def test_a_missing_marker_is_named(tmp_path: Path, marker: str) -> None:
    path = tmp_path / "README.md"
    update("--file", str(path))
    path.write_text(path.read_text(encoding="utf-8").replace(marker, ""), encoding="utf-8")
    done = update("--file", str(path))
    assert done.returncode == 2
    assert marker in done.stderr
