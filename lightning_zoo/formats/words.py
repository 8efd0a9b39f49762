"""Words that the formats' sentences share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from lightning_zoo.batch import counted
from lightning_zoo.formats.index import SPLITS, Item


def some(names: Iterable[object], limit: int = 8) -> str:
    """Return names joined by commas, with the rest counted: ``a, b, ... (80 in all)``."""
    listed = [str(name) for name in names]
    if len(listed) <= limit:
        return ", ".join(listed)
    return f"{', '.join(listed[:limit])}, ... ({len(listed)} in all)"


def splits_found(items: Sequence[Item], noun: str = "image") -> str:
    """Return a sentence with the number of items of each split."""
    counts = Counter(item.split for item in items)
    return "splits as found: " + ", ".join(
        f"{split} {counted(counts[split], noun)}" for split in SPLITS if counts[split]
    )


def classes_found(names: Sequence[str], whence: str) -> str:
    """Return a sentence with the classes and where they come from."""
    return f"{counted(len(names), 'class', 'es')} from {whence}: {some(names)}"
