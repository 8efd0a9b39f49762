"""Programs of ``torch.export`` as files (``.pt2``), read without running what is not a network.

``torch.export.load`` believes a file: it unpickles tensors, constants and example inputs, loads
compiled libraries, turns the names of nodes into source code and runs it, looks operations up by
any dotted name under ``torch`` (``torch.os.system`` is one) and computes the shapes' formulas as
Python. :func:`load` therefore takes a file apart, looks at every word in it, and gives torch a new
one made of what is plain: operations on tensors, names, numbers and raw values.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

# Its graph takes a megabyte; weights are stored as they are.
MOST_TEXT = 64 << 20
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DOTTED = re.compile(r"([A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*)?")
OPERATION = re.compile(
    r"torch\.ops\.(aten|quantized_decomposed|lightning_zoo)\.([a-z_]\w*)\.([A-Za-z_]\w*)"
)
ON_NUMBERS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|torch\.sym_(min|max|float|int|not|ite)|math\.(ceil|floor|trunc|sqrt)"
)
# Texts that operations take: how to round, to pad, to interpolate, and what an assertion says.
TEXTS = {"mode", "rounding_mode", "approximate", "padding_mode", "indexing", "pad_mode"}
FORMULA = re.compile(r"[\w\s,()='.+\-*/]*")
IN_FORMULAS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs",
    "FloorDiv", "CleanDiv", "CeilDiv", "PythonMod", "ModularIndexing", "IntTrueDiv",
    "FloatTrueDiv", "FloatPow", "PowByNatural", "ToFloat", "TruncToInt", "FloorToInt",
    "CeilToInt", "RoundToInt", "TruncToFloat", "Identity", "Where", "Piecewise", "GreaterThan",
    "LessThan", "StrictGreaterThan", "StrictLessThan", "Equality", "Unequality", "Eq", "Ne",
    "Ge", "Le", "Gt", "Lt", "And", "Or", "Not", "true", "false", "True", "False", "BooleanTrue",
    "BooleanFalse",
}  # fmt: skip
POWERS = {"Pow", "FloatPow", "PowByNatural"}
SYMBOL = re.compile(r"[a-z]+\d+")
LARGEST_POWER = 64
LONGEST_FORMULA = 10_000
# Places whose texts are no names of nodes.
FREE_TEXT = {"torch_version"}


class NotPlainError(ValueError):
    """A program holds something else than operations on tensors."""


def load(path: Path, extra: str) -> tuple[ExportedProgram, dict[str, Any]]:
    """Return a program and its facts.

    Args:
        path: A file of ``torch.export.save``.
        extra: Name of the extra file that holds the facts, as JSON.

    Raises:
        NotPlainError: If there is more in it than a network.
        Exception: If the file is damaged.
    """
    rewritten, facts = _rewrite(path, extra)
    return torch.export.load(rewritten), facts


def _rewrite(path: Path, extra: str) -> tuple[io.BytesIO, dict[str, Any]]:
    """Return a new file that holds what is plain in an old one, and the facts."""
    size = path.stat().st_size
    written = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(written, "w") as new:
        entries = _entries(old, size)
        model = _json(old, entries.pop("models/model.json"))
        _check_graph(model)
        payloads: dict[str, dict[str, Any]] = {}
        for kind, least in (("weights", "weight"), ("constants", "tensor")):
            config = _json(old, entries.pop(f"data/{kind}/model_{kind}_config.json"))
            files = _check_payloads(config, kind, least, entries)
            payloads[kind] = config
            for name in files:
                new.writestr(f"archive/{name}", old.read(entries[name]))
        facts = _json(old, entries[f"extra/{extra}"])
        if not isinstance(facts, dict):
            raise NotPlainError("its facts are no mapping")
        texts = {
            "models/model.json": json.dumps(model),
            "data/weights/model_weights_config.json": json.dumps(payloads["weights"]),
            "data/constants/model_constants_config.json": json.dumps(payloads["constants"]),
            "data/sample_inputs/model.pt": "",
            "archive_format": "pt2",
            "archive_version": old.read(entries["archive_version"])[:9].decode(),
            "byteorder": old.read(entries["byteorder"])[:9].decode(),
            ".data/version": "3\n",
        }
        for name, text in texts.items():
            new.writestr(f"archive/{name}", text)
    written.seek(0)
    return written, facts


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by their name below the archive's folder, their sums checked."""
    found: dict[str, zipfile.ZipInfo] = {}
    packed = sum(e.file_size for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED)
    plain = sum(e.file_size for e in archive.infolist() if e.compress_type == zipfile.ZIP_STORED)
    if packed > MOST_TEXT or plain > size:
        raise NotPlainError("it unpacks to more than a network")
    for entry in archive.infolist():
        name = entry.filename.partition("/")[2]
        if name in found:
            raise NotPlainError(f"it has two entries {name}")
        found[name] = entry
    if any(name.startswith("data/aotinductor") for name in found):
        raise NotPlainError("it holds a compiled library")
    if archive.testzip() is not None:  # torch does not look at the sums
        raise ValueError("damaged")
    return found


def _json(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    if entry.file_size > MOST_TEXT:
        raise NotPlainError(f"{entry.filename} has {entry.file_size} bytes")
    return json.loads(archive.read(entry))


def _check_payloads(
    config: Any, kind: str, prefix: str, entries: Mapping[str, zipfile.ZipInfo]
) -> list[str]:
    """Check where the tensors of a kind lie; return the entries that hold them."""
    files: dict[str, None] = {}
    if set(config) != {"config"} or not isinstance(config["config"], dict):
        raise NotPlainError(f"the list of its {kind} is none")
    for name, one in config["config"].items():
        _match(DOTTED, name, f"{kind} name")
        if one["use_pickle"] is not False:
            raise NotPlainError(f"{name} is a pickle")
        _match(re.compile(rf"{prefix}_\d+"), one["path_name"], f"file of {name}")
        file = f"data/{kind}/{one['path_name']}"
        meta = one["tensor_meta"]
        _check_words(meta)
        if meta["device"]["type"] != "cpu":
            raise NotPlainError(f"{name} is not on the CPU")
        values = math.prod(_number(v["as_int"]) for v in meta["sizes"])
        if entries[file].file_size == 0 and values:  # torch would make them up
            raise NotPlainError(f"{name} has {values} values and no file")
        files[file] = None
    return list(files)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise NotPlainError(f"{value!r} is no size")
    return value


# ---------------------------------------------------------------------------------------------
# The graph


def _check_graph(model: Any) -> None:
    """Check every word of a graph, and take away what is only for reading."""
    model["guards_code"] = []  # Python, for arguments that are checked before
    module = model["graph_module"]
    module["metadata"] = {}
    for node in _nodes(module["graph"]):
        _check_node(node)
        node["metadata"] = {}  # where a node comes from, as dotted names and lines of source
    for call in module["module_call_graph"]:
        signature = call.get("signature") or {}
        for key in ("in_spec", "out_spec"):
            if key in signature:
                _check_tree(json.loads(signature[key])[1])
                signature[key] = json.dumps(json.loads(signature[key]))
    if any(name not in ("TRAINING", "ATEN") for name in model["verifiers"]):
        raise NotPlainError(f"its verifiers are {model['verifiers']}")
    _check_words(model)


def _nodes(graph: Any) -> Iterable[dict[str, Any]]:
    nodes = graph["nodes"]
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise NotPlainError("its nodes are no list")
    return nodes


def _check_node(node: dict[str, Any]) -> None:
    target = node["target"]
    if not isinstance(target, str):
        raise NotPlainError(f"{target!r} is no operation")
    found = OPERATION.fullmatch(target)
    if found is None:
        if not ON_NUMBERS.fullmatch(target):
            raise NotPlainError(f"{target} is no operation on tensors")
        texts: set[str] = set()
    else:
        namespace, name, overload = found.groups()
        operation = getattr(getattr(getattr(torch.ops, namespace), name), overload)
        if not isinstance(operation, torch._ops.OpOverload):
            raise NotPlainError(f"{target} is no operation on tensors")
        arguments = operation._schema.arguments
        texts = {a.name for a in arguments if "str" in str(a.type)}
        assertion = name in ("_assert_scalar", "_assert_async", "_assert_tensor_metadata")
        if not assertion and texts - TEXTS:  # a file's name, for one
            raise NotPlainError(f"{target} is no operation on tensors alone")
    for argument in node["inputs"]:
        if "as_string" in argument["arg"] and argument["name"] == "assert_msg":
            # it is written into source code
            argument["arg"]["as_string"] = "a size of the input does not fit the network"


def _check_tree(tree: Any) -> None:
    """Check how arguments and results are nested: tuples, lists and mappings of names."""
    if tree["type"] not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
        raise NotPlainError(f"it takes or gives a {tree['type']}")
    keys = json.loads(tree["context"]) if tree["context"] is not None else None
    if keys is not None and not isinstance(keys, list):  # torch imports what some mappings name
        raise NotPlainError(f"it takes or gives {keys!r}")
    for key in keys or ():
        _match(NAME, key, "key")
    for child in tree["children_spec"]:
        _check_tree(child)


def _check_words(value: Any, key: str = "") -> None:
    """Refuse each text that is no name, formula, or number: torch makes source code of them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _match(DOTTED, name, "name")
            _check_words(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_words(inner, key)
    elif isinstance(value, str):
        if key == "expr_str":
            check_formula(value)
        elif key == "as_float":
            float(value)  # Infinity
        elif key == "target":
            pass  # checked with its node
        elif key in ("in_spec", "out_spec"):
            pass  # checked as trees
        elif key == "as_string":
            _match(re.compile(r"[\w ]*"), value, "text")
        elif key in ("name", "as_name"):
            _match(NAME, value, "name")  # of a variable
        elif key not in FREE_TEXT:
            _match(DOTTED, value, key or "name")
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise NotPlainError(f"{value!r} is no plain value")


def check_formula(text: str) -> None:
    """Refuse a formula of a size that is more than arithmetic; torch computes it as Python.

    Raises:
        NotPlainError: If it is.
    """
    if len(text) <= LONGEST_FORMULA and FORMULA.fullmatch(text):
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            pass
        else:
            if _is_arithmetic(tree):
                return
    raise NotPlainError(f"{text[:80]!r} is no formula of a size")


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, (int, float)) and len(str(value)) < 40
        case ast.Name(id=name):
            return name in IN_FORMULAS or bool(SYMBOL.fullmatch(name))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
            return _is_arithmetic(inner)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv()):
            return _is_arithmetic(node.left) and _is_arithmetic(node.right)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            flags = [k.value for k in node.keywords]
            return bool(SYMBOL.fullmatch(name)) and all(
                isinstance(flag, ast.Constant) and type(flag.value) is bool for flag in flags
            )
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name in POWERS and not _is_small_power(arguments):
                return False
            return name in IN_FORMULAS and all(map(_is_arithmetic, arguments))
    return False


def _is_small_power(arguments: list[ast.expr]) -> bool:
    """Whether the exponent is a small number, and no power is raised to another."""
    if len(arguments) != 2:
        return False
    base, power = arguments
    if isinstance(power, ast.Call) and len(power.args) == 1:  # Integer(2)
        power = power.args[0]
    if isinstance(power, ast.UnaryOp):
        power = power.operand
    inner = {node.id for node in ast.walk(base) if isinstance(node, ast.Name)}
    value = getattr(power, "value", None)
    return not inner & POWERS and isinstance(value, (int, float)) and value <= LARGEST_POWER


def _match(pattern: re.Pattern[str], value: Any, what: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise NotPlainError(f"the {what} {str(value)[:80]!r} is not plain")
