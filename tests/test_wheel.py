"""The wheel, built and installed elsewhere, is whole: it works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import lightning_zoo
from lightning_zoo.models.registry import list_models
from lightning_zoo.recipe import recipe_files

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Installed:
    """Attributes: the wheel's file, where it is installed, and an empty folder to work in."""

    wheel: Path
    folder: Path
    elsewhere: Path

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args],
            cwd=self.elsewhere,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def zoo(self, *args: str) -> str:
        done = self.run("-m", "lightning_zoo", *args)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    for command in (
        ["build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)],
        ["pip", "install", "--no-deps", "--no-index", "--no-compile", "--target",
         str(folder / "site"), "--find-links", str(folder / "dist"), "lightning_zoo"],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (folder / "elsewhere").mkdir()
    (wheel,) = (folder / "dist").iterdir()
    return Installed(wheel, folder / "site", folder / "elsewhere")


def test_contents(installed: Installed) -> None:
    version = lightning_zoo.__version__
    assert installed.wheel.name == f"lightning_zoo-{version}-py3-none-any.whl"
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"lightning_zoo-{version}.dist-info/METADATA").decode()
    assert f"\nVersion: {version}\n" in metadata
    tops = {name.split("/")[0] for name in names}
    assert tops == {"lightning_zoo", f"lightning_zoo-{version}.dist-info"}
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "lightning_zoo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"lightning_zoo/py.typed", "lightning_zoo/models/facts/classification.json"} <= tracked
    assert tracked <= names
    for path in recipe_files().values():
        assert f"lightning_zoo/recipes/{path.parent.name}/{path.name}" in names
    assert not [name for name in names if name.endswith(".pyc")]


def test_it_is_the_installed_one(installed: Installed) -> None:
    code = "import lightning_zoo, lightning_zoo.recipe as r; print(lightning_zoo.__file__)"
    done = installed.run("-c", f"{code}; print(r.recipe_roots()[0])")
    package, recipes = done.stdout.splitlines()
    assert Path(package).parent == installed.folder / "lightning_zoo"
    assert Path(recipes) == installed.folder / "lightning_zoo/recipes"
    version = "from importlib.metadata import version as v; print(v('lightning_zoo'))"
    assert installed.run("-c", version).stdout.strip() == lightning_zoo.__version__
    assert installed.zoo("--version").strip() == f"lightning_zoo {lightning_zoo.__version__}"


def test_same_recipes_and_models(installed: Installed) -> None:
    listed = json.loads(installed.zoo("recipes", "ls", "--json"))
    assert [r["name"] for r in listed] == list(recipe_files())
    print(f"{len(listed)} recipes")
    here = subprocess.run(
        [sys.executable, "-m", "lightning_zoo", "recipes", "ls", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed == json.loads(here.stdout)
    first = [line.split()[0] for line in installed.zoo("models", "ls").splitlines()]
    assert [name for name in first if name != "model"] == list_models()  # a heading for each task
    assert installed.zoo("recipes", "lint").startswith(f"{len(listed)} recipes checked, 0 with")
    shown = installed.zoo("recipes", "show", "resnet18")
    assert shown.startswith(recipe_files()["resnet18"].read_text(encoding="utf-8"))


def test_it_builds_models(installed: Installed) -> None:
    code = (
        "import lightning_zoo as lz, torch\n"
        "names = lz.models.get_weights('squeezenet1_1').class_names\n"
        "print(len(names), lz.models.squeezenet1_1()(torch.zeros(1, 3, 64, 64)).shape[1])"
    )
    done = installed.run("-c", code)
    assert done.stdout == "1000 1000\n", done.stderr
    assert list(installed.elsewhere.iterdir()) == []
