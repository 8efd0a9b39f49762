"""YAML that a person wrote by hand, or that means harm."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 100_000  # a few seconds; the names of several thousand classes
MAX_DEPTH = 20


class _Plain(yaml.SafeLoader):
    """Without aliases: a page of them stands for more values than fit into memory."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*), which is not read", mark)
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError("it is nested too deeply")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load_yaml(text: str) -> Any:
    """Return what a YAML text holds: plain values, without aliases.

    Raises:
        yaml.YAMLError: If it is none, too long or too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters; expected at most {MAX_CHARACTERS}")
    loader = _Plain(text)
    try:
        return loader.get_single_data()
    except (ValueError, OverflowError) as error:  # of a number or a date
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()
