"""What a class accepts, read from its source: nothing is imported, so the answer comes at once.

The signature in the source is the only schema of a recipe; there is no second list to keep true.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.recipe.trust import SLOTS, Slot, check

PACKAGE = Path(__file__).resolve().parents[1]
# Folders whose classes a recipe may name without their module.
OUR_FOLDERS = ("tasks", "datamodules", "optim", "callbacks")
# Parameters that take a class with its arguments, to be called later with the missing first one.
DEFERRED = ("OptimizerCallable", "ScheduleCallable")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor: its name, annotation and whether it may be left out."""

    name: str
    annotation: ast.expr | None
    required: bool

    @property
    def deferred(self) -> bool:
        """Whether the value is a class with arguments that is called later."""
        return self.annotation is not None and any(
            isinstance(node, ast.Name) and node.id in DEFERRED for node in ast.walk(self.annotation)
        )

    @property
    def takes(self) -> str | None:
        """Name of the class of ours that the value is an object of, None where it is no such."""
        return node_class(self.annotation)


@dataclass(frozen=True)
class Signature:
    """The constructor of one class.

    Attributes:
        module: Module that holds the class.
        name: The class's name.
        parameters: Its parameters by name, without ``self``.
        open: Whether it takes any keyword (``**kwargs``).
    """

    module: str
    name: str
    parameters: dict[str, Parameter]
    open: bool


@functools.cache
def our_classes() -> dict[str, Path]:
    """Return the files of the classes that a recipe may name by their bare name."""
    found: dict[str, Path] = {}
    for folder in OUR_FOLDERS:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for name in re.findall(r"^class ([A-Z]\w*)", path.read_text("utf-8"), re.M):
                found[name] = path
    return found


def signature(class_path: str, slots: tuple[Slot, ...] = SLOTS) -> Signature:
    """Return what the class at ``class_path`` accepts.

    Args:
        class_path: ``ClassificationTask``, or a dotted name such as ``torch.optim.SGD``.
        slots: What the place takes where the class is named.

    Raises:
        ZooError: If there is no such class, or it stands outside what recipes may use there.
    """
    check(class_path, slots)
    return _signature(class_path)


@functools.cache
def _signature(class_path: str) -> Signature:
    package, _, name = class_path.rpartition(".")
    if not package:
        if name not in our_classes():
            raise unknown("class", class_path, our_classes())
        path = our_classes()[name]
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    else:
        module, path = _find(package, name, class_path)
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ZooError(f"class_path {class_path!r}: {path} cannot be read: {error}") from None
    init = _init(tree, name, path)
    if init is None:
        return Signature(module, name, {}, open=True)
    args = init.args
    positional = [*args.posonlyargs, *args.args][1:]
    missing = len(positional) - len(args.defaults)
    parameters = {
        a.arg: Parameter(a.arg, _unquote(a.annotation), i < missing)
        for i, a in enumerate(positional)
    }
    for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        parameters[a.arg] = Parameter(a.arg, _unquote(a.annotation), default is None)
    return Signature(module, name, parameters, open=args.kwarg is not None)


def _find(package: str, name: str, class_path: str) -> tuple[str, Path]:
    """Return module and file of a class that ``package`` defines or re-exports."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__ has none
        spec = None
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        raise ZooError(
            f"class_path {class_path!r}: there is no package {top} with a source in Python; "
            "expected PACKAGE.MODULE.CLASS of an installed one"
        )
    if spec.submodule_search_locations:
        base = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    else:  # one file
        base = Path(str(spec.origin)).with_suffix("").joinpath(*rest)
    pattern = re.compile(rf"^class {re.escape(name)}\b", re.M)
    # somewhere in torch there is a `class load`, and torch.load is a function that runs files
    for path in _files(base) if name[:1].isupper() else ():
        if pattern.search(path.read_text("utf-8")):
            return package, path
    choices = {
        found
        for path in _files(base)
        for found in re.findall(r"^class ([A-Z]\w*)", path.read_text("utf-8"), re.M)
    }
    raise unknown("class", class_path, [f"{package}.{c}" for c in choices], f"{package} has none")


def _files(base: Path) -> Iterator[Path]:
    if base.with_suffix(".py").is_file():
        yield base.with_suffix(".py")
    yield from sorted(base.glob("*.py"))
    yield from sorted(base.glob("*/**/*.py"))


def _init(tree: ast.Module, name: str, path: Path) -> ast.FunctionDef | None:
    """Return the constructor that class ``name`` uses, its own or an inherited one."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        return None
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return node
    for base in classes[name].bases:
        if isinstance(base, ast.Name):
            if base.id in classes:
                return _init(tree, base.id, path)
            if base.id in our_classes():
                other = our_classes()[base.id]
                return _init(ast.parse(other.read_text("utf-8")), base.id, other)
    return None


def _unquote(annotation: ast.expr | None) -> ast.expr | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "Path": (str,),
    "dict": (dict,),
    "Mapping": (dict,),
    "list": (list,),
    "Sequence": (list,),
    "Iterable": (list,),
    "tuple": (list, tuple),
}


def node_class(annotation: ast.expr | None) -> str | None:
    """Return the class of ours that an annotation names (``FineTuning | None``), else None."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return node_class(left) or node_class(right)
        case ast.Name(id=name) if name in our_classes():
            return name
    return None


def accepts(annotation: ast.expr | None, value: Any) -> bool:
    """Whether plain YAML data fits; an annotation that says nothing here takes all."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return accepts(left, value) or accepts(right, value)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _SCALARS:
            if isinstance(value, bool) and name != "bool":
                return False
            return isinstance(value, _SCALARS[name])
        case ast.Name(id=name) if name in our_classes():
            return False  # an object, and this is plain data
        case ast.Subscript(value=ast.Name(id=name), slice=inner):
            if name == "Optional":
                return value is None or accepts(inner, value)
            if name == "Union" and isinstance(inner, ast.Tuple):
                return any(accepts(item, value) for item in inner.elts)
            if name == "Literal":
                return value in choices(annotation)
            if name in ("list", "Sequence", "Iterable"):
                return isinstance(value, list) and all(accepts(inner, v) for v in value)
            if name == "tuple" and isinstance(inner, ast.Tuple):
                return _accepts_tuple(inner.elts, value)
            return name not in _SCALARS or isinstance(value, _SCALARS[name])
    return True


def _accepts_tuple(items: list[ast.expr], value: Any) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    if isinstance(items[-1], ast.Constant) and items[-1].value is Ellipsis:
        return all(accepts(items[0], v) for v in value)
    return len(items) == len(value) and all(
        accepts(item, v) for item, v in zip(items, value, strict=True)
    )


def choices(annotation: ast.expr | None) -> list[Any]:
    """Return the values of the ``Literal`` in an annotation, none where it has none."""
    if annotation is None:
        return []
    found: list[Any] = []
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal":
            inner = node.slice
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            found += [item.value for item in items if isinstance(item, ast.Constant)]
    return found


def describe(annotation: ast.expr | None) -> str:
    """Return the annotation as a reader would say it."""
    if found := choices(annotation):
        return "one of " + ", ".join(str(c) for c in found)
    match annotation:
        case None:
            return "anything"
        case ast.Constant(value=None):
            return "null"
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{describe(left)} or {describe(right)}"
        case ast.Name(id=name) if name in our_classes():
            return f"class_path: {name} with init_args"
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return f"{describe(inner)} or null"
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=items)):
            return " or ".join(dict.fromkeys(describe(item) for item in items))
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=items)) if (
            len({ast.unparse(item) for item in items}) == 1
        ):
            kind = describe(items[0]).removeprefix("a ")
            letters = ", ".join("ABCDEFGH"[: len(items)])
            return f"{len(items)} {kind}s, [{letters}]"
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    text = ast.unparse(annotation)
    return words.get(text, text)
