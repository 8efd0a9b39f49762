"""Recipes: one YAML file is one complete run, found by name, checked, overridden and built.

Nothing in this package imports torch before :mod:`lightning_zoo.recipe.build` does.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_zoo.errors import ZooError, nearest, unknown
from lightning_zoo.models.registry import get_entry
from lightning_zoo.recipe import yaml_lines
from lightning_zoo.recipe.lint import KeyPath, Problem, lint
from lightning_zoo.recipe.schema import signature
from lightning_zoo.recipe.trust import foreign, is_trusting, trust

__all__ = ["Recipe", "find_recipe", "list_recipes", "load_recipe", "recipe_files", "trust"]

PACKAGE = Path(__file__).resolve().parents[1]
TRUSTED = "Trusted (--trust), its code ran:"


@dataclass
class Recipe:
    """One run, as it was written and as it was overridden.

    Attributes:
        name: Stem of the file; of a run's ``recipe.yaml`` the name that the run had.
        path: The file, or None where the recipe was made in memory.
        config: The sections as plain data.
        header: The comment lines at the file's top, without ``#``: command, source, notes.
    """

    name: str
    path: Path | None
    config: dict[str, Any]
    header: tuple[str, ...] = ()
    document: yaml_lines.Document | None = None
    overridden: dict[KeyPath, str] | None = None

    @property
    def task(self) -> str:
        """Task that the recipe is for: ``classification``, or another that has models."""
        if self.is_int8:
            return "quantization"
        return get_entry(self.model).task

    @property
    def is_int8(self) -> bool:
        """Whether the recipe brings a trained network to INT8."""
        class_path = self.config.get("model", {}).get("class_path", "")
        return str(class_path).rpartition(".")[2] == "QuantizationTask"

    @property
    def model(self) -> str:
        """Name of the network that the recipe trains."""
        return str(self.config["model"].get("init_args", {}).get("model", ""))

    def problems(self) -> list[str]:
        """Return each mistake as a sentence that begins with the file and line, or the option."""
        return [f"{self._where(problem)}: {problem.text}" for problem in lint(self.config)]

    def check(self) -> Recipe:
        """Return self.

        Raises:
            ZooError: If the recipe has mistakes; the text lists them, one a line.
        """
        if problems := self.problems():
            raise ZooError("\n".join(problems))
        return self

    def with_overrides(self, overrides: Iterable[tuple[str, Any]]) -> Recipe:
        """Return a copy with keys replaced: ``("model.optimizer.lr", 0.01)``.

        ``init_args`` may be left out of a key, as people do on the command line.
        """
        config = copy.deepcopy(self.config)
        overridden = dict(self.overridden or {})
        for key, value in overrides:
            path = _assign(config, key, value)
            overridden[path] = f"--{key}"
        made = Recipe(self.name, self.path, config, self.header, self.document, overridden)
        # what a run ran beside our code stands at the top of its recipe.yaml
        noted = tuple(f"{TRUSTED} {name}" for name in made.foreign if is_trusting())
        made.header = tuple(h for h in self.header if not h.startswith(TRUSTED)) + noted
        return made

    @property
    def foreign(self) -> list[str]:
        """Classes that it names outside torch, albumentations and this package."""
        return foreign(self.config)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a dotted key (``init_args`` left out), else ``default``."""
        node: Any = self.config
        for part in key.split("."):
            if isinstance(node, dict) and "class_path" in node and part not in node:
                node = node.get("init_args", {})
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    def _where(self, problem: Problem) -> str:
        for n in range(len(problem.path), 0, -1):
            if problem.path[:n] in (self.overridden or {}):
                return (self.overridden or {})[problem.path[:n]]
        source = str(self.path or self.name)
        for n in range(len(problem.path), -1, -1):
            if self.document is not None and problem.path[:n] in self.document.lines:
                return f"{source}:{self.document.lines[problem.path[:n]]}"
        return source


def _assign(config: dict[str, Any], key: str, value: Any) -> KeyPath:
    """Set one dotted key in place and return its full path, ``init_args`` included."""
    node: Any = config
    path: list[str | int] = []
    parts = key.split(".")
    owner: str | None = None  # class whose arguments `node` holds
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ZooError(f"--{key}: {part!r} is no item of a list of {len(node)}")
            step: str | int = int(part)
        else:
            if not isinstance(node, dict):
                raise ZooError(f"--{key}: {'.'.join(parts[:i])} is a value, it has no keys")
            owner = None
            if "class_path" in node and part not in ("class_path", "init_args"):
                owner = node["class_path"]
                node = node.setdefault("init_args", {})
                path.append("init_args")
            step = part
        path.append(step)
        if last:
            node[step] = value
        elif isinstance(node, list):
            node = node[step]  # type: ignore[index]
        else:
            if node.get(step) is None:
                if not _takes(owner, part):
                    _check_section(key, parts, i, node)
                node[step] = {}
            node = node[step]
    return tuple(path)


def _takes(class_path: str | None, argument: str) -> bool:
    """Whether a class has an argument of this name; the recipe need not have it yet."""
    if class_path is None:
        return False
    with contextlib.suppress(ZooError):  # the linter says later what is wrong with the class
        return argument in signature(class_path).parameters
    return False


def _check_section(key: str, parts: Sequence[str], i: int, node: dict[str, Any]) -> None:
    """Refuse to open a new mapping under a misspelt key: name the nearest that is there."""
    if i == 0 and parts[0] not in ("run", "trainer", "reference", "batch"):
        raise unknown("key", f"--{key}", [".".join([k, *parts[1:]]) for k in node])
    if (guess := nearest(parts[i], node)) is not None:
        raise unknown("key", f"--{key}", [".".join([*parts[:i], guess, *parts[i + 1 :]])])


def recipe_roots() -> list[Path]:
    """Return the folder of the recipes: the installed one, else the checkout's."""
    installed, checkout = PACKAGE / "recipes", PACKAGE.parent / "recipes"
    return [root for root in (installed, checkout) if root.is_dir()][:1]


@functools.cache
def recipe_files() -> dict[str, Path]:
    """Return every recipe's file by name, in the order of the folders and names."""
    found: dict[str, Path] = {}
    for root in recipe_roots():
        for path in sorted(root.glob("*/*.yaml")):
            if path.stem in found:
                raise ZooError(f"two recipes are called {path.stem}: {found[path.stem]} and {path}")
            found[path.stem] = path
    return found


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe given by name (``resnet50``) or by path.

    Raises:
        ZooError: If there is none; the text names the nearest name.
    """
    text = str(name_or_path)
    if text in recipe_files():
        return recipe_files()[text]
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise ZooError(f"no recipe file at {text}; see: python -m lightning_zoo recipes ls")
    raise unknown("recipe", text, recipe_files(), "see: python -m lightning_zoo recipes ls")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by name or path; it is not yet checked (see :meth:`Recipe.check`)."""
    path = find_recipe(name_or_path)
    document = yaml_lines.read(path)
    header = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.lstrip("# ").rstrip())
    config = document.value if document.value is not None else {}
    if not isinstance(config, dict):
        raise ZooError(f"{path}:1: a recipe is a mapping of sections, this is a {type(config)}")
    return Recipe(_name(path), path, config, tuple(header), document)


def _name(path: Path) -> str:
    """Return a file's stem; the recipe that a run left behind is still called as it was."""
    record = path.parent / "run.json"
    if path.name == "recipe.yaml" and record.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            name = str(json.loads(record.read_text(encoding="utf-8"))["recipe"])
            if re.fullmatch(r"\w[\w.+-]*", name):  # it becomes a folder's name
                return name
    return path.stem


def list_recipes(task: str | None = None) -> list[Recipe]:
    """Return all recipes, or those of one task's folder."""
    folders = {path.parent.name for path in recipe_files().values()}
    if task is not None and task not in folders:
        raise unknown("task", task, folders)
    return [load_recipe(n) for n, p in recipe_files().items() if task in (None, p.parent.name)]
