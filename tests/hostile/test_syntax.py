"""What no file of the package or of the scripts may do, read from their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "lightning_zoo").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])

# Modules that run what they read.
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "code",
}
# Functions that run a text, or a file's content, under any name of their module.
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "os": {"system", "popen"},
    "yaml": {"load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all"},
    "torch": {"load"},  # with weights_only=True alone
    "pandas": {"read_pickle"},
}  # fmt: skip
NAMES = {"load", "extract", "extractall", "unpack_archive"}.union(*METHODS.values())
# The one place that hands a program to torch: one that it wrote itself, see its docstring.
EXPORT_LOAD = {"lightning_zoo/programs.py"}
# The one place that reads a checkpoint.
TORCH_LOAD = {"lightning_zoo/models/plain_files.py"}


def problems(tree: ast.AST, file: str) -> Iterator[str]:
    """Yield what a file does that it may not."""
    for node in ast.walk(tree):
        where = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in MODULES:
                yield f"{where}: import of {name}"
            if name.rpartition(".")[2] in METHODS.get(name.split(".")[0], ()):
                yield f"{where}: {name} under another name"
        if isinstance(node, ast.Call):
            yield from _call(node, file, where)
        if isinstance(node, ast.Name) and node.id in CALLS and isinstance(node.ctx, ast.Load):
            yield f"{where}: {node.id}"


def _call(node: ast.Call, file: str, where: str) -> Iterator[str]:
    if not node.keywords and not isinstance(node.func, ast.Attribute):
        return
    keywords = {k.arg: k.value for k in node.keywords}

    def is_constant(name: str, value: object) -> bool:
        given = keywords.get(name)
        return isinstance(given, ast.Constant) and [given.value] == [value]

    if "weights_only" in keywords and not is_constant("weights_only", True):
        yield f"{where}: weights_only is not True"
    if "allow_pickle" in keywords and not is_constant("allow_pickle", False):
        yield f"{where}: allow_pickle is not False"
    if "shell" in keywords and not is_constant("shell", False):
        yield f"{where}: shell is not False"
    if not isinstance(node.func, ast.Attribute):
        return
    name = node.func.attr
    if name not in NAMES:
        return
    owner = ast.unparse(node.func.value)
    if owner == "torch" and name == "load":
        if not is_constant("weights_only", True) or file not in TORCH_LOAD:
            yield f"{where}: torch.load"
    elif name in METHODS.get(owner, ()):
        yield f"{where}: {owner}.{name}"
    unpacks = name in ("extract", "extractall", "unpack_archive")
    if unpacks and not is_constant("filter", "data"):
        yield f"{where}: a bare {name}"
    programs = owner in ("torch.export", "torch.jit", "torch.package") and name == "load"
    if programs and file not in EXPORT_LOAD:
        yield f"{where}: {owner}.load"
    if owner in ("np", "numpy") and name == "load" and not is_constant("allow_pickle", False):
        yield f"{where}: numpy.load without allow_pickle=False"


def test_no_file_runs_what_it_reads() -> None:
    assert len(FILES) > 150
    found = []
    for path in FILES:
        file = str(path.relative_to(ROOT))
        found += list(problems(ast.parse(path.read_text(encoding="utf-8")), file))
    print(f"{len(FILES)} files")
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as d",
        "from torch import load",
        "from os import system",
        "from yaml import load",
        "eval('1')",
        "f = exec",
        "compile('1', '', 'eval')",
        "__import__('os')",
        "os.system('ls')",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",  # everywhere but in one file
        "trainer.fit(task, weights_only=False)",
        "archive.extractall(folder)",
        "tarfile.open(path).extractall(folder, filter='fully_trusted')",
        "archive.extract(member)",
        "torch.export.load(path)",
        "torch.jit.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_walk_finds_each(code: str) -> None:
    assert list(problems(ast.parse(code), "lightning_zoo/somewhere.py"))


@pytest.mark.parametrize(
    "code",
    [
        "archive.extractall(folder, filter='data')",
        "model.eval()",
        "re.compile('x')",
        "torch.compile(model)",
        "json.load(file)",
        "yaml.safe_load(text)",
        "np.load(path, allow_pickle=False)",
    ],
)
def test_the_walk_leaves_the_rest(code: str) -> None:
    assert list(problems(ast.parse(code), "lightning_zoo/somewhere.py")) == []
