"""Charts as SVG within the page: lines with axes. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_zoo.report.html import Markup, join, tag

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 12, 40
MOST_POINTS = 300  # of one line; more cannot be told apart
FEW_POINTS = 30  # so many get a mark each
COLOURS = 4  # that the page's style has

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: What the legend calls it.
        xs: Ascending.
        ys: As many; those that are no finite numbers are left out.
        faint: Whether it stands behind the others.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    faint: bool = False

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if math.isfinite(x + y)]


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    whole_x: bool = False,
    mark: tuple[float, str] | None = None,
    dot: tuple[float, float] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Markup:
    """Return a chart of lines.

    Args:
        lines: At least one, with at least one point in all.
        label: What the chart shows, for those who hear the page.
        x_label: What the horizontal axis counts.
        y_label: What the vertical one does.
        x_range: Ends of the horizontal axis; None fits the points.
        y_range: Ends of the vertical axis.
        whole_x: Whether the horizontal axis has whole numbers alone.
        mark: Place and text of a vertical line.
        dot: A point to be seen.
        size: Width and height in the chart's own units, in which letters are 12 high.
    """
    width, height = size
    points = [point for line in lines for point in line.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_ticks = ticks(*(x_range or _ends(xs)), count=max(2, width // 75), whole=whole_x)
    y_ticks = ticks(*(y_range or _ends(ys)), count=max(2, height // 50))
    x0, x1 = x_range or _ends([*xs, *x_ticks])
    y0, y1 = y_range or (y_ticks[0], y_ticks[-1])
    inner_width, inner_height = width - LEFT - RIGHT, height - TOP - BOTTOM

    def px(x: float) -> float:
        return round(LEFT + (x - x0) / (x1 - x0) * inner_width, 1)

    def py(y: float) -> float:
        return round(TOP + (y1 - y) / (y1 - y0) * inner_height, 1)

    parts: list[Markup] = []
    for y in y_ticks:
        parts.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=py(y), y2=py(y), class_="grid"))
        parts.append(tag("text", number(y), x=LEFT - 6, y=py(y) + 4, text_anchor="end"))
    for x in x_ticks:
        parts.append(tag("line", x1=px(x), x2=px(x), y1=height - BOTTOM, y2=height - BOTTOM + 4,
                         class_="axis"))  # fmt: skip
        parts.append(tag("text", number(x), x=px(x), y=height - BOTTOM + 17, text_anchor="middle"))
    parts.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=height - BOTTOM, y2=height - BOTTOM,
                     class_="axis"))  # fmt: skip
    parts.append(tag("text", x_label, x=LEFT + inner_width / 2, y=height - 6,
                     text_anchor="middle", class_="title"))  # fmt: skip
    middle = TOP + inner_height / 2
    parts.append(tag("text", y_label, x=11, y=middle, text_anchor="middle", class_="title",
                     transform=f"rotate(-90 11 {middle})"))  # fmt: skip
    if mark is not None:
        place, text = mark
        at = px(place)
        side = "end" if at > width * 0.6 else "start"
        parts.append(tag("line", x1=at, x2=at, y1=TOP, y2=height - BOTTOM, class_="mark"))
        parts.append(tag("text", text, x=at + (-5 if side == "end" else 5), y=height - BOTTOM - 7,
                         text_anchor=side, class_="marked"))  # fmt: skip
    for i in sorted(range(len(lines)), key=lambda i: not lines[i].faint):
        parts.append(_drawn(lines[i], i, px, py))
    if dot is not None:
        parts.append(tag("circle", cx=px(dot[0]), cy=py(dot[1]), r=5, class_="dot"))
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def legend(lines: Sequence[Line]) -> Markup | None:
    """Return the names and colours of a chart's lines; None where one line needs none."""
    if len(lines) < 2:
        return None
    entries = [
        tag("li", tag("span", class_=f"key {_kind(line, i)}", aria_hidden="true"), line.name)
        for i, line in enumerate(lines)
    ]
    return tag("ul", *entries, class_="legend")


def ticks(low: float, high: float, *, count: int = 5, whole: bool = False) -> list[float]:
    """Return round numbers from at most ``low`` to at least ``high``, about ``count`` of them.

    Whole ones lie within both ends.
    """
    rough = (high - low) / max(1, count - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
    if whole:
        step = max(1, round(step))
        return [float(n) for n in range(math.ceil(low / step) * step, math.floor(high) + 1, step)]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def number(value: float) -> str:
    """Return a number in few letters."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:g}"


def thinned(
    points: Sequence[tuple[float, float]], most: int = MOST_POINTS
) -> list[tuple[float, float]]:
    """Return at most about ``most`` points, first and last among them."""
    every = max(1, -(-len(points) // most))
    return [*points[::every], *(points[-1:] if (len(points) - 1) % every else [])]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest value, a little apart where they are the same."""
    low, high = min(values), max(values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    apart = abs(low) / 10 or 1.0
    return low - apart, high + apart


def _kind(line: Line, place: int) -> str:
    return "faint" if line.faint else f"c{place % COLOURS}"


def _drawn(line: Line, place: int, px: Scale, py: Scale) -> Markup:
    places = [(px(x), py(y)) for x, y in thinned(line.points)]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    parts: list[Markup | None] = [tag("path", d=path) if len(places) > 1 else None]
    if not line.faint and len(places) <= FEW_POINTS:
        parts += [tag("circle", cx=x, cy=y, r=3) for x, y in places]
    return tag("g", join(parts), class_=f"line {_kind(line, place)}")
