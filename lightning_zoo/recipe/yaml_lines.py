"""YAML read with the line of every key kept, so that an error can name it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_zoo.errors import ZooError

Path_ = tuple[str | int, ...]

# A recipe has a few hundred values; beyond these a file is a mistake, or a trap whose aliases
# double on every line.
MOST_BYTES = 1 << 18
MOST_VALUES = 20_000
MOST_DIGITS = 100
DEEPEST = 50


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe loader that reads ``1e-4`` as a number: YAML 1.1 wants ``1.0e-4`` and people do not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
        |\.[0-9_]+(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.X,
    ),
    list("-+0123456789."),
)


@dataclass
class Document:
    """One YAML file: its plain values and where each key stands.

    Attributes:
        value: Dictionaries, lists and scalars.
        lines: Line number (from 1) of each key or list item, by its path from the root.
    """

    value: Any
    lines: dict[Path_, int] = field(default_factory=dict)


def parse(text: str, source: str) -> Document:
    """Parse one YAML document.

    Raises:
        ZooError: If the text is no YAML, a key stands twice or it is far too large or too deep;
            names ``source`` and the line.
    """
    if len(text) > MOST_BYTES:
        raise ZooError(f"{source} has {len(text)} characters; a recipe has {MOST_BYTES} at most")
    _check_depth(text, source)
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # characters that no YAML has
        raise ZooError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        root = loader.get_single_node()
        document = Document(None)
        if root is not None:
            document.value = _build(loader, root, (), document, source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ZooError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    finally:
        loader.dispose()
    return document


def _check_depth(text: str, source: str) -> None:
    """Refuse a text that is nested too deep, before a parser goes down with it."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                line = event.start_mark.line + 1  # type: ignore[union-attr]
                raise ZooError(f"{source}:{line}: nested more than {DEEPEST} deep")
    except yaml.YAMLError:
        return  # what is wrong is told by who reads it


def parse_scalar(text: str) -> Any:
    """Read one value as it would read in a recipe: ``3``, ``1e-4``, ``true``, ``[16, 22]``."""
    try:
        return parse(text, "value").value
    except ZooError:
        return text


def read(path: Path) -> Document:
    """Parse the YAML file at ``path``; see :func:`parse`."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ZooError(f"{path} has {size} bytes; a recipe has {MOST_BYTES} at most")
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"cannot read the recipe {path}: {error}") from None


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PLAIN_SCALARS = (str, int, float, bool, type(None))
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _build(loader: Any, node: yaml.Node, path: Path_, document: Document, source: str) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if len(path) > DEEPEST or len(document.lines) > MOST_VALUES:
        what = f"nested more than {DEEPEST} deep" if len(path) > DEEPEST else "too many values"
        raise ZooError(f"{source}:{node.start_mark.line + 1}: {what}; are there aliases (*) in it?")
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        raise ZooError(f"{source}:{node.start_mark.line + 1}: the tag {node.tag} is not allowed")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ZooError(f"{source}:{line}: a key is a list or a mapping; expected text")
            key = _scalar(loader, key_node, source)
            if not isinstance(key, str):
                raise ZooError(f"{source}:{line}: the key {key!r} is no text")
            if key in mapping:
                first = document.lines[(*path, key)]
                raise ZooError(
                    f"{source}:{line}: the key {key!r} stands twice, first on line {first}"
                )
            document.lines[(*path, key)] = line
            mapping[key] = _build(loader, value_node, (*path, key), document, source)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*path, i), document, source) for i, item in enumerate(node.value)
        ]
    return _scalar(loader, node, source)


def _scalar(loader: Any, node: yaml.Node, source: str) -> Any:
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value  # a date is its text: JSON has no dates
    line = node.start_mark.line + 1
    if node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
        raise ZooError(f"{source}:{line}: a number of {len(node.value)} digits")
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, ArithmeticError) as error:  # a number of thousands of digits
        raise ZooError(f"{source}:{line}: a value that cannot be read: {error}") from None
    if not isinstance(value, _PLAIN_SCALARS):
        raise ZooError(f"{source}:{line}: the tag {node.tag} is not allowed")
    return value
