"""What may import what: ops, layers and models are plain torch, and an import costs little.

Ops import numpy as well: its loops start no threads.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_zoo"
PLAIN = ("ops", "layers", "models")
FILES = sorted(path for part in PLAIN for path in (PACKAGE / part).rglob("*.py"))
ALLOWED = tuple(f"lightning_zoo.{part}" for part in (*PLAIN, "errors"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh interpreter; return the modules that are loaded afterwards."""
    code += "\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(done.stdout.split())


def imports(path: Path) -> set[str]:
    """Return what a file imports anywhere in it, under a condition too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module
            if node.module in ("lightning_zoo", "torch"):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                found.add(node.module)
    return found


def test_files_are_found() -> None:
    assert len(FILES) >= 15


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_plain_parts_import_torch_alone(path: Path) -> None:
    for name in imports(path):
        root = name.split(".")[0]
        if root == "lightning_zoo":
            assert name.startswith(ALLOWED), f"{path} imports {name}"
        else:
            numpy = root == "numpy" and path.parent.name == "ops"
            known = root == "torch" or root in sys.stdlib_module_names
            assert known or numpy, f"{path} imports {name}"


def test_deprecated_quantization_is_imported_in_one_file() -> None:
    root = PACKAGE.parent
    files = [*PACKAGE.rglob("*.py"), *(root / "scripts").glob("*.py")]
    # importing the latter defines the operations of programs that torch.export wrote
    used = {(module_name(p), n) for p in files for n in imports(p) if n.startswith("torch.ao")}
    others = {(user, n) for user, n in used if n != "torch.ao.quantization.fx._decomposed"}
    assert {user for user, _ in others} == {"lightning_zoo.models.quantization.eager"}


def test_plain_parts_work_without_lightning() -> None:
    names = ", ".join(sorted(module_name(path) for path in FILES))
    loaded = loaded_after(f"import {names}")
    assert "torch" in loaded
    assert len([n for n in loaded if n.startswith("lightning_zoo.")]) >= len(FILES) - 1
    roots = {name.split(".")[0] for name in loaded}
    others = {"lightning", "pytorch_lightning", "torchmetrics", "torchvision", "timm", "wandb"}
    assert not roots & (others | {"rich", "cv2", "albumentations", "pycocotools", "av", "PIL"})


def test_listing_needs_no_torch() -> None:
    loaded = loaded_after(
        "from lightning_zoo import models\nassert len(models.list_models()) >= 37\n"
        "import lightning_zoo.models.classification"
    )
    assert "torch" not in loaded


def test_a_family_imports_no_other() -> None:
    loaded = loaded_after("from lightning_zoo import models\nmodels.alexnet()")
    package = "lightning_zoo.models.classification"
    assert {n for n in loaded if n.startswith(package)} == {package, f"{package}.alexnet"}


def test_constructor_stays_before_its_file() -> None:
    """``alexnet`` is a file and a constructor in it; the name is the constructor's."""
    loaded_after(
        "import lightning_zoo.models.classification.alexnet\n"
        "from lightning_zoo.models import classification\n"
        "from lightning_zoo.models.classification import alexnet\n"
        "assert alexnet.__name__ == 'alexnet' and callable(alexnet)\n"
        "assert classification.alexnet is alexnet"
    )
