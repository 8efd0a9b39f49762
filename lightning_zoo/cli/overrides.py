"""Options that are the recipe's own keys: ``--trainer.max_epochs 3 --model.optimizer.lr=0.01``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_zoo.cli import Parser
from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.recipe import Recipe
from lightning_zoo.recipe.lint import SECTIONS
from lightning_zoo.recipe.yaml_lines import parse_scalar

Pairs = list[tuple[str, Any]]


def parse(parser: Parser, args: Sequence[str]) -> tuple[Any, Pairs]:
    """Split a command line into the verb's own options and the recipe's keys.

    Raises:
        ZooError: If an option is neither; the text names the nearest that is.
    """
    known, rest = parser.parse_known_args(list(args))
    return known, pairs_of(rest, parser)


def pairs_of(tokens: Sequence[str], parser: Parser) -> Pairs:
    """Return ``--key value`` and ``--key=value`` tokens as pairs, values read as YAML."""
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
            tail = f"did you mean {guess}?" if guess else f"see: {parser.prog} --help"
            raise ZooError(f"unknown option '--{key}'; {tail}")
        if not equals:
            i += 1
            if i == len(tokens):
                raise ZooError(f"--{key} has no value; expected --{key} VALUE")
            value = tokens[i]
        pairs.append((key, parse_scalar(value)))
        i += 1
    return pairs


def check_early(recipe: Recipe, pairs: Pairs) -> Recipe:
    """Return the recipe with overrides, checked before anything heavy is imported."""
    return recipe.with_overrides(pairs).check()
