"""Words that the formats' sentences share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from lightning_zoo.formats.index import SPLITS, Item


def some(names: Iterable[object], limit: int = 8) -> str:
    """Return names joined by commas, with the rest counted: ``a, b, ... (80 in all)``."""
    listed = [str(name) for name in names]
    if len(listed) <= limit:
        return ", ".join(listed)
    return f"{', '.join(listed[:limit])}, ... ({len(listed)} in all)"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 image`` or ``2 images``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def splits_found(items: Sequence[Item], noun: str = "image") -> str:
    """Return a sentence with the number of items of each split."""
    counts = Counter(item.split for item in items)
    return "splits as found: " + ", ".join(
        f"{split} {counted(counts[split], noun)}" for split in SPLITS if counts[split]
    )


def classes_found(names: Sequence[str], whence: str) -> str:
    """Return a sentence with the classes and where they come from."""
    return f"{counted(len(names), 'class', 'classes')} from {whence}: {some(names)}"
