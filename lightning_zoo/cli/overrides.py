"""Options that are the recipe's own keys: ``--trainer.max_epochs 3 --model.optimizer.lr=0.01``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from lightning_zoo.cli import Parser
from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.recipe import Recipe, load_recipe
from lightning_zoo.recipe.lint import SECTIONS
from lightning_zoo.recipe.yaml_lines import parse_scalar

Pairs = list[tuple[str, Any]]


def parse(parser: Parser, args: Sequence[str]) -> tuple[Any, Pairs]:
    """Split a command line into the verb's own options and the recipe's keys.

    Raises:
        ZooError: If an option is neither; the text names the nearest that is.
    """
    own: list[str] = []
    keys: list[str] = []
    tokens = list(args)
    while tokens:  # argparse would take a key's value for an argument without a name
        token = tokens.pop(0)
        key, equals, _ = token.partition("=")
        if key.startswith("--") and ("." in key or key == "--seed_everything"):
            keys.append(token)
            if not equals and tokens and not tokens[0].startswith("--"):
                keys.append(tokens.pop(0))
        else:
            own.append(token)
    known, rest = parser.parse_known_args(own)
    return known, pairs_of([*rest, *keys], parser, getattr(known, "recipe", None))


def pairs_of(tokens: Sequence[str], parser: Parser, recipe: str | None = None) -> Pairs:
    """Return ``--key value`` and ``--key=value`` tokens as pairs, values read as YAML.

    Args:
        tokens: What the verb's own options left over.
        parser: The verb's.
        recipe: Name or file of the recipe whose keys an error may suggest.
    """
    options = [o for action in parser._actions for o in action.option_strings if o[:2] == "--"]
    pairs: Pairs = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if not token.startswith("--"):
            raise ZooError(f"unexpected argument {token!r}; see: {parser.prog} --help")
        key, equals, value = token[2:].partition("=")
        if key.split(".")[0] not in SECTIONS or ("." not in key and key != "seed_everything"):
            guess = nearest(f"--{key}", [*options, *(f"--{s}" for s in SECTIONS)])
            if "." in key:
                section = nearest(key.split(".")[0], SECTIONS)
                guess = f"--{section}.{key.split('.', 1)[1]}" if section else None
            if ends := [k for k in _keys(recipe) if k.endswith(f".{key}")]:
                guess = f"--{min(ends, key=len)}"  # the sections were left out
            tail = f"did you mean {guess}?" if guess else f"see: {parser.prog} --help"
            raise ZooError(f"unknown option '--{key}'; {tail}")
        if not equals:
            i += 1
            if i == len(tokens) or tokens[i].startswith("--"):
                raise ZooError(f"--{key} has no value; expected --{key} VALUE")
            value = tokens[i]
        pairs.append((key, parse_scalar(value)))
        i += 1
    return pairs


def _keys(recipe: str | None) -> list[str]:
    """Return a recipe's dotted keys, ``init_args`` left out; none where there is no such recipe."""
    found: list[str] = []

    def walk(node: Any, path: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            inner = path if key == "init_args" else f"{path}.{key}".lstrip(".")
            if key != "init_args":
                found.append(inner)
            walk(value, inner)

    with contextlib.suppress(ZooError):
        walk(load_recipe(recipe).config if recipe else {}, "")
    return found


def check_early(recipe: Recipe, pairs: Pairs) -> Recipe:
    """Return the recipe with overrides, checked before anything heavy is imported."""
    return recipe.with_overrides(pairs).check()
