"""Elements of HTML and SVG: whatever is text is escaped, so names from data stay text."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

from lightning_zoo.report.findings import Cell

VOID_TAGS = ("img", "meta", "br", "col")
# What XML and HTML allow in no text: control characters and halves of surrogate pairs.
UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
ABSENT = "\N{EN DASH}"


class Markup(str):
    """Text that is HTML already; only :func:`tag` and :func:`join` make it."""

    __slots__ = ()


Child = str | int | float | None


def escape(text: object) -> Markup:
    """Return a text as HTML that shows it; what is HTML already stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(UNFIT.sub("\N{REPLACEMENT CHARACTER}", str(text))))


def join(children: Iterable[Child], between: str = "") -> Markup:
    """Return the children one after the other; None is left out."""
    return Markup(between.join(escape(child) for child in children if child is not None))


def tag(name: str, /, *children: Child, **attributes: Child | bool) -> Markup:
    """Return an element.

    Args:
        name: Name of the element.
        children: Texts and elements within it; None is left out.
        attributes: Attributes; ``_`` stands for ``-``, one at the end is dropped (``class_``). None
            and False leave one out, True gives it no value.
    """
    shown = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        shown += f" {key}" if value is True else f' {key}="{escape(value)}"'
    if name in VOID_TAGS:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(children)}</{name}>")


def table(
    rows: Sequence[dict[str, Cell]],
    caption: str,
    *,
    texts: Sequence[str] = (),
    note: str | None = None,
) -> Markup:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        rows: Titles and values; whole numbers are counts, floats have one decimal. The first column
            names the row.
        caption: What the table is, for those who hear the page.
        texts: Columns that stand at the left; the others hold numbers.
        note: A line below.
    """
    titles = list(rows[0]) if rows else []
    head = [
        tag("th", title, scope="col", class_="text" if i == 0 or title in texts else None)
        for i, title in enumerate(titles)
    ]
    body = []
    for row in rows:
        cells = []
        for i, title in enumerate(titles):
            value = row[title]
            if i == 0:
                cells.append(tag("th", value, scope="row", class_="text"))
            else:
                cells.append(tag("td", shown(value), class_="text" if title in texts else None))
        body.append(tag("tr", *cells))
    return join([
        tag("div",
            tag("table", tag("caption", caption), tag("thead", tag("tr", *head)),
                tag("tbody", *body)),
            class_="scroll tall" if len(rows) > 30 else "scroll",
            tabindex=0, role="region", aria_label=caption),
        tag("p", note, class_="note") if note else None,
    ])  # fmt: skip


def shown(value: Cell) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if isinstance(value, float):
        return ABSENT if math.isnan(value) else f"{value:.1f}"
    return value or ABSENT
